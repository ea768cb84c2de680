"""Read a topic without a group: for `kqmp tail`. Joins nothing, commits nothing.

Where reading begins is settled with the brokers before the first fetch, as offsets: what is
produced after `Reader` was made is read, also from the end.
"""

import itertools
import re
from collections.abc import Collection
from typing import Final, Literal, NamedTuple, cast

import confluent_kafka as ck

from kqmp.config import KqConf
from kqmp.errors import BrokerError, ConfigError
from kqmp.kafka import asking
from kqmp.kafka.asking import Cluster
from kqmp.kafka.client import FETCH_BACKOFF_MS
from kqmp.kafka.fields import ERROR, HEADERS, KEY, OFFSET, PARTITION, TIMESTAMP, VALUE
from kqmp.kafka.findings import ALL_DOWN, counted
from kqmp.kafka.member import REFUSALS, Bounds
from kqmp.kafka.payload import Headers

#: Most messages of one batch.
BATCH_MESSAGES: Final = 10_000
#: A broker with nothing new answers after so long, so that an empty end is noticed soon.
FETCH_WAIT_MS: Final = 100
#: `group.id` must be set, though nothing is ever asked of this group.
_GROUP: Final = "kqmp-tail"
_EOF: Final = ck.KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's own codes are named so

#: What makes two of librdkafka's texts about the same thing differ.
_MOMENT: Final = re.compile(r" \(after \d+ms in state .*\)$")
#: librdkafka looks for the coordinator of any `group.id`, which need not be allowed to us.
_OF_A_GROUP: Final = frozenset({ck.KafkaError.GROUP_AUTHORIZATION_FAILED})


class Start(NamedTuple):
    """Where in each partition reading begins.

    Attributes:
        kind: at the beginning or the end of the log; `number` messages before its end; at the
            first message at or after the time `number`, in ms since the epoch; at offset `number`.
        number: >= 0, for the kinds that have one.
    """

    kind: Literal["beginning", "end", "back", "time", "offset"]
    number: int = 0


class Batch(NamedTuple):
    """Messages as columns of one length, in the order in which they came.

    Columns that were not asked for are empty.

    `timestamps` are (type, ms since the epoch): type 0 means there is none, 1 that it is the
    producer's, 2 the broker's.
    """

    partitions: list[int]
    offsets: list[int]
    timestamps: list[tuple[int, int]]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]


def position(start: Start, bounds: Bounds) -> int:
    """Return where to begin in a partition; outside its log it is the nearer end.

    Args:
        start: of any kind but "time".
        bounds: the ends of the partition's log.
    """
    wanted = {
        "beginning": bounds.low,
        "end": bounds.high,
        "back": bounds.high - start.number,
        "offset": start.number,
    }[start.kind]
    return min(max(wanted, bounds.low), bounds.high)


class Reader:
    """Reads partitions of a topic from a start. A context manager; belongs to one thread."""

    def __init__(
        self,
        conf: KqConf,
        topic: str,
        start: Start,
        *,
        partitions: Collection[int] = (),
        columns: Collection[str] = Batch._fields,
        stop_at_end: bool = False,
    ) -> None:
        """Connect, find out where to begin, and begin.

        Args:
            conf: where the brokers are.
            topic: its name.
            start: where to begin.
            partitions: which ones; none means all.
            columns: names of those of a `Batch` that are wanted; partitions and offsets are
                always there.
            stop_at_end: give what is in the log by now, then nothing more.

        Raises:
            ConfigError: librdkafka refuses a property, or there is no such partition.
            BrokerError: no broker answers or they refuse us; the topic does not exist.
        """
        self.topic = topic
        self._is_bounded = stop_at_end
        self._wanted = frozenset(columns)
        self._cluster = Cluster(
            conf,
            _GROUP,
            auto_offset_reset="earliest",
            enable_partition_eof=stop_at_end,
            fetch_wait_max_ms=FETCH_WAIT_MS,
            fetch_queue_backoff_ms=FETCH_BACKOFF_MS,
        )
        self._consumer = self._cluster.consumer
        try:
            self.partitions = self._existing(partitions)
            self._begin(start)
        except BaseException:
            self._cluster.close()
            raise

    @property
    def is_finished(self) -> bool:
        """Whether all was read that was there at the start; never without `stop_at_end`."""
        return self._is_bounded and not self._unfinished

    def read(self, timeout_s: float, most: int = BATCH_MESSAGES) -> Batch | None:
        """Return what has come, at most `most` messages; wait for the first one.

        Args:
            timeout_s: how long to wait, >= 0; None is returned after it, and sometimes before.
            most: 1 to `BATCH_MESSAGES`.

        Raises:
            BrokerError: the topic was deleted, or the brokers refuse us.
        """
        messages = self._consumer.consume(most, 0)
        if not messages:
            first = self._consumer.poll(timeout_s)
            if first is None:
                return None
            messages = [first]
        if any(map(ERROR, messages)):
            for message in filter(_has_error, messages):
                self._take_event(message)
            messages = [message for message in messages if not _has_error(message)]
        if not messages:
            return None
        batch = self._batch(messages)
        return self._within_bounds(batch) if self._is_bounded else batch

    def trouble(self) -> list[str]:
        """Return what was said of the connections since the last call, repeats left out.

        Raises:
            BrokerError: the topic was deleted; librdkafka takes half a minute to believe it.
        """
        errors = list(self._cluster.errors)
        self._cluster.errors.clear()
        if any(error.code() in asking.UNKNOWN_TOPIC for error in errors):
            raise self._gone()
        texts = [_MOMENT.sub("", error.str()) for error in errors if error.code() != ALL_DOWN]
        return list(dict.fromkeys(texts))

    def close(self) -> None:
        """End the connections."""
        self._cluster.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _existing(self, wanted: Collection[int]) -> list[int]:
        known = sorted(asking.topic_of(self._cluster, self.topic).partitions)
        missing = sorted(set(wanted) - set(known))
        if missing:
            are = f"{counted(len(known), 'partition')}, numbered from 0"
            raise ConfigError(f"-p {missing[0]}: topic {self.topic} has {are}")
        return sorted(set(wanted)) or known

    def _begin(self, start: Start) -> None:
        parts = [(self.topic, number) for number in self.partitions]
        with asking.explained(f"topic {self.topic}: cannot find out where to begin"):
            bounds = asking.log_bounds(self._consumer, parts)
            times = (
                asking.offsets_at(self._consumer, parts, start.number)
                if start.kind == "time"
                else {}
            )
        positions: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        for part, ends in bounds.items():
            at = times.get(part, 0)
            if ends is None or at is None:
                text = f"topic {self.topic}: partition {part[1]} has no leader that answers"
                raise BrokerError(f"{text}; leave it out with -p, or start its brokers")
            one = Start("offset", at) if start.kind == "time" else start
            positions[part[1]] = position(one, ends)
            self._ends[part[1]] = ends.high
        self._unfinished = {number for number, at in positions.items() if at < self._ends[number]}
        if self.is_finished:
            return
        wanted = self._unfinished if self._is_bounded else positions
        self._consumer.assign(
            [ck.TopicPartition(self.topic, number, positions[number]) for number in wanted]
        )

    def _batch(self, messages: list[ck.Message]) -> Batch:
        wanted = self._wanted
        return Batch(
            partitions=list(map(PARTITION, messages)),
            offsets=list(map(OFFSET, messages)),
            timestamps=list(map(TIMESTAMP, messages)) if "timestamps" in wanted else [],
            keys=list(map(KEY, messages)) if "keys" in wanted else [],
            values=list(map(VALUE, messages)) if "values" in wanted else [],
            headers=list(map(HEADERS, messages)) if "headers" in wanted else [],
        )

    def _within_bounds(self, batch: Batch) -> Batch | None:
        """Leave out what was produced after the start, and see what is finished by now."""
        last = dict(zip(batch.partitions, batch.offsets, strict=True))
        done = {number for number, offset in last.items() if offset >= self._ends[number] - 1}
        if not done:
            return batch
        self._finish(done)
        inside = [
            offset < self._ends[number]
            for number, offset in zip(batch.partitions, batch.offsets, strict=True)
        ]
        if all(inside):
            return batch
        kept = Batch._make(list(itertools.compress(column, inside)) for column in batch)
        return kept if kept.offsets else None

    def _finish(self, numbers: Collection[int]) -> None:
        newly = self._unfinished & set(numbers)
        self._unfinished -= newly
        if newly:
            # A busy partition would go on to deliver what nobody wants.
            self._consumer.pause([ck.TopicPartition(self.topic, number) for number in newly])

    def _gone(self) -> BrokerError:
        return BrokerError(f"topic {self.topic} does not exist any more")

    def _take_event(self, event: ck.Message) -> None:
        """Look at what came instead of a message; librdkafka mends by itself what is let pass."""
        error = event.error()
        assert error is not None
        code = error.code()
        if code == _EOF:
            # Reached though the last offset was not seen: it was compacted away, or a marker.
            self._finish([cast("int", event.partition())])
        elif code in asking.UNKNOWN_TOPIC:
            raise self._gone()
        elif code in REFUSALS - _OF_A_GROUP:
            raise BrokerError(f"topic {self.topic}: the brokers refuse us: {error.str()}")


def _has_error(message: ck.Message) -> bool:
    return message.error() is not None
