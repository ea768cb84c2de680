"""Questions to the brokers that need no group membership, each bounded, and errors users can read.

Used by `kqmp check` and the commands that look at topics and groups. Nothing here joins a group,
commits or creates anything.
"""

import contextlib
import difflib
import logging
import time
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Iterator,
    Mapping,
    MutableSequence,
    Sequence,
)
from typing import Final, TypeVar, cast

import confluent_kafka as ck
from confluent_kafka.admin import (
    AdminClient,
    ClusterMetadata,
    ConsumerGroupDescription,
    TopicMetadata,
)

from kqmp.errors import BrokerError, ConfigError
from kqmp.kafka import client, findings
from kqmp.kafka.member import REFUSALS, Bounds

#: How long the brokers get for their first answer; `kqmp run` waits longer, for ones that start.
CONNECT_S: Final = 10.0
#: Every broker of the list refused the connection: after so long there is no use in waiting.
REFUSED_S: Final = 3.0
#: Bound of each request after that.
REQUEST_S: Final = 10.0
#: How long a partition may be between two leaders.
LEADERS_S: Final = 10.0
#: So many errors of the connections are kept where nobody asks for them, as `kqmp lag --watch`.
ERRORS_MAX: Final = 1000

BEGINNING: Final = -2
END: Final = -1
UNKNOWN_TOPIC: Final = frozenset(
    {
        ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
        ck.KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own codes are named so
        ck.KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - librdkafka's own codes are named so
    }
)
_LATE: Final = frozenset(
    {
        ck.KafkaError._TIMED_OUT,  # noqa: SLF001 - librdkafka's own codes are named so
        ck.KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001 - librdkafka's own codes are named so
    }
)
_NOT_READABLE: Final = UNKNOWN_TOPIC | {ck.KafkaError.TOPIC_AUTHORIZATION_FAILED}
_LEADER_CHANGES: Final = frozenset(
    {
        ck.KafkaError.NOT_LEADER_FOR_PARTITION,
        ck.KafkaError.LEADER_NOT_AVAILABLE,
        ck.KafkaError.FENCED_LEADER_EPOCH,
        ck.KafkaError.UNKNOWN_LEADER_EPOCH,
        # The leader of a new topic may be told of it after those who ask for metadata.
        ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_COORDINATOR_STARTS: Final = frozenset(
    {
        ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        ck.KafkaError.COORDINATOR_NOT_AVAILABLE,
        ck.KafkaError.NOT_COORDINATOR,
    }
)

_Answer = TypeVar("_Answer")

#: A topic and a number of one of its partitions.
Part = tuple[str, int]

#: librdkafka's own lines would stand between ours; what matters in them comes as errors too.
silent = logging.getLogger("kqmp.kafka.asking")
silent.propagate = False
silent.addHandler(logging.NullHandler())


class Cluster:
    """A connection to the brokers of a configuration. A context manager; belongs to one thread.

    Attributes:
        conf: the configuration it was made of.
        consumer: the client; it never subscribes, so it joins no group, whatever its `group.id`.
        metadata: brokers and topics as they were when it connected.
        errors: what librdkafka reports of the connections, oldest first; grows while the consumer
            is polled, up to the newest `ERRORS_MAX`.
    """

    def __init__(self, conf: client.Access, group: str, **properties: object) -> None:
        """Create the client and wait for the first answer of a broker.

        Args:
            conf: brokers, credentials and librdkafka properties; the rest is not looked at.
            group: its `group.id`, which librdkafka asks for: whose committed positions are read.
            properties: more of librdkafka's, with underscores for dots.

        Raises:
            ConfigError: librdkafka refuses a property.
            BrokerError: no broker answers within `CONNECT_S`, or they refuse us.
        """
        self.conf = conf
        self.errors: deque[ck.KafkaError] = deque(maxlen=ERRORS_MAX)
        own = {name.replace("_", "."): value for name, value in properties.items()}
        settings: dict[str, object] = {
            **client.client_properties(conf),
            **own,
            **conf.kafka,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "error_cb": self.errors.append,
        }
        try:
            self.consumer = ck.Consumer(settings, logger=silent)
        except ck.KafkaException as error:
            raise ConfigError(findings.property_finding(conf, error.args[0]).text) from error
        metadata = connect(self.consumer, self.errors)
        if metadata is None:
            self.consumer.close()
            raise BrokerError(findings.connection_finding(conf, self.errors).text)
        self.metadata = metadata

    def close(self) -> None:
        """End the connections."""
        self.consumer.close()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def admin(properties: Mapping[str, object]) -> AdminClient:
    """Return a client for administration; call it after a `Cluster` found the brokers."""
    return AdminClient(cast("dict[str, str | int | float]", dict(properties)), logger=silent)


def describe_group(asker: AdminClient, group: str) -> ConsumerGroupDescription | None:
    """Return what the group's coordinator tells of it; None if there is no such group.

    Asks again while the coordinator starts, as in a fresh cluster.

    Raises:
        ck.KafkaException: it does not answer within `REQUEST_S`, or refuses us.
    """
    deadline_s = time.monotonic() + REQUEST_S
    while True:
        answer = asker.describe_consumer_groups([group], request_timeout=REQUEST_S)
        try:
            told: ConsumerGroupDescription = answer[group].result()
        except ck.KafkaException as error:
            code = error.args[0].code()
            # Since Kafka 4.0 a group that does not exist may be an error, before it was a dead one.
            if code == ck.KafkaError.GROUP_ID_NOT_FOUND:
                return None
            if code not in _COORDINATOR_STARTS or time.monotonic() > deadline_s:
                raise
        else:
            return None if told.state == ck.ConsumerGroupState.DEAD else told
        time.sleep(0.2)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what librdkafka raises in this block into a `BrokerError` that begins with `what`."""
    try:
        yield
    except ck.KafkaException as error:
        reason = error.args[0]
        is_late = reason.code() in _LATE
        text = "the brokers did not answer in time" if is_late else reason.str()
        raise BrokerError(f"{what}: {text}") from error


def connect(
    consumer: ck.Consumer, errors: MutableSequence[ck.KafkaError]
) -> ClusterMetadata | None:
    """Return the cluster's metadata; None if no broker answers, with the reasons in `errors`."""
    began_s = time.monotonic()
    while True:
        try:
            metadata: ClusterMetadata = consumer.list_topics(timeout=2.0)
            return metadata
        except ck.KafkaException as error:
            last = error.args[0]
        consumer.poll(0.1)  # serves the callback of errors
        passed_s = time.monotonic() - began_s
        codes = {error.code() for error in errors}
        is_down = passed_s >= REFUSED_S and codes & {findings.ALL_DOWN, findings.RESOLVE}
        if codes & REFUSALS or is_down or passed_s >= CONNECT_S:
            errors.append(last)
            return None


def ask_topic(consumer: ck.Consumer, name: str) -> TopicMetadata | ck.KafkaError:
    """Return what the brokers know of a topic, or why they do not tell."""
    try:
        topic: TopicMetadata = consumer.list_topics(name, timeout=REQUEST_S).topics[name]
    except ck.KafkaException as error:
        reason = error.args[0]
        assert isinstance(reason, ck.KafkaError)
        return reason
    return topic if topic.error is None else topic.error


def topic_of(cluster: Cluster, name: str) -> TopicMetadata:
    """Return what the brokers know of a topic.

    Raises:
        BrokerError: it does not exist, or this user may not see it.
    """
    topic = ask_topic(cluster.consumer, name)
    if isinstance(topic, TopicMetadata):
        return topic
    if topic.code() not in UNKNOWN_TOPIC:
        raise BrokerError(f"topic {name}: {topic.str()}")
    raise missing_topic(cluster, name)


def missing_topic(cluster: Cluster, name: str) -> BrokerError:
    """Return the error for a topic that does not exist, with a guess what was meant."""
    guess = did_you_mean(name, cluster.metadata.topics)
    where = ", ".join(cluster.conf.brokers)
    text = f"topic {name} does not exist at {where}; mend the name{guess}"
    return BrokerError(f"{text}, or create it: kqmp topic create {name}")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a guess what was meant, to stand behind an error; "" where nothing is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def offsets_at(
    consumer: ck.Consumer, parts: Sequence[Part], timestamp_ms: int
) -> dict[Part, int | None]:
    """Return the first offset of each partition at or after a time, or at an end of its log.

    One request a broker, however many partitions.

    Args:
        consumer: any.
        parts: partitions that have a leader, as the metadata says.
        timestamp_ms: since the epoch, or `BEGINNING` or `END`.

    Returns:
        Offsets by partition; the end of the log for a time after its last message; None where the
        partition's leader did not answer.

    Raises:
        ck.KafkaException: the brokers did not answer in time.
    """
    if not parts:
        return {}
    asked = [ck.TopicPartition(topic, number, timestamp_ms) for topic, number in parts]
    answer = _once_led(lambda: consumer.offsets_for_times(asked, timeout=REQUEST_S))
    found: dict[Part, int | None] = {
        (part.topic, part.partition): None if part.error is not None else part.offset
        for part in answer
    }
    # -1 is librdkafka's way to say that no message is so late.
    late = [part for part, offset in found.items() if offset is not None and offset < 0]
    if late and timestamp_ms >= 0:
        found |= offsets_at(consumer, late, END)
    return found


def _once_led(ask: Callable[[], _Answer]) -> _Answer:
    """Ask again while leaders change, as they do when a topic is new or a broker has just died."""
    deadline_s = time.monotonic() + LEADERS_S
    while True:
        try:
            return ask()
        except ck.KafkaException as error:
            if error.args[0].code() not in _LEADER_CHANGES or time.monotonic() > deadline_s:
                raise
        time.sleep(0.05)


def log_bounds(consumer: ck.Consumer, parts: Sequence[Part]) -> dict[Part, Bounds | None]:
    """Return the ends of partitions' logs; None where a leader did not answer.

    Raises:
        ck.KafkaException: the brokers did not answer in time.
    """
    lows = offsets_at(consumer, parts, BEGINNING)
    highs = offsets_at(consumer, parts, END)
    found: dict[Part, Bounds | None] = {}
    for part in parts:
        low, high = lows[part], highs[part]
        found[part] = None if low is None or high is None else Bounds(low, high)
    return found


def committed(consumer: ck.Consumer, parts: Sequence[Part]) -> dict[Part, int | None]:
    """Return the committed position of the consumer's group in each partition.

    None where there is none, and of topics that this user may not read or that are just deleted.

    Raises:
        ck.KafkaException: the group's coordinator did not answer in time, or refused.
    """
    asked = [ck.TopicPartition(topic, number) for topic, number in parts]
    answer = consumer.committed(asked, timeout=REQUEST_S) if asked else []
    for part in answer:
        if part.error is not None and part.error.code() not in _NOT_READABLE:
            raise ck.KafkaException(part.error)
    return {
        (part.topic, part.partition): part.offset if part.offset >= 0 else None for part in answer
    }
