"""The columns of a fetched batch, and how a batch is split over lanes at C speed.

Runs in the fetcher. A message is never an object here: a batch is a few lists of equal length, and
what happens to each message happens in `map`, `compress` and slices.
"""

from collections.abc import Iterator, Sequence
from itertools import compress
from operator import itemgetter
from typing import Final, NamedTuple

#: Most messages (offsets) between a partition's committed position and its fetched position: what
#: a dead engine repeats at most. Fetching of the partition pauses there; at half of it the
#: coordinator commits early.
SPAN_MAX: Final = 200_000


class Opening:
    """One opening of a partition by this fetcher: from `open` until it is revoked or lost.

    Attributes:
        epoch: engine-wide number of this opening.
        topic_id: 0 while an engine reads one topic.
        partition: partition number.
        fetched_position: one past the highest offset taken from librdkafka; never falls.
        committed_position: what the broker last confirmed; never falls.
    """

    __slots__ = ("committed_position", "epoch", "fetched_position", "partition", "topic_id")

    def __init__(self, epoch: int, partition: int, position: int, topic_id: int = 0) -> None:
        """Open `partition` at `position`."""
        self.epoch = epoch
        self.topic_id = topic_id
        self.partition = partition
        self.fetched_position = position
        self.committed_position = position


class Part(NamedTuple):
    """`count` adjacent messages of one opening inside a chunk."""

    opening: Opening
    count: int  # type: ignore[assignment] # hides tuple.count, which says nothing here


class Columns(NamedTuple):
    """Equally long columns of messages.

    Attributes:
        offsets: (n,) int64.
        keys: n keys.
        values: n values.
        timestamps: (n,) int64 ms, or None where no handler asks for them.
        timestamp_types: (n,) uint8, with `timestamps`.
        headers: n header lists (None = the message has none), or None.
    """

    offsets: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps: list[int] | None = None
    timestamp_types: "bytes | None" = None
    headers: list[list[tuple[str, bytes | None]] | None] | None = None

    def cut(self, start: int, stop: int) -> "Columns":
        """Return messages `start` to `stop` (exclusive)."""
        return Columns(
            self.offsets[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            None if self.timestamps is None else self.timestamps[start:stop],
            None if self.timestamp_types is None else self.timestamp_types[start:stop],
            None if self.headers is None else self.headers[start:stop],
        )

    def select(self, mask: bytes) -> "Columns":
        """Return the messages whose byte in `mask` (n bytes) is not 0."""
        count = len(mask)
        indexes = _INDEXES if count <= len(_INDEXES) else range(count)
        return self.pick(list(compress(indexes, mask)))

    def pick(self, indexes: list[int]) -> "Columns":
        """Return the messages at `indexes`, in that order.

        One `itemgetter` for all columns: 6 ns a message and column, whatever the number of lanes,
        where a `compress` of each column costs 4 ns for every message that is *not* taken as well.
        """
        if len(indexes) < 2:
            return self.cut(indexes[0], indexes[0] + 1) if indexes else self.cut(0, 0)
        get = itemgetter(*indexes)
        return Columns(
            list(get(self.offsets)),
            list(get(self.keys)),
            list(get(self.values)),
            None if self.timestamps is None else list(get(self.timestamps)),
            None if self.timestamp_types is None else bytes(get(self.timestamp_types)),
            None if self.headers is None else list(get(self.headers)),
        )


class Chunk(NamedTuple):
    """Messages bound for one lane: columns, their parts in order, and a size estimate."""

    columns: Columns
    parts: list[Part]
    #: Estimated bytes of keys and values of one message, at least 1.
    bytes_each: int

    @property
    def count(self) -> int:  # type: ignore[override] # hides tuple.count, which says nothing here
        """Messages."""
        return len(self.columns.keys)

    def split(self, count: int) -> tuple["Chunk", "Chunk"]:
        """Return the first `count` messages and the rest, 0 < count < self.count."""
        head: list[Part] = []
        rest: list[Part] = []
        left = count
        for opening, size in self.parts:
            taken = min(left, size)
            left -= taken
            if taken:
                head.append(Part(opening, taken))
            if taken < size:
                rest.append(Part(opening, size - taken))
        total = self.count
        return (
            Chunk(self.columns.cut(0, count), head, self.bytes_each),
            Chunk(self.columns.cut(count, total), rest, self.bytes_each),
        )

    def without(self, openings: frozenset[Opening] | set[Opening]) -> "Chunk":
        """Return the chunk less all messages of `openings`."""
        mask = bytearray()
        for opening, count in self.parts:
            mask += (b"\0" if opening in openings else b"\1") * count
        kept = [part for part in self.parts if part.opening not in openings]
        return Chunk(self.columns.select(bytes(mask)), kept, self.bytes_each)


#: 0, 1, 2, ... ready made, as `range` would make each number anew.
_INDEXES: Final = list(range(4096))
#: translate tables: lane number -> 1, all others -> 0.
_MASKS = [bytes(lane) + b"\1" + bytes(255 - lane) for lane in range(256)]


def split_by_lane(
    columns: Columns, parts: Sequence[Part], lanes: bytes, bytes_each: int
) -> Iterator[tuple[int, Chunk]]:
    """Yield (lane, chunk) for each lane that gets messages, order kept within a lane.

    Args:
        columns: n messages; where all go to one lane, its chunk shares them.
        parts: their partitions, in order.
        lanes: n lane numbers.
        bytes_each: size estimate of a message.
    """
    left = len(lanes)
    if left and lanes.count(lanes[0]) == left:
        yield lanes[0], Chunk(columns, list(parts), bytes_each)
        return
    lane = -1
    while left:
        lane += 1
        here = lanes.count(lane)
        if not here:
            continue
        left -= here
        mask = lanes.translate(_MASKS[lane])
        kept: list[Part] = []
        start = 0
        for opening, count in parts:
            inside = mask.count(1, start, start + count)
            start += count
            if inside:
                kept.append(Part(opening, inside))
        yield lane, Chunk(columns.select(mask), kept, bytes_each)
