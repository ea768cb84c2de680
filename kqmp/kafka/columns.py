"""What a fetch brings: the columns of a batch, and how they are made of `Message` objects.

`PlainSource` needs nothing but confluent_kafka. No `Message` leaves this module: columns are built
by C calls mapped over the batch. `kqmp.kafka.compiled` does the same without these objects.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Final, NamedTuple, Protocol, TypeAlias

import confluent_kafka as ck

from kqmp.core.batch import Columns
from kqmp.kafka.fields import ERROR, HEADERS, KEY, OFFSET, PARTITION, TIMESTAMP, VALUE

#: The size of a batch is worked out from every so many-th message, if it has at least
#: `EXACT_BELOW` and these are below `LARGE_VALUE` bytes on average.
SAMPLE_STEP: Final = 8
EXACT_BELOW: Final = 256
LARGE_VALUE: Final = 1024
#: Told of an error that came in the place of a message: partition, offset, error.
OnError: TypeAlias = Callable[[int, int, ck.KafkaError], None]


class Fetched(NamedTuple):
    """A fetched batch: its columns and (partition, count) of adjacent messages, in order."""

    columns: Columns
    runs: list[tuple[int, int]]
    #: Sum of the value bytes, or an estimate of it where values are small.
    value_bytes: int


class Source(Protocol):
    """Where a member's messages come from. Belongs to the member's thread."""

    def expect(self, topic: str, partitions: Iterable[int]) -> None:
        """Hear of partitions that are being assigned; called before and after each assignment."""

    def fetch(self, count: int, timeout_s: float) -> Fetched | None:
        """Do what `Member.fetch` promises."""

    def serve(self) -> Fetched | None:
        """Do what `Member.serve` promises."""

    def close(self) -> None:
        """Take no more; called before the client is closed. Idempotent."""


def _runs(partitions: list[int]) -> list[tuple[int, int]]:
    """Return (partition, count) of adjacent equal entries."""
    if partitions.count(partitions[0]) == len(partitions):
        return [(partitions[0], len(partitions))]
    return [(partition, len(list(group))) for partition, group in groupby(partitions)]


def _offsets(messages: list[ck.Message], runs: list[tuple[int, int]]) -> list[int]:
    """Return the offsets of a batch; only those of run ends are read where there are no gaps.

    Offsets ascend in a run: all its messages come from one `consume` and so from one assignment,
    since partitions are (re)assigned between two calls only. If the last is as far from the first
    as there are messages, nothing is left out, and 35 ns a message are saved.
    """
    offsets: list[int] = []
    start = 0
    for _, count in runs:
        stop = start + count
        first, last = OFFSET(messages[start]), OFFSET(messages[stop - 1])
        if last - first == count - 1:
            offsets += range(first, last + 1)
        else:
            offsets += map(OFFSET, messages[start:stop])
        start = stop
    return offsets


def _value_bytes(messages: list[ck.Message]) -> int:
    """Return about how many value bytes a batch has: exact if it is small or its values large."""
    if len(messages) < EXACT_BELOW:
        return sum(map(len, messages))
    size = sum(map(len, messages[::SAMPLE_STEP])) * SAMPLE_STEP
    return size if size < LARGE_VALUE * len(messages) else sum(map(len, messages))


def in_few_runs(fetched: Fetched) -> Fetched:
    """Return the batch, sorted by partition if its runs are many and short: stable, so in order."""
    runs = fetched.runs
    if len(runs) <= 8 or len(runs) <= 4 * len({partition for partition, _ in runs}) + 4:
        return fetched
    partitions = [partition for partition, count in runs for _ in range(count)]
    order = sorted(range(len(partitions)), key=partitions.__getitem__)
    columns = fetched.columns.pick(order)
    return Fetched(columns, _runs(sorted(partitions)), fetched.value_bytes)


class PlainSource:
    """Takes messages as confluent_kafka gives them."""

    def __init__(self, consumer: ck.Consumer, wanted: frozenset[str], on_error: OnError) -> None:
        """Take from `consumer`.

        Args:
            consumer: the member's client.
            wanted: optional columns: "timestamp", "headers".
            on_error: told of what is no message, inside `fetch`.
        """
        self._consumer = consumer
        self._wanted = wanted
        self._on_error = on_error

    def expect(self, topic: str, partitions: Iterable[int]) -> None:
        """Nothing is to be prepared."""

    def close(self) -> None:
        """Nothing is held."""

    def fetch(self, count: int, timeout_s: float) -> Fetched | None:
        """Return messages, as `Source` has it; callbacks run inside `consume` and `poll`."""
        messages = self._consumer.consume(count, 0)
        if not messages:
            first = self._consumer.poll(timeout_s)
            if first is None:
                return None
            messages = [first]
            if count > 1:
                messages += self._consumer.consume(count - 1, 0)
        return self.columns_of(messages)

    def serve(self) -> Fetched | None:
        """Call callbacks, as `Source` has it; they run inside `poll`."""
        other = self._consumer.poll(0)
        return None if other is None else self.columns_of([other])

    def columns_of(self, messages: list[ck.Message]) -> Fetched | None:
        """Return the columns of a batch of at least one; None if there are only errors."""
        keys = list(map(KEY, messages))
        # An error has no key: where every message has one, 25 ns a message are saved.
        if None in keys and any(map(ERROR, messages)):
            messages = self._without_errors(messages)
            if not messages:
                return None
            keys = list(map(KEY, messages))
        partitions = list(map(PARTITION, messages))
        stamps = types = headers = None
        if "timestamp" in self._wanted:
            pairs = list(map(TIMESTAMP, messages))
            types = bytes(kind for kind, _ in pairs)
            stamps = [ms for _, ms in pairs]
        if "headers" in self._wanted:
            headers = list(map(HEADERS, messages))
        runs = _runs(partitions)
        columns = Columns(
            _offsets(messages, runs), keys, list(map(VALUE, messages)), stamps, types, headers
        )
        return in_few_runs(Fetched(columns, runs, _value_bytes(messages)))

    def _without_errors(self, messages: list[ck.Message]) -> list[ck.Message]:
        good = []
        for message in messages:
            error = message.error()
            if error is None:
                good.append(message)
            else:
                self._on_error(PARTITION(message), OFFSET(message), error)
        return good
