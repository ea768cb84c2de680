"""Which lane a message goes to: order by key, by partition, or none.

For `key`, keys fall into `SLOTS` slots. A slot that may be in flight stays on its lane, so that one
key is never on two lanes at once; an idle slot goes to the least loaded lane. Per-message work is
one dictionary look-up (`dict.__getitem__` through `map`): the dictionary knows the lane of each key
for one *generation* of a few tens of milliseconds. When a generation ends, each slot looked up in
it takes the end of its lane at that moment as its *bound*: it is in flight while the cursor of its
lane is below that. This errs on the safe side only, and costs nothing per message.

Runs in the fetcher and starts empty with its process: a partition opens only when no older message
of it is in any lane, so that no order is owed to what a predecessor dispatched.
"""

from collections.abc import Callable, Sequence
from typing import Final

#: A power of two.
SLOTS: Final = 8192
#: A generation lasts at least this long ...
GENERATION_S: Final = 0.02
#: ... and at least this long per key looked up in it, so that look-ups stay below 5% of the time,
GENERATION_S_PER_MISS: Final = 15e-6
#: ... but never longer than this, and it ends with the batch that brings it more keys than this.
GENERATION_S_MAX: Final = 0.25
GENERATION_KEYS_MAX: Final = 100_000


class KeyLanes(dict["bytes | int | None", int]):
    """Key -> lane for one generation; a miss decides. Null keys are never kept.

    Its memory is bounded: the slots, and the keys of one generation.
    """

    def __init__(self, lane_count: int, cursor_of: Callable[[int], int]) -> None:
        """Start with all slots idle.

        Args:
            lane_count: 1..256.
            cursor_of: returns, for a lane, the number below which all its messages are finished:
                its cursor, or its lowest open number where that is lower. Never falls.
        """
        super().__init__()
        self._cursor_of = cursor_of
        self._slot_lane = [0] * SLOTS
        #: A slot is idle once its lane has finished all messages below this number.
        self._slot_bound = [0] * SLOTS
        #: 1 for the slots looked up in this generation, and which those are.
        self._is_current = bytearray(SLOTS)
        self._current: list[int] = []
        self._loads_s = [0.0] * lane_count
        self._weights_s: Sequence[float] = [1.0] * lane_count
        self._started_s = 0.0

    def __missing__(self, key: "bytes | int | None") -> int:
        """Decide the lane of a key not seen in this generation."""
        if key is None:
            return self._least_loaded()
        slot = hash(key) & (SLOTS - 1)
        lane = self._slot_lane[slot]
        if not self._is_current[slot]:
            if self._slot_bound[slot] <= self._cursor_of(lane):
                lane = self._slot_lane[slot] = self._least_loaded()
            self._is_current[slot] = 1
            self._current.append(slot)
        self[key] = lane
        return lane

    def begin_batch(
        self, loads_s: list[float], weights_s: Sequence[float], ends: Sequence[int], now_s: float
    ) -> None:
        """Take the lanes' loads; start a new generation if the current one is due.

        Call it before the look-ups of each batch, when all messages of the last one were placed.

        Args:
            loads_s: per lane, seconds of work it holds, bay included; counted up from here on.
            weights_s: per lane, seconds a further message adds.
            ends: per lane, the number after the last message placed, bays included.
            now_s: monotonic.
        """
        self._loads_s = loads_s
        self._weights_s = weights_s
        due = min(max(GENERATION_S, len(self) * GENERATION_S_PER_MISS), GENERATION_S_MAX)
        if now_s - self._started_s >= due or len(self) > GENERATION_KEYS_MAX:
            self._end_generation(ends)
            self._started_s = now_s

    def dropped(self, ends: Sequence[int]) -> None:
        """Tell that held messages were dropped: `ends` are the lanes' ends without them.

        What was held behind them moves to lower numbers, so each bound stays above its slot's last
        message; and no bound may stay above the end, which its lane would reach only with messages
        of others.
        """
        ends_of_slots = map(ends.__getitem__, self._slot_lane)
        self._slot_bound = list(map(min, self._slot_bound, ends_of_slots))

    def _end_generation(self, ends: Sequence[int]) -> None:
        lanes, bounds = self._slot_lane, self._slot_bound
        for slot in self._current:
            bounds[slot] = ends[lanes[slot]]
        self._current.clear()
        self._is_current = bytearray(SLOTS)
        self.clear()

    def _least_loaded(self) -> int:
        loads = self._loads_s
        lane = loads.index(min(loads))
        loads[lane] += self._weights_s[lane]
        return lane
