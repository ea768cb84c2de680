"""From log records and cursors to positions: what of a partition is finished.

One `Inflight` per fetcher index, in the coordinator; it outlives the fetcher process, as the lanes
do. It never looks at single messages: per epoch and lane it keeps the runs of offsets that were
dispatched, drops whole runs below the cursor, and finds the first unfinished offset of a partition
by indexing into the oldest run that is left.

The position of an opening is the smallest of: its unfinished dispatched offsets, `held_low`, and
`fetched`. It never passes an unfinished offset and, for one epoch, never falls.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kqmp.errors import RingCorrupt

#: `held_low` of a partition of which the fetcher holds nothing back.
NOTHING_HELD = -1


class LaneState(NamedTuple):
    """One lane as read from shared memory: the cursor first, then the open table.

    Open numbers may stand in any order, as they do in the table. Those at or above the cursor are
    void and are passed over.
    """

    cursor: int
    open_numbers: Sequence[int] = ()


class _Run:
    """Messages `first` .. `first + count` of one epoch on one lane."""

    __slots__ = ("first", "offsets", "stop")

    def __init__(self, first: int, offsets: bytes) -> None:
        self.first = first
        self.offsets = memoryview(offsets).cast("q")
        self.stop = first + len(self.offsets)


class _Open:
    """What is known of one epoch."""

    __slots__ = ("fetched", "held_low", "lanes", "partition")

    def __init__(self, partition: int, position: int) -> None:
        self.partition = partition
        self.fetched = position
        self.held_low = NOTHING_HELD
        self.lanes: dict[int, deque[_Run]] = {}


class Inflight:
    """What one fetcher index has dispatched and not yet finished."""

    __slots__ = ("_epochs", "_next_numbers")

    def __init__(self, lane_count: int) -> None:
        """Start with nothing dispatched on `lane_count` lanes."""
        self._epochs: dict[int, _Open] = {}
        self._next_numbers = [0] * lane_count

    def open(self, epoch: int, partition: int, position: int) -> None:
        """Begin an epoch at `position`."""
        self._epochs[epoch] = _Open(partition, position)

    def forget(self, epoch: int) -> None:
        """End an epoch; nothing of it is looked at again."""
        self._epochs.pop(epoch, None)

    def note(self, epoch: int, fetched: int, held_low: int) -> None:
        """Take the fetched position and the lowest held offset of an epoch from a log record.

        Records of epochs that are not open are dropped: they were forgotten by force.
        """
        state = self._epochs.get(epoch)
        if state is not None:
            state.fetched = max(state.fetched, fetched)
            state.held_low = held_low

    def dispatched(self, epoch: int, lane: int, first: int, offsets: bytes) -> None:
        """Take a run from a log record; the runs of one record in the order of their numbers.

        Args:
            epoch: its epoch.
            lane: lane number.
            first: the lane's number of its first message.
            offsets: int64 little endian, ascending; at least one.

        Raises:
            RingCorrupt: the run is no run, or does not follow the lane's last one.
        """
        count, odd_bytes = divmod(len(offsets), 8)
        if (
            not 0 <= lane < len(self._next_numbers)
            or first != self._next_numbers[lane]
            or not count
            or odd_bytes
        ):
            msg = f"log run of {len(offsets)} bytes from {first} does not follow on lane {lane}"
            raise RingCorrupt(msg)
        self._next_numbers[lane] = first + count
        state = self._epochs.get(epoch)
        if state is not None:
            state.lanes.setdefault(lane, deque()).append(_Run(first, offsets))

    def position(self, epoch: int, lanes: Sequence[LaneState]) -> int:
        """Return the position of an open epoch; prunes what is finished."""
        state = self._epochs[epoch]
        lows = [state.fetched]
        if state.held_low != NOTHING_HELD:
            lows.append(state.held_low)
        for lane in list(state.lanes):
            low = self._lowest(state, lane, lanes[lane])
            if low is not None:
                lows.append(low)
        return min(lows)

    def unfinished_lanes(self, epoch: int, lanes: Sequence[LaneState]) -> list[int]:
        """Return the lanes that hold unfinished messages of an epoch."""
        state = self._epochs.get(epoch)
        if state is None:
            return []
        return [
            lane for lane in list(state.lanes) if self._lowest(state, lane, lanes[lane]) is not None
        ]

    def fetched(self, epoch: int) -> int:
        """Return the published fetched position of an open epoch."""
        return self._epochs[epoch].fetched

    def epochs(self) -> Iterable[int]:
        """Return the epochs that are open here."""
        return self._epochs.keys()

    @staticmethod
    def _lowest(state: _Open, lane: int, now: LaneState) -> int | None:
        """Return the lowest unfinished offset of an epoch on a lane, dropping finished runs."""
        runs = state.lanes[lane]
        cursor, numbers = now
        while runs:
            run = runs[0]
            below = min(cursor, run.stop)
            # Offsets ascend with numbers, so the lowest number has the lowest offset.
            opened = min((n for n in numbers if run.first <= n < below), default=None)
            if opened is not None:
                return run.offsets[opened - run.first]
            if cursor < run.stop:
                return run.offsets[max(cursor, run.first) - run.first]
            runs.popleft()
        del state.lanes[lane]
        return None
