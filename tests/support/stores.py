"""Single stores to shared memory as steps, to look or to kill between any two of them.

A view of the ring package is replaced by one that calls `Steps.step` before each store. A copy of
several bytes is no single store: it is done in two halves, with a step between them.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from kqmp.ring import lane

#: Attributes of the ring's classes that hold a view which they write to.
VIEWS = ("words", "_words", "_log", "cursor_word")


class Killed(BaseException):
    """Stands for kill -9: no code of the victim runs any more."""


class Steps:
    """Counts the stores of one process.

    Args:
        kill_at: number of stores that are done; the next one kills. None = never.
        look: called before each store, and by whoever wants to know what was before any.
    """

    def __init__(self, kill_at: int | None = None, look: Callable[[], None] | None = None) -> None:
        self.kill_at = kill_at
        self.look = look
        self.done = 0

    def step(self) -> None:
        if self.look is not None:
            self.look()
        if self.done == self.kill_at:
            raise Killed
        self.done += 1


class StoreView:
    """A memoryview whose stores are steps; loads pass through."""

    def __init__(self, memory: memoryview, steps: Steps) -> None:
        self._memory = memory
        self._steps = steps

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, key: int | slice) -> Any:
        return self._memory[key]

    def __setitem__(self, key: int | slice, value: Any) -> None:
        self._steps.step()
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self._memory))
            middle = len(value) // 2
            assert stop - start == len(value)
            self._memory[start : start + middle] = value[:middle]
            self._steps.step()
            self._memory[start + middle : stop] = value[middle:]
        else:
            self._memory[key] = value

    def release(self) -> None:
        self._memory.release()


def watch(owner: Any, steps: Steps) -> None:
    """Make every store of `owner`, one of the ring's writers or readers, a step."""
    for name in VIEWS:
        if hasattr(owner, name):
            plain = getattr(owner, name)
            plain = plain._memory if isinstance(plain, StoreView) else plain
            setattr(owner, name, StoreView(plain, steps))
    inner = getattr(owner._map, "plain", owner._map)
    owner._map = SimpleNamespace(
        plain=inner,
        bytes_=StoreView(inner.bytes_, steps),
        words=StoreView(inner.words, steps),
        close=inner.close,
    )


@contextmanager
def watched_regions(steps: Steps) -> Iterator[None]:
    """Make the resizing of a lane's file, and what is written into its region, steps."""

    class Region(mmap.mmap):
        def write(self, part: bytes) -> int:  # type: ignore[override]
            middle = len(part) // 2
            steps.step()
            super().write(part[:middle])
            steps.step()
            return middle + super().write(part[middle:])

    def ftruncate(fd: int, size: int) -> None:
        steps.step()
        os.ftruncate(fd, size)

    shim = SimpleNamespace(fstat=os.fstat, ftruncate=ftruncate)
    maps = SimpleNamespace(mmap=Region, PROT_READ=mmap.PROT_READ)
    with patch.object(lane, "os", shim), patch.object(lane, "mmap", maps):
        yield
