"""The ring package's views of shared memory, with every load and store a step of the schedule."""

from collections.abc import Callable
from typing import Any

from kqmp.ring.lane import LaneControl, LaneReader, LaneWriter
from kqmp.ring.log import DispatchReader, DispatchWriter, EndsReader
from tests.model.world import World


class View:
    """A memoryview whose loads and stores are steps; a copy of several bytes is done in halves."""

    __slots__ = ("_memory", "_step", "_stored")

    def __init__(
        self, memory: memoryview, step: Callable[[], None], stored: Callable[[], None] | None = None
    ) -> None:
        self._memory = memory
        self._step = step
        self._stored = stored

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, key: Any) -> Any:
        self._step()
        return self._memory[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._step()
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self._memory))
            middle = len(value) // 2
            self._memory[start : start + middle] = value[:middle]
            self._step()
            self._memory[start + middle : stop] = value[middle:]
        else:
            self._memory[key] = value
        if self._stored is not None:
            self._stored()

    def release(self) -> None:
        self._memory.release()


class Map:
    """A mapping with such views."""

    def __init__(self, plain: Any, step: Callable[[], None]) -> None:
        self._plain = plain
        self.bytes_ = View(plain.bytes_, step)
        self.words = View(plain.words, step)

    def close(self) -> None:
        self._plain.close()


def views(world: World, taken: Callable[[], None]) -> dict[type, type]:
    """Return subclasses of the ring's views for one world; `taken` is told of cursor stores."""
    step = world.step

    class Control(LaneControl):
        def __init__(self, fd: int) -> None:
            super().__init__(fd)
            self._words = View(self._words, step)  # type: ignore[assignment]

    class Writer(LaneWriter):
        def __init__(self, fd: int, end: int, end_number: int) -> None:
            super().__init__(fd, end, end_number)
            self._words = View(self._words, step)  # type: ignore[assignment]
            self._map = Map(self._map, step)  # type: ignore[assignment]

    class Reader(LaneReader):
        def __init__(self, fd: int) -> None:
            super().__init__(fd)
            self.words = View(self.words, step)  # type: ignore[assignment]
            self.cursor_word = View(self.cursor_word, step, taken)  # type: ignore[assignment]

    class Log(DispatchWriter):
        def __init__(self, fd: int) -> None:
            super().__init__(fd)
            self.words = View(self.words, step)  # type: ignore[assignment]
            self._log = View(self._log, step)  # type: ignore[assignment]

    class Records(DispatchReader):
        def __init__(self, fd: int) -> None:
            super().__init__(fd)
            self._words = View(self._words, step)  # type: ignore[assignment]

    class Ends(EndsReader):
        def __init__(self, fd: int, lane_index: int) -> None:
            super().__init__(fd, lane_index)
            self._map = Map(self._map, step)  # type: ignore[assignment]

    return {
        LaneControl: Control,
        LaneWriter: Writer,
        LaneReader: Reader,
        DispatchWriter: Log,
        DispatchReader: Records,
        EndsReader: Ends,
    }
