"""The fetcher's side of the lanes: place a batch, fill lanes from bays, publish with one store.

Glue between the pure core (slots, bays, depth) and shared memory (lanes, log); knows no Kafka. Each
turn of the fetcher's loop is `look` (read the lanes' cursors), `place` (a fetched batch into bays)
and `send` (bays into lanes, one log record, one publishing store, doorbells).
"""

from collections.abc import Sequence
from typing import Final

from kqmp.config.memory import RINGS_IN_BAYS
from kqmp.core.batch import Chunk, Columns, Opening, Part, split_by_lane
from kqmp.core.bays import Bay
from kqmp.core.depth import UNMEASURED_S, Depth
from kqmp.core.drain import Drain, LaneLoad
from kqmp.core.slots import KeyLanes
from kqmp.ring import bell
from kqmp.ring import words as w
from kqmp.ring.frame import Section, encode_payload
from kqmp.ring.lane import LaneWriter
from kqmp.ring.log import NOTHING_HELD, DispatchWriter, Run, Touched, encode_record

#: Messages that all bays together may hold before fetching is paused.
BAY_COUNT_MAX: Final = 20_000
#: Where partitions are bound to lanes, those of a lane whose bay takes up more than this part of
#: its share of these bounds are held, until the lane and its bay hold half of what the lane may: a
#: long run of one partition would else fill the bays and leave the other lanes idle.
CROWDED: Final = 0.4
#: Longest and shortest wait for a full lane to drain.
WAIT_MAX_S: Final = 0.1
WAIT_MIN_S: Final = 0.0005
#: The shortest one where bays alone are waited for, also in a fetch: there librdkafka waits whole
#: milliseconds, and for less than one not at all.
BAYS_WAIT_MIN_S: Final = 0.002


def _overhead_bytes(columns: Columns) -> int:
    """Estimate what a message of a batch takes beside its value, by the first one."""
    size = 16 + len(columns.keys[0] or b"")
    for name, value in (columns.headers[0] if columns.headers else None) or ():
        size += 8 + len(name) + len(value or b"")
    return size


class Dispatcher:
    """All lanes of one fetcher."""

    def __init__(
        self,
        dispatch_fd: int,
        lane_fds: Sequence[int],
        bell_fds: Sequence[int],
        ordering: str,
        ahead_s: float,
        now_s: float,
    ) -> None:
        """Attach to the lanes where the last publication left them.

        Args:
            dispatch_fd: dispatch memory.
            lane_fds: one a lane.
            bell_fds: one a lane.
            ordering: "key", "partition" or "unordered".
            ahead_s: seconds of work a lane may hold.
            now_s: monotonic.
        """
        self.log = DispatchWriter(dispatch_fd)
        ends = self.log.lane_ends()
        self._lanes = [LaneWriter(fd, *end) for fd, end in zip(lane_fds, ends, strict=True)]
        self._bells = bell_fds
        self._ordering = ordering
        self._bays = [Bay() for _ in lane_fds]
        self._depths = [Depth(ahead_s, lane.cursor, now_s) for lane in self._lanes]
        self._drain = Drain(len(lane_fds))
        #: Lanes whose partitions are held -> which these are.
        self._crowded: dict[int, set[int]] = {}
        self._slots = KeyLanes(len(lane_fds), lambda lane: self._lanes[lane].cursor)
        self._touched: set[Opening] = set()
        self._runs: dict[Opening, list[Run]] = {}
        self._pending: bytes | None = None
        self._written: set[int] = set()
        #: Lanes whose ring had no room for the next frame of their bay.
        self._full: set[int] = set()
        self._now_s = now_s
        self._ring_bytes = self._lanes[0].ring_bytes
        #: Bytes that all bays together may hold before fetching is paused.
        self.bay_bytes_max = RINGS_IN_BAYS * self._ring_bytes

    @property
    def held_count(self) -> int:
        """Messages in bays."""
        return sum(bay.count for bay in self._bays)

    @property
    def fullness(self) -> float:
        """How full all bays together are, of their bounds in count and bytes.

        Above 0.5 nothing more is wanted; at 1 fetching must pause, until it is below 0.25.
        """
        return self._part(self.held_count, sum(bay.byte_count for bay in self._bays))

    def _part(self, count: int, byte_count: int) -> float:
        return max(count / BAY_COUNT_MAX, byte_count / self.bay_bytes_max)

    def crowded(self) -> set[int]:
        """Return the partitions of which nothing is wanted for now, as their lanes hold plenty.

        Only where partitions are bound to lanes: else all lanes get some of each.
        """
        if self._ordering != "partition" or len(self._bays) == 1:
            return set()
        share = CROWDED / len(self._bays)
        for index, bay in enumerate(self._bays):
            if index in self._crowded:
                lane = self._lanes[index]
                holds = lane.outstanding + bay.count
                if holds <= self._depths[index].limit // 2:
                    del self._crowded[index]
                    continue
            elif self._part(bay.count, bay.byte_count) <= share:
                continue
            held = self._crowded.setdefault(index, set())
            held.update(opening.partition for opening in bay.openings())
        return set().union(*self._crowded.values())

    @property
    def pending(self) -> bool:
        """Whether a record waits for room in the log; nothing may be placed meanwhile."""
        return self._pending is not None

    def look(self, now_s: float) -> None:
        """Take note of how far the lanes' processors are."""
        self._now_s = now_s
        for lane, depth in zip(self._lanes, self._depths, strict=True):
            cursor = lane.cursor
            depth.observe(cursor, lane.end_number - cursor, now_s)

    def wanted(self) -> int:
        """Return how many more messages the lanes can take at once; 0 = fetch nothing now.

        Nothing while every lane holds enough; once one does not, what all of them can take, since
        that lane gets only its share of it; and not less than half of what one of them may hold,
        or a lane that was given nothing yet would be looked for message by message. A lane whose
        bay fills it, or whose ring is full, does not count: the others may go on, until the bays
        are half full.
        """
        if self._pending is not None or self.fullness > 0.5:
            return 0
        room, is_due = 0, False
        for index, (lane, depth) in enumerate(zip(self._lanes, self._depths, strict=True)):
            lacking = depth.limit - lane.outstanding - self._bays[index].count
            if lacking > 0 and index not in self._full:
                room += lacking
                is_due = is_due or self._is_due(lane, depth)
        if not is_due or (self._ordering == "key" and self._drain.waits(self._loads())):
            return 0
        room = max(room, max(depth.limit for depth in self._depths) // 2)
        # All of a batch may be for one lane, and more than that lane's share is seen only then.
        most = int(CROWDED * BAY_COUNT_MAX) // len(self._lanes)
        return min(room, most) if self._ordering == "partition" else room

    @staticmethod
    def _is_due(lane: LaneWriter, depth: Depth) -> bool:
        """Whether a lane is to be filled again."""
        return lane.outstanding <= depth.mark

    def _loads(self) -> list[LaneLoad]:
        """Return the lanes as `Drain` sees them."""
        loads = []
        for index, (lane, depth) in enumerate(zip(self._lanes, self._depths, strict=True)):
            outstanding = lane.outstanding
            is_stuck = depth.stuck_s(outstanding, self._now_s) > 0.0
            holds = outstanding + self._bays[index].count
            loads.append(LaneLoad(holds, depth.limit, is_stuck, self._slots.live(index)))
        return loads

    def wait_s(self) -> float:
        """Return how long it takes until some lane wants more, within bounds."""
        awaited = self._drain.lane
        if awaited is not None:
            dry_s = self._loads()[awaited].holds * self._depths[awaited].seconds_each
            return max(WAIT_MIN_S, min(dry_s, self.bays_wait_s()))
        if self.fullness > 0.5:
            return self.bays_wait_s()
        waits = [self._due_s(index) for index in range(len(self._lanes))]
        return max(WAIT_MIN_S, min([WAIT_MAX_S, *waits]))

    def bays_wait_s(self) -> float:
        """Return how long it takes until a lane wants what its bay holds, within bounds."""
        held = [self._due_s(index) for index, bay in enumerate(self._bays) if bay.count]
        return max(BAYS_WAIT_MIN_S, min([WAIT_MAX_S, *held]))

    def _due_s(self, index: int) -> float:
        """Return in how many seconds a lane may take something again; 0 if it may now."""
        lane, depth = self._lanes[index], self._depths[index]
        outstanding = lane.outstanding
        due_s = depth.due_s(outstanding, self._now_s)
        if index in self._full:
            due_s = max(due_s, depth.seconds_each + depth.stuck_s(outstanding, self._now_s))
        return due_s

    def place(self, columns: Columns, parts: list[Part], value_bytes: int) -> None:
        """Put a batch into the bays of its lanes; `parts` are all open, offsets ascend in each.

        Raises `fetched_position` of each opening.
        """
        count = len(columns.keys)
        start = 0
        for opening, size in parts:
            start += size
            opening.fetched_position = columns.offsets[start - 1] + 1
            self._touched.add(opening)
        bytes_each = value_bytes // count + _overhead_bytes(columns)
        if len(self._lanes) == 1:
            self._bays[0].append(Chunk(columns, parts, bytes_each))
            return
        lanes = self._choose(columns, parts, count)
        self._drain.placed([lanes.count(index) for index in range(len(self._lanes))])
        for lane, chunk in split_by_lane(columns, parts, lanes, bytes_each):
            self._bays[lane].append(chunk)

    def _choose(self, columns: Columns, parts: list[Part], count: int) -> bytes:
        """Return the lane of each message."""
        numbers = [
            lane.end_number + bay.count for lane, bay in zip(self._lanes, self._bays, strict=True)
        ]
        # The same for all lanes: what a slower one holds becomes less more slowly, which is enough.
        # By its own speed one that lost its core for a moment would be given little for long.
        measured = [depth.seconds_each for depth in self._depths if depth.seconds_each]
        each_s = min(measured, default=UNMEASURED_S)
        loads = [
            depth.load_s(number - lane.cursor, each_s, self._now_s)
            for lane, depth, number in zip(self._lanes, self._depths, numbers, strict=True)
        ]
        if self._ordering == "unordered":
            return self._share_out(count, loads, each_s)
        self._slots.begin_batch(loads, each_s, numbers, self._now_s)
        if self._ordering == "partition":
            return b"".join(bytes([self._slots[p.opening.partition]]) * p.count for p in parts)
        keys = columns.keys
        if keys[0] is None and keys.count(None) == count:
            return self._share_out(count, loads, each_s)
        if not self._slots:
            self._slots.spread(keys, loads)
        return bytes(map(self._slots.__getitem__, keys))

    @staticmethod
    def _share_out(count: int, loads: list[float], each_s: float) -> bytes:
        """Give each lane one stretch, so that all end up equally loaded."""
        lanes = bytearray()
        step = max(1, count // (4 * len(loads)))
        while len(lanes) < count:
            lane = loads.index(min(loads))
            size = min(step, count - len(lanes))
            lanes += bytes([lane]) * size
            loads[lane] += size * each_s
        # Equal lanes side by side: fewer, longer parts.
        return bytes(sorted(lanes))

    def send(self) -> bool:
        """Move what fits from bays to lanes and publish; return whether anything was published.

        Nothing is moved while each lane that has a bay holds enough.

        If the log has no room, the record stays pending and is published by a later call.
        """
        if self._pending is None:
            held = [index for index, bay in enumerate(self._bays) if bay.count]
            # All at once, or each would want a turn of its own.
            if any(self._is_due(self._lanes[i], self._depths[i]) for i in held):
                for index in held:
                    self._fill(index)
            if not self._touched:
                return False
            self._pending = encode_record(self._record())
            self._touched.clear()
            self._runs.clear()
        ends = [value for lane in self._lanes for value in (lane.end, lane.end_number)]
        if not self.log.publish(self._pending, ends):
            return False
        self._pending = None
        for index in self._written:
            if self._lanes[index].sleeping:
                bell.ring(self._bells[index])
        self._written.clear()
        return True

    def _fill(self, index: int) -> None:
        """Write frames to one lane until it or its bay is done."""
        lane, bay, depth = self._lanes[index], self._bays[index], self._depths[index]
        room = depth.limit - lane.outstanding
        while room > 0 and (chunk := bay.peek()) is not None:
            # A frame is at most a quarter of the ring, unless one message alone is larger.
            limit = max(1, self._ring_bytes // 4 // chunk.bytes_each)
            taken = bay.take(min(room, limit))
            if taken is None:
                return
            if not self._write(index, taken):
                bay.put_back(taken)
                self._full.add(index)
                return
            self._full.discard(index)
            room -= taken.count

    def _write(self, index: int, chunk: Chunk) -> bool:
        lane = self._lanes[index]
        columns = chunk.columns
        stamps = None
        if columns.timestamps is not None and columns.timestamp_types is not None:
            stamps = (columns.timestamps, columns.timestamp_types)
        payload = encode_payload(
            columns.offsets, columns.keys, columns.values, stamps, columns.headers
        )
        sections = [Section(o.epoch, o.topic_id, o.partition, n) for o, n in chunk.parts]
        number, packed = lane.end_number, payload.parts[0]
        if not lane.write(sections, chunk.count, payload):
            return False
        self._written.add(index)
        start = 0
        for opening, count in chunk.parts:
            offsets = packed[8 * start : 8 * (start + count)]
            self._runs.setdefault(opening, []).append(Run(index, number + start, offsets))
            start += count
            self._touched.add(opening)
        return True

    def _record(self) -> list[Touched]:
        """Return the log record of everything written or fetched since the last one."""
        holding = [bay for bay in self._bays if bay.count]
        return [
            Touched(
                opening.epoch,
                opening.topic_id,
                opening.partition,
                opening.fetched_position,
                min(
                    (low for bay in holding if (low := bay.held_low(opening)) is not None),
                    default=NOTHING_HELD,
                ),
                self._runs.get(opening, []),
            )
            for opening in self._touched
        ]

    def drop(self, openings: set[Opening]) -> int:
        """Forget held messages of partitions that were revoked; return how many they were.

        Nothing of them may be pending: publish first. What was published stays.
        """
        dropped = sum(bay.drop(openings) for bay in self._bays)
        self._full = {index for index in self._full if self._bays[index].count}
        for held in self._crowded.values():
            held.difference_update(opening.partition for opening in openings)
        self._touched -= openings
        if dropped:
            self._slots.dropped(
                [
                    lane.end_number + bay.count
                    for lane, bay in zip(self._lanes, self._bays, strict=True)
                ]
            )
        return dropped

    def count_up(self, fetched: int, fetched_bytes: int, dropped: int) -> None:
        """Raise the shared counters after a batch."""
        words = self.log.words
        # SAFETY: the fetcher is the only writer of these; the coordinator shows them.
        words[w.FETCHED_COUNT] += fetched
        words[w.FETCHED_BYTES] += fetched_bytes
        words[w.DROPPED_COUNT] += dropped

    def beat(self) -> None:
        """Show the coordinator's watchdog that the loop turns, and how much waits in bays."""
        # SAFETY: the fetcher is the only writer of both.
        self.log.words[w.FETCHER_HEARTBEAT] += 1
        self.log.words[w.HELD_COUNT] = self.held_count
