"""Which lane a message goes to: order by key, by partition, or none.

For `key`, keys fall into `SLOTS` slots. A slot that may be in flight stays on its lane, so that one
key is never on two lanes at once; an idle slot goes to the least loaded lane. Per-message work is
one dictionary look-up (`dict.__getitem__` through `map`): the dictionary knows the lane of each key
for one *generation* of a few tens of milliseconds. When a generation ends, each slot looked up in
it takes the end of its lane at that moment as its *bound*: it is in flight while the cursor of its
lane is below that. This errs on the safe side only, and costs nothing per message.

What a decision brings a lane is not one message but all that follow on that slot while it is in
flight. So a lane's load is what it holds, and what its slots of late are about to bring: their
number by the messages that follow a decision, as measured. Without that a lane that holds less is
given all keys that are new, and the whole of their messages: a backlog, which comes one partition
after another, each with keys of its own, went to one lane by turns. For the same reason the first
batch of a generation is shared out as a whole, by how often each key is in it (`spread`).

Runs in the fetcher and starts empty with its process: a partition opens only when no older message
of it is in any lane, so that no order is owed to what a predecessor dispatched.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
#: The messages that follow a decision are measured over at least this many decisions.
DECISIONS_MIN: Final = 32


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
        self._each_s = 1.0
        self._started_s = 0.0
        #: Slots of each lane: those of the last generation, and what was decided since.
        self._live = [0] * lane_count
        #: Messages that follow a decision beyond the first one; and, since that was measured last,
        #: the decisions, and the messages placed before them.
        self._following = 0.0
        self._decisions = 0
        self._placed: int | None = None

    def __missing__(self, key: "bytes | int | None") -> int:
        """Decide the lane of a key not seen in this generation."""
        if key is None:
            return self._least_loaded(1.0)
        return self._decide(key, 1.0 + self._following)

    def spread(self, keys: "Iterable[bytes | None]", loads_s: Sequence[float]) -> None:
        """Decide the lanes of a generation's first batch, by what each of its keys brings.

        What a key brings is taken to be as its number in this batch, and as much in all as follows
        on a decision. First the keys that are in flight are counted for their lanes, then the idle
        ones are shared out, the most frequent first. 50 ns a message, for one batch a generation.

        Args:
            keys: of the whole batch.
            loads_s: as for `begin_batch`, which comes first.
        """
        counts = Counter(key for key in keys if key is not None)
        if not counts:
            return
        factor = max(1.0, (1.0 + self._following) * len(counts) / counts.total())
        self._loads_s = list(loads_s)
        idle = []
        for key, count in counts.most_common():
            slot = hash(key) & (SLOTS - 1)
            lane = self._slot_lane[slot]
            if self._is_current[slot] or self._slot_bound[slot] > self._cursor_of(lane):
                self._loads_s[lane] += count * factor * self._each_s
                self._decide(key, 0.0)
            else:
                idle.append((key, count * factor))
        for key, brings in idle:
            self._decide(key, brings)

    def _decide(self, key: "bytes | int", messages: float) -> int:
        """Return the lane of a key's slot: where it is in flight, else the least loaded."""
        slot = hash(key) & (SLOTS - 1)
        lane = self._slot_lane[slot]
        if not self._is_current[slot]:
            if self._slot_bound[slot] <= self._cursor_of(lane):
                lane = self._slot_lane[slot] = self._least_loaded(messages)
                self._live[lane] += 1
                self._decisions += 1
            self._is_current[slot] = 1
            self._current.append(slot)
        self[key] = lane
        return lane

    def begin_batch(
        self, loads_s: list[float], each_s: float, ends: Sequence[int], now_s: float
    ) -> None:
        """Take the lanes' loads; start a new generation if the current one is due.

        Call it before the look-ups of each batch, when all messages of the last one were placed.

        Args:
            loads_s: per lane, seconds of work it holds, bay included.
            each_s: seconds a further message adds.
            ends: per lane, the number after the last message placed, bays included.
            now_s: monotonic.
        """
        self._measure(sum(ends))
        self._each_s = each_s
        due = min(max(GENERATION_S, len(self) * GENERATION_S_PER_MISS), GENERATION_S_MAX)
        if now_s - self._started_s >= due or len(self) > GENERATION_KEYS_MAX:
            self._end_generation(ends)
            self._started_s = now_s
        for lane, end in enumerate(ends):
            if self._cursor_of(lane) >= end:
                self._live[lane] = 0  # it is dry: its slots are idle, and may go elsewhere
        self._loads_s = [
            load_s + live * self._following * each_s
            for load_s, live in zip(loads_s, self._live, strict=True)
        ]

    def live(self, lane: int) -> int:
        """Return how many slots of a lane were looked up of late."""
        return self._live[lane]

    def dropped(self, ends: Sequence[int]) -> None:
        """Tell that held messages were dropped: `ends` are the lanes' ends without them.

        What was held behind them moves to lower numbers, so each bound stays above its slot's last
        message; and no bound may stay above the end, which its lane would reach only with messages
        of others.
        """
        ends_of_slots = map(ends.__getitem__, self._slot_lane)
        self._slot_bound = list(map(min, self._slot_bound, ends_of_slots))
        self._decisions, self._placed = 0, sum(ends)

    def _measure(self, placed: int) -> None:
        """Measure what follows a decision, if there were enough."""
        if self._placed is None:
            self._placed = placed
        if self._decisions >= DECISIONS_MIN:
            following = max(0.0, (placed - self._placed) / self._decisions - 1)
            self._following = (self._following + following) / 2
            self._decisions, self._placed = 0, placed

    def _end_generation(self, ends: Sequence[int]) -> None:
        lanes, bounds = self._slot_lane, self._slot_bound
        self._live = live = [0] * len(self._live)
        for slot in self._current:
            lane = lanes[slot]
            live[lane] += 1
            bounds[slot] = ends[lane]
        self._current.clear()
        self._is_current = bytearray(SLOTS)
        self.clear()

    def _least_loaded(self, messages: float) -> int:
        """Return the lane, and count so many messages of load up on it."""
        loads = self._loads_s
        lane = loads.index(min(loads))
        loads[lane] += self._each_s * messages
        return lane
