"""One consumer-group member on librdkafka: fetched columns out, positions to commit in.

Runs in a fetcher. `fetch` hands on columns, no `Message` objects: they come from a `Source`, the
compiled one where it is there. The rebalance callbacks run inside `fetch`, on the same thread, and
call a `Listener`; `poll` must not be called from there. Facts of librdkafka that this relies on
(assign nothing in the callback, assign with positions later from the loop; commits and look-ups on
the callback's thread take milliseconds) stand in ARCHITECTURE.md, "What librdkafka really does".
"""

import logging
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException

from kqmp.kafka import compiled
from kqmp.kafka.columns import Fetched, PlainSource, Source

__all__ = ["REFUSALS", "Bounds", "Fetched", "KafkaError", "KafkaException", "Listener", "Member"]

log = logging.getLogger("kqmp.kafka")

_BEGINNING: Final = -2
_END: Final = -1
#: Bound of a synchronous request to the brokers.
REQUEST_S: Final = 5.0

#: Errors that tell the user to mend something; before the first assignment they end the engine.
REFUSALS: Final = frozenset(
    {
        ck.KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's own codes are named so
        ck.KafkaError._SSL,  # noqa: SLF001 - librdkafka's own codes are named so
        ck.KafkaError.SASL_AUTHENTICATION_FAILED,
        ck.KafkaError.GROUP_AUTHORIZATION_FAILED,
        ck.KafkaError.TOPIC_AUTHORIZATION_FAILED,
        ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        ck.KafkaError.UNSUPPORTED_SASL_MECHANISM,
        ck.KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    }
)


class Bounds(NamedTuple):
    """Ends of a partition's log."""

    low: int
    high: int


class Listener(Protocol):
    """Who decides in a rebalance; called inside `fetch` (or `close`), on its thread."""

    def assigned(self, partitions: list[int]) -> None:
        """Newly assigned; nothing is fetched until `Member.read_from`."""

    def revoked(self, partitions: list[int]) -> None:
        """About to be given up: commit now, the member still owns them."""

    def lost(self, partitions: list[int]) -> None:
        """Gone: another member may have them, no commit is allowed."""


def _nobody(_error: ck.KafkaError | None, _taken: list[tuple[int, int]]) -> None:
    """Hear no answer."""


class Member:
    """A group member of one topic."""

    def __init__(
        self, properties: dict[str, object], topic: str, listener: Listener, wanted: Iterable[str]
    ) -> None:
        """Create the client; `subscribe` joins the group.

        Args:
            properties: from `client.consumer_properties`.
            topic: its one topic.
            listener: told of rebalances.
            wanted: optional columns: "timestamp", "headers".

        Raises:
            ck.KafkaException: a property is unknown or illegal.
        """
        self.topic = topic
        self._listener = listener
        self._reading: set[int] = set()
        #: What librdkafka holds paused: it keeps that over unassign and assign.
        self._paused: set[int] = set()
        #: (partition, offset) pairs at which the log no longer is (or is not yet).
        self.out_of_range: list[tuple[int, int]] = []
        #: The last error that was worth telling, for start-up and logs.
        self.last_error: ck.KafkaError | None = None
        self.refused: ck.KafkaError | None = None
        #: The client is of no use any more and says nothing else; only its death ends this.
        self.fatal: ck.KafkaError | None = None
        #: Told of the answer to `commit_later`: (error, [(partition, position)] taken).
        self.on_committed: Callable[[ck.KafkaError | None, list[tuple[int, int]]], None] = _nobody
        settings = {**properties, "error_cb": self._error, "on_commit": self._committed}
        #: Why messages come as `Message` objects; "" where they come by the fast path.
        self.slow_because = compiled.why_not()
        if not self.slow_because:
            settings = compiled.with_plugin(settings)
        self._consumer = ck.Consumer(settings, logger=log)
        take = PlainSource if self.slow_because else compiled.CompiledSource
        self._source: Source = take(self._consumer, frozenset(wanted), self._partition_error)

    def subscribe(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            [self.topic],
            on_assign=lambda _, parts: self._assigned(parts),
            on_revoke=lambda _, parts: self._gone(parts, self._listener.revoked),
            on_lost=lambda _, parts: self._gone(parts, self._listener.lost),
        )

    def fetch(self, count: int, timeout_s: float) -> Fetched | None:
        """Return up to `count` messages, waiting up to `timeout_s` for the first.

        Serves callbacks whether or not there are messages. What is prefetched comes in one large
        batch; on a quiet topic the first message comes at once.
        """
        return self._source.fetch(count, timeout_s)

    def serve(self) -> Fetched | None:
        """Serve callbacks and show librdkafka that we live; a message that comes of it is returned.

        For times when no messages are wanted. On the fast path none come.
        """
        return self._source.serve()

    def _partition_error(self, partition: int, offset: int, error: ck.KafkaError) -> None:
        """Take an error that came in the place of a message."""
        if error.code() in (
            ck.KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001 - librdkafka's own codes are named so
            ck.KafkaError.OFFSET_OUT_OF_RANGE,
        ):
            self.out_of_range.append((partition, offset))
        else:
            self._error(error)

    def _error(self, error: ck.KafkaError) -> None:
        """Take an error of the client; librdkafka goes on by itself, unless it is fatal."""
        self.last_error = error
        if error.code() in REFUSALS:
            self.refused = error
        if error.code() == ck.KafkaError._FATAL:  # noqa: SLF001 - librdkafka's own codes are named so
            self.fatal = error
        log.warning("%s", error.str())

    def _assigned(self, parts: list[ck.TopicPartition]) -> None:
        # Assign nothing now: partitions are read from a position that the coordinator gives.
        self._consumer.incremental_assign([])
        self._listener.assigned([part.partition for part in parts])

    def _gone(self, parts: list[ck.TopicPartition], tell: Callable[[list[int]], None]) -> None:
        partitions = [part.partition for part in parts]
        tell(partitions)
        self.stop_reading(partitions)

    def read_from(self, positions: dict[int, int]) -> None:
        """Fetch these partitions from these positions; from the loop only, never in a callback."""
        self._source.expect(self.topic, positions)
        self._consumer.incremental_assign(self._positions(positions))
        self._source.expect(self.topic, positions)
        self._reading.update(positions)
        # Else a partition given up while it was paused would never be read again.
        self.resume(self._paused.intersection(positions))

    def stop_reading(self, partitions: Iterable[int]) -> None:
        """Fetch these partitions no more. In a revoke callback this ends the rebalance."""
        reading = self._reading.intersection(partitions)
        self._reading -= reading
        self._consumer.incremental_unassign([ck.TopicPartition(self.topic, p) for p in reading])

    def pause(self, partitions: Iterable[int]) -> None:
        """Stop fetching for a while; what was prefetched is dropped and fetched again."""
        reading = self._reading.intersection(partitions)
        self._consumer.pause(self._parts(reading))
        self._paused |= reading

    def resume(self, partitions: Iterable[int]) -> None:
        """Go on after `pause`."""
        reading = self._reading.intersection(partitions)
        self._consumer.resume(self._parts(reading))
        self._paused -= reading

    def committed(self, partitions: Iterable[int]) -> dict[int, int | None]:
        """Return the group's committed positions, None where there is none. Blocking, 1-6 ms.

        Raises:
            ck.KafkaException: the brokers did not answer within `REQUEST_S`.
        """
        answer = self._consumer.committed(self._parts(partitions), timeout=REQUEST_S)
        for part in answer:
            if part.error is not None:
                raise ck.KafkaException(part.error)
        return {part.partition: part.offset if part.offset >= 0 else None for part in answer}

    def bounds(self, partitions: Iterable[int]) -> dict[int, Bounds]:
        """Return the ends of the partitions' logs. Blocking, a few ms.

        Raises:
            ck.KafkaException: as `committed`.
        """
        listed = list(partitions)
        ends: list[dict[int, int]] = []
        # ListOffsets takes -2 and -1 as timestamps: one request a broker for all partitions.
        for which in (_BEGINNING, _END):
            asked = [ck.TopicPartition(self.topic, p, which) for p in listed]
            answer = self._consumer.offsets_for_times(asked, timeout=REQUEST_S)
            for part in answer:
                if part.error is not None:
                    raise ck.KafkaException(part.error)
            ends.append({part.partition: part.offset for part in answer})
        return {p: Bounds(ends[0][p], ends[1][p]) for p in listed}

    def commit_later(self, positions: dict[int, int]) -> None:
        """Send a commit; its answer comes to `on_committed` from a later `fetch`."""
        self._consumer.commit(offsets=self._positions(positions), asynchronous=True)

    def commit_now(self, positions: dict[int, int]) -> dict[int, int]:
        """Commit and wait for the answer; return what the broker took. 1-6 ms in a callback.

        Raises:
            ck.KafkaException: the whole commit was refused or not answered.
        """
        answer = self._consumer.commit(offsets=self._positions(positions), asynchronous=False)
        return {p.partition: p.offset for p in answer or [] if p.error is None}

    def commit_start(self, positions: dict[int, int]) -> None:
        """Commit chosen start positions, all or none counting.

        Raises:
            KafkaException: not all of them were taken.
        """
        if len(self.commit_now(positions)) < len(positions):
            raise KafkaException(KafkaError(KafkaError._PARTIAL))  # noqa: SLF001 - its own code

    def _committed(self, error: ck.KafkaError | None, parts: list[ck.TopicPartition]) -> None:
        taken = [(p.partition, p.offset) for p in parts if p.error is None]
        failed = error or next((p.error for p in parts if p.error is not None), None)
        self.on_committed(failed, [] if error else taken)

    def high_watermark(self, partition: int) -> int:
        """Return the end of the log as of the last fetch, or -1 if nothing was fetched yet."""
        part = ck.TopicPartition(self.topic, partition)
        _, high = self._consumer.get_watermark_offsets(part, cached=True)
        return high

    def topic_partitions(self, timeout_s: float) -> int:
        """Return how many partitions the topic has; 0 if it does not exist.

        Raises:
            ck.KafkaException: no broker answered within `timeout_s`.
        """
        metadata = self._consumer.list_topics(self.topic, timeout=timeout_s).topics[self.topic]
        if metadata.error is not None and metadata.error.code() in (
            ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
            ck.KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own codes are named so
        ):
            return 0
        if metadata.error is not None:
            raise ck.KafkaException(metadata.error)
        return len(metadata.partitions)

    def close(self) -> None:
        """Leave the group (unless it is a static member) and free the client."""
        self._source.close()
        self._consumer.close()

    def _parts(self, partitions: Iterable[int]) -> list[ck.TopicPartition]:
        return [ck.TopicPartition(self.topic, p) for p in partitions]

    def _positions(self, positions: dict[int, int]) -> list[ck.TopicPartition]:
        return [ck.TopicPartition(self.topic, p, offset) for p, offset in positions.items()]
