"""What a `(message)` handler sees: a view of one Kafka record, worked out only when asked for.

Runs in the processor. A frame is decoded into `Columns`, one list a field; a `Message` is a
reference to them and an index, so that a handler pays for the fields it reads and for no other.
The columns hold copies, never shared memory: a message stays valid after its frame is released
and after its partition went elsewhere. Nothing here does I/O or changes a record.
"""

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate
from typing import Any, Self, final

import msgspec


class TimestampType(IntEnum):
    """Where a record's timestamp comes from; the numbers are librdkafka's."""

    NOT_AVAILABLE = 0
    CREATE_TIME = 1
    LOG_APPEND_TIME = 2


@dataclass(slots=True, repr=False, eq=False)
class Columns:
    """The records of one decoded frame, one sequence a field, all of the same length n.

    The processor fills it from a frame and shares it between that frame's messages, which keep
    it alive. Lengths are the frame codec's duty (it refuses a frame whose columns differ); they
    are not checked again here. Never changed after it was made.
    """

    #: All records of a frame are of one topic.
    topic: str
    #: (partition, count) in the order of the records; the counts add up to n.
    sections: Sequence[tuple[int, int]]
    #: (n,) None for a record without a key, which is not the same as an empty one.
    keys: Sequence[bytes | None]
    #: (n,) None for a tombstone.
    values: Sequence[bytes | None]
    #: (n,) int64, ascending within a section.
    offsets: Sequence[int]
    #: (n,) int64, milliseconds since 1970; void where the type is NOT_AVAILABLE.
    #: None: no handler asked for the column.
    timestamps_ms: Sequence[int] | None = None
    #: (n,) int64, `TimestampType`; None together with `timestamps_ms`.
    timestamp_types: Sequence[int] | None = None
    #: (n,) of (name, value) pairs in the record's order, or None for a record without headers.
    #: None: no handler asked for the column.
    headers: Sequence[Sequence[tuple[str, bytes | None]] | None] | None = None
    _ends: list[int] | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.offsets)

    def partition_of(self, index: int) -> int:
        """Return the partition of the record at `index`.

        Args:
            index: 0 <= index < n.

        Raises:
            IndexError: There is no such record.
        """
        ends = self._ends
        if ends is None:
            ends = self._ends = list(accumulate(count for _, count in self.sections))
        if not 0 <= index < (ends[-1] if ends else 0):
            raise IndexError(f"record {index} of a frame of {ends[-1] if ends else 0}")
        return self.sections[bisect_right(ends, index)][0]


@final
class Message:
    """One Kafka record, read-only.

    Null and empty stay distinct everywhere: a key, a value or a header's value is None when the
    record has none and `b""` when it is empty.

    A message that a handler keeps holds its whole frame in memory (up to some megabytes); one
    that went through `pickle`, `copy` or `detached()` holds only itself. It pickles, so that it
    can be passed to a pool of processes.
    """

    __slots__ = ("_columns", "_index")

    def __init__(self, columns: Columns, index: int) -> None:
        self._columns = columns
        self._index = index

    @classmethod
    def of(  # noqa: PLR0913 - the fields of a record, by name only
        cls,
        *,
        topic: str = "",
        partition: int = 0,
        offset: int = 0,
        key: bytes | None = None,
        value: bytes | None = None,
        timestamp_ms: int | None = None,
        timestamp_type: int = TimestampType.CREATE_TIME,
        headers: Iterable[tuple[str, bytes | None]] | None = None,
    ) -> Self:
        """Make a message from its fields, without a frame: for tests of a handler.

        Args:
            topic: Name of the topic.
            partition: >= 0.
            offset: The record's own, >= 0.
            key: None for no key.
            value: None for a tombstone.
            timestamp_ms: Milliseconds since 1970; None for a record without a timestamp.
            timestamp_type: A `TimestampType`; counts only with `timestamp_ms`.
            headers: (name, value) pairs; None for no headers.
        """
        known = timestamp_ms is not None
        return cls(
            Columns(
                topic=topic,
                sections=[(partition, 1)],
                keys=[key],
                values=[value],
                offsets=[offset],
                timestamps_ms=[timestamp_ms if timestamp_ms is not None else 0],
                timestamp_types=[timestamp_type if known else TimestampType.NOT_AVAILABLE],
                headers=[None if headers is None else list(headers)],
            ),
            0,
        )

    @property
    def topic(self) -> str:
        """Name of the topic."""
        return self._columns.topic

    @property
    def partition(self) -> int:
        """Number of the partition, from 0."""
        return self._columns.partition_of(self._index)

    @property
    def offset(self) -> int:
        """The record's own offset in its partition."""
        return self._columns.offsets[self._index]

    @property
    def key(self) -> bytes | None:
        """The key; None for a record without one."""
        return self._columns.keys[self._index]

    @property
    def value(self) -> bytes | None:
        """The value; None for a tombstone."""
        return self._columns.values[self._index]

    @property
    def timestamp_ms(self) -> int | None:
        """Milliseconds since 1970.

        None when the record has no timestamp, and when the handler's `columns` leaves it out.
        """
        times = self._columns.timestamps_ms
        if times is None or self.timestamp_type is TimestampType.NOT_AVAILABLE:
            return None
        return times[self._index]

    @property
    def timestamp_type(self) -> TimestampType:
        """Who set the timestamp: the producer (`CREATE_TIME`) or the broker."""
        types = self._columns.timestamp_types
        if types is None:
            return TimestampType.NOT_AVAILABLE
        return TimestampType(types[self._index])

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...] | None:
        """(name, value) pairs in the record's order; a name may stand there more than once.

        None when the record carries no headers, and when the handler's `columns` leaves them
        out; `()` when it carries an empty list of them. A header's value is None when it is null.
        """
        column = self._columns.headers
        pairs = None if column is None else column[self._index]
        return None if pairs is None else tuple(pairs)

    def text(self) -> str | None:
        """Return the value as text; None for a tombstone.

        Raises:
            UnicodeDecodeError: The value is not UTF-8. As any exception that leaves a handler,
                this is a failure of that one message.
        """
        value = self.value
        return None if value is None else value.decode()

    def json(self) -> Any:
        """Return the value parsed as JSON, with orjson where it is installed, else msgspec.

        A tombstone gives None, as a JSON `null` does: where the two differ, look at `value`.

        Raises:
            ValueError: The value is not JSON.
        """
        value = self.value
        return None if value is None else _json_loads()(value)

    def detached(self) -> "Message":
        """Return a message with the same fields that does not keep this one's frame in memory."""
        return _rebuild(self._fields())

    def _fields(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "key": self.key,
            "value": self.value,
            "timestamp_ms": self.timestamp_ms,
            "timestamp_type": int(self.timestamp_type),
            "headers": self.headers,
        }

    def __reduce__(
        self,
    ) -> tuple[Callable[[dict[str, Any]], "Message"], tuple[dict[str, Any]]]:
        return _rebuild, (self._fields(),)

    def __repr__(self) -> str:
        size = "null" if self.value is None else f"{len(self.value)} bytes"
        return f"<Message {self.topic}[{self.partition}]@{self.offset} value {size}>"


def _rebuild(fields: dict[str, Any]) -> Message:
    return Message.of(**fields)


@functools.cache
def _json_loads() -> Callable[[bytes], Any]:
    """Choose the parser at the first use: a handler that never asks does not load it."""
    try:
        import orjson
    except ImportError:
        return _msgspec_loads
    return orjson.loads


def _msgspec_loads(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        # orjson's error is a ValueError: what a handler catches must not hang on what is installed.
        raise ValueError(str(error)) from error
