"""The dispatch log and the lane ends: how a fetcher publishes a batch with one store.

`DispatchWriter` (fetcher), `DispatchReader` (coordinator) and `EndsReader` (processor, read-only)
are three views of one dispatch memory. Publishing a batch: frames on all lanes, one log record, the
ends of all lanes into slot `record & 1`, then ONE store to `dispatched`. A fetcher killed before
that store has published nothing; its successor goes on from the last published ends.

A record is what the coordinator must know so that it never reads frames: for each partition touched
its epoch, `fetched`, `held_low`, and the runs of offsets with the lane they went to.
"""

import struct
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from kqmp.errors import RingCorrupt
from kqmp.ring import words as w

_RECORD: Final = struct.Struct("<IIQ")
RECORD_MAGIC: Final = 0x474F4C51
PAD_MAGIC: Final = 0x474F4C50
_ALIGN: Final = 16
#: `held_low` of a partition of which nothing is held back.
NOTHING_HELD: Final = -1


class Run(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Messages of one partition that went to one lane."""

    lane: int
    #: The lane's number of the first; the others follow without a gap.
    first: int
    #: int64 little endian, ascending.
    offsets: bytes


class Touched(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a record says of one partition."""

    epoch: int
    topic_id: int
    partition: int
    #: One past the highest offset taken from librdkafka.
    fetched: int
    #: The lowest offset that the fetcher still holds back, or `NOTHING_HELD`.
    held_low: int
    runs: list[Run]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Touched]).decode


def create(lane_count: int, log_bytes: int) -> int:
    """Create the dispatch memory of a fetcher and return its descriptor. Coordinator only."""
    header = {
        w.HEADER_MAGIC: w.DISPATCH_MAGIC,
        w.HEADER_VERSION: w.LAYOUT_VERSION,
        w.HEADER_RING_BYTES: log_bytes,
        w.HEADER_ENTRIES: lane_count,
    }
    return w.create_memory("kqmp-dispatch", w.log_start(lane_count) + log_bytes, header)


def _stable_slot(
    words: memoryview, lane_count: int, first: int, count: int
) -> tuple[int, list[int]]:
    """Return (dispatched, `count` words of the current slot from word `first`), read whole.

    The slot of record n is rewritten only when n + 2 is prepared, after n + 1 was published: if
    `dispatched` is still n after the read, the words belong together.
    """
    size = w.slot_words(lane_count)
    while True:
        number = words[w.DISPATCHED]
        start = w.SLOTS + (number & 1) * size + first
        ends = words[start : start + count].tolist()
        if words[w.DISPATCHED] == number:
            return number, ends


class EndsReader:
    """A processor's view, mapped read-only: up to where its lane holds published frames."""

    __slots__ = ("_index", "_lane_count", "_map")

    def __init__(self, fd: int, lane_index: int) -> None:
        """Map words and slots of the dispatch memory `fd`."""
        _, self._lane_count = w.read_header(fd, w.DISPATCH_MAGIC)
        self._map = w.Mapping(fd, w.log_start(self._lane_count), writable=False)
        self._index = 1 + 2 * lane_index

    def end(self) -> int:
        """Return the published end of this lane in bytes."""
        return _stable_slot(self._map.words, self._lane_count, self._index, 1)[1][0]

    def close(self) -> None:
        """Unmap."""
        self._map.close()


class DispatchWriter:
    """The fetcher's view."""

    __slots__ = (
        "_ends_of_records",
        "_free_from",
        "_lane_count",
        "_log",
        "_map",
        "_slot_words",
        "dispatched",
        "log_bytes",
        "log_end",
        "words",
    )

    def __init__(self, fd: int) -> None:
        """Attach, after a predecessor too: its last published ends are the truth."""
        self.log_bytes, self._lane_count = w.read_header(fd, w.DISPATCH_MAGIC)
        start = w.log_start(self._lane_count)
        self._map = w.Mapping(fd, start + self.log_bytes)
        self.words = self._map.words
        self._log = self._map.bytes_[start:]
        self.dispatched, ends = _stable_slot(self.words, self._lane_count, 0, 1)
        self.log_end = ends[0]
        #: Records not yet counted, as (number, end), and the end of the last one that is. Where a
        #: predecessor's records lie is not known: they count as one.
        self._ends_of_records: deque[tuple[int, int]] = deque()
        self._free_from = self.log_end - self.log_bytes
        if self.dispatched:
            self._ends_of_records.append((self.dispatched, self.log_end))
        else:
            self._free_from = 0
        self._slot_words = w.slot_words(self._lane_count)

    def lane_ends(self) -> list[tuple[int, int]]:
        """Return the published (end in bytes, end number) of each lane."""
        _, ends = _stable_slot(self.words, self._lane_count, 1, 2 * self._lane_count)
        return list(zip(ends[::2], ends[1::2], strict=True))

    def room(self) -> int:
        """Return the bytes that the largest record may have now."""
        counted = self.words[w.COUNTED]
        records = self._ends_of_records
        while records and records[0][0] <= counted:
            self._free_from = records.popleft()[1]
        free = self.log_bytes - (self.log_end - self._free_from)
        tail = self.log_bytes - self.log_end % self.log_bytes
        best = max(min(tail, free), min(self.log_bytes, free - tail))
        return best - _RECORD.size - _ALIGN

    def publish(self, body: bytes, ends: Sequence[int]) -> bool:
        """Publish one record and, with it, everything written to the lanes.

        Args:
            body: from `encode_record`.
            ends: (end bytes, end number) of lane 0, lane 1, ... flat.

        Returns:
            False, with nothing published, if the log has no room until the coordinator has read on.
        """
        if len(body) > self.room():
            return False
        length = -(-(_RECORD.size + len(body)) // _ALIGN) * _ALIGN
        index = self.log_end % self.log_bytes
        if index + length > self.log_bytes:
            tail = self.log_bytes - index
            # SAFETY: sole writer of the log; nothing here counts before `dispatched` is stored.
            self._log[index : index + _RECORD.size] = _RECORD.pack(PAD_MAGIC, 0, tail)
            self.log_end += tail
            index = 0
        number = self.dispatched + 1
        # SAFETY: as above; the place was counted by the coordinator (`room`).
        self._log[index : index + _RECORD.size] = _RECORD.pack(RECORD_MAGIC, len(body), number)
        self._log[index + _RECORD.size : index + _RECORD.size + len(body)] = body
        self.log_end += length
        slot = w.SLOTS + (number & 1) * self._slot_words
        # SAFETY: sole writer. Readers of record number - 1 look at the other slot; those that began
        # with number - 2 see `dispatched` changed and read again.
        for offset, value in enumerate((self.log_end, *ends)):
            self.words[slot + offset] = value
        self.dispatched = number
        # SAFETY: sole writer. THE publishing store: frames, record and ends lie before it.
        self.words[w.DISPATCHED] = number
        self._ends_of_records.append((number, self.log_end))
        return True

    def close(self) -> None:
        """Unmap."""
        self._log.release()
        self._map.close()


class DispatchReader:
    """The coordinator's view: reads records in order, owns `counted`."""

    __slots__ = ("_lane_count", "_log", "_log_bytes", "_map", "_position", "_words", "counted")

    def __init__(self, fd: int) -> None:
        """Map the whole dispatch memory `fd`, fresh from `create`."""
        self._log_bytes, self._lane_count = w.read_header(fd, w.DISPATCH_MAGIC)
        start = w.log_start(self._lane_count)
        self._map = w.Mapping(fd, start + self._log_bytes)
        self._words = self._map.words
        self._log = self._map.bytes_[start:]
        self._position = 0
        self.counted = 0

    @property
    def words(self) -> memoryview:
        """The 64-bit words, for the fetcher's counters and heartbeat (read only, by custom)."""
        return self._words

    def end_numbers(self) -> list[int]:
        """Return the published end number of each lane."""
        return _stable_slot(self._words, self._lane_count, 1, 2 * self._lane_count)[1][1::2]

    def read(self) -> list[list[Touched]]:
        """Return all records published since the last call, oldest first, and count them.

        Raises:
            RingCorrupt: a record is damaged.
        """
        records = []
        while self.counted < self._words[w.DISPATCHED]:
            records.append(self._next())
            self.counted += 1
        if records:
            # SAFETY: sole writer; the records were copied out by the decoder.
            self._words[w.COUNTED] = self.counted
        return records

    def close(self) -> None:
        """Unmap."""
        self._log.release()
        self._map.close()

    def _next(self) -> list[Touched]:
        index = self._position % self._log_bytes
        magic, length, number = _RECORD.unpack_from(self._log, index)
        if magic == PAD_MAGIC and number == self._log_bytes - index:
            self._position += number
            index = 0
            magic, length, number = _RECORD.unpack_from(self._log, 0)
        start = index + _RECORD.size
        if magic != RECORD_MAGIC or number != self.counted + 1 or start + length > self._log_bytes:
            msg = f"log record {self.counted + 1} at {self._position} is damaged"
            raise RingCorrupt(msg)
        try:
            touched = _decode(self._log[start : start + length])
        except msgspec.DecodeError as error:
            msg = f"log record {number} is damaged: {error}"
            raise RingCorrupt(msg) from None
        self._position += -(-(_RECORD.size + length) // _ALIGN) * _ALIGN
        return touched


def encode_record(touched: list[Touched]) -> bytes:
    """Encode the body of a record. Fetcher only."""
    return _encode(touched)
