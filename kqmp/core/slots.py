"""Which lane a message goes to: order by key, by partition, or none.

For `key`, keys fall into `SLOTS` slots. A slot that may be in flight stays on its lane, so that one
key is never on two lanes at once; an idle slot goes to the least loaded lane. Per-message work is
one dictionary look-up (`dict.__getitem__` through `map`): the dictionary knows the lane of each key
for one *generation* of a few tens of milliseconds. When a generation ends, all slots touched in it
share one bound, the ends of the lanes at that moment: a slot is in flight while its lane's cursor is
below the bound of the slot's last generation. That errs on the safe side only, and costs nothing per
message.

Runs in the fetcher and starts empty with its process: a partition opens only when no older message
of it is in any lane, so that no order is owed to what a predecessor dispatched.
"""

from collections.abc import Callable, Sequence
from typing import Final

SLOTS: Final = 8192
#: A generation lasts at least this long ...
GENERATION_S: Final = 0.02
#: ... and at least this long per key looked up in it, so that look-ups stay below 5% of the time ...
GENERATION_S_PER_MISS: Final = 15e-6
#: ... but never longer, and with no more keys than this.
GENERATION_S_MAX: Final = 0.25
GENERATION_KEYS_MAX: Final = 100_000


class Generations:
    """The bounds of past generations: is a slot of generation g on a lane still in flight?"""

    __slots__ = ("_bounds", "_oldest", "current")

    def __init__(self) -> None:
        """Start in generation 1; slots never touched are of generation 0."""
        self.current = 1
        self._oldest = 1
        self._bounds: dict[int, list[int]] = {}

    def end(self, ends: list[int], cursors: Sequence[int]) -> None:
        """End the current generation; forget those that every lane has passed.

        Args:
            ends: per lane, the number after the last message placed, bays included.
            cursors: per lane, messages taken.
        """
        self._bounds[self.current] = ends
        self.current += 1
        while self._oldest < self.current and self._passed(self._bounds[self._oldest], cursors):
            del self._bounds[self._oldest]
            self._oldest += 1

    def in_flight(self, generation: int, lane: int, cursor: int) -> bool:
        """Whether a slot last used in `generation` on `lane` may have an unfinished message."""
        if generation >= self.current:
            return True
        bounds = self._bounds.get(generation)
        return bounds is not None and cursor < bounds[lane]

    def clamp(self, ends: list[int]) -> None:
        """Lower all bounds to `ends`, after messages were dropped from bays."""
        for generation, bounds in self._bounds.items():
            self._bounds[generation] = [min(pair) for pair in zip(bounds, ends, strict=True)]

    @staticmethod
    def _passed(bounds: list[int], cursors: Sequence[int]) -> bool:
        return all(cursor >= bound for cursor, bound in zip(cursors, bounds, strict=True))


class KeyLanes(dict["bytes | int | None", int]):
    """Key -> lane for one generation; a miss decides. Null keys are never kept."""

    def __init__(self, lane_count: int, cursor_of: Callable[[int], int]) -> None:
        """Start with all slots idle.

        Args:
            lane_count: 1..256.
            cursor_of: reads a lane's cursor from shared memory.
        """
        super().__init__()
        self._cursor_of = cursor_of
        self._lane_count = lane_count
        self._slot_lane = [0] * SLOTS
        self._slot_generation = [0] * SLOTS
        self._generations = Generations()
        self._loads = [0.0] * lane_count
        self._weights = [1.0] * lane_count
        self._started_s = 0.0

    def __missing__(self, key: "bytes | int | None") -> int:
        """Decide the lane of a key not seen in this generation."""
        if key is None:
            return self._least_loaded()
        slot = hash(key) & (SLOTS - 1)
        generation = self._slot_generation[slot]
        current = self._generations.current
        lane = self._slot_lane[slot]
        if generation != current:
            if not generation or not self._generations.in_flight(
                generation, lane, self._cursor_of(lane)
            ):
                lane = self._slot_lane[slot] = self._least_loaded()
            self._slot_generation[slot] = current
        self[key] = lane
        return lane

    def begin_batch(
        self, loads_s: list[float], weights_s: list[float], ends: list[int], now_s: float
    ) -> None:
        """Take the lanes' loads; start a new generation if the current one is due.

        Args:
            loads_s: per lane, seconds of work it holds, bay included.
            weights_s: per lane, seconds a further message adds.
            ends: per lane, the number after the last message placed, bays included.
            now_s: monotonic.
        """
        self._loads = loads_s
        self._weights = weights_s
        due = min(max(GENERATION_S, len(self) * GENERATION_S_PER_MISS), GENERATION_S_MAX)
        if now_s - self._started_s >= due or len(self) > GENERATION_KEYS_MAX:
            self.clear()
            self._generations.end(ends, [self._cursor_of(i) for i in range(self._lane_count)])
            self._started_s = now_s

    def dropped(self, ends: list[int]) -> None:
        """Tell that held messages were dropped: `ends` are the lanes' ends without them."""
        self._generations.clamp(ends)

    def _least_loaded(self) -> int:
        loads = self._loads
        lane = loads.index(min(loads))
        loads[lane] += self._weights[lane]
        return lane
