"""A producer on librdkafka for one topic: its properties, how it is opened, what its errors mean.

`open_producer` asks the brokers first, so that a missing topic or a wrong password is one error
within a bounded time, and learns the topic's own limit of a message, which librdkafka cannot know.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias, cast

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import ConfigResource, ResourceType

from kqmp.config import PusherConf
from kqmp.errors import BrokerError, ConfigError, DeliveryError
from kqmp.kafka import asking, client, findings
from kqmp.kafka.payload import Headers
from kqmp.message import Message

__all__ = ["DeliveryReport", "KafkaError", "KafkaException", "Opened", "Producer", "Reports"]

log = logging.getLogger("kqmp.kafka")

#: What librdkafka calls for each message: its error, or None, and the message.
DeliveryReport: TypeAlias = Callable[[ck.KafkaError | None, ck.Message], None]

#: Of which messages to hear: of all, or only of those that failed.
Reports: TypeAlias = Literal["all", "failures"]

#: Where the topic does not tell its own: librdkafka's default, below that of the brokers.
MESSAGE_BYTES: Final = 1_000_000
#: Most that waits in a producer: messages, and bytes of them. Then `push` waits for room.
QUEUE_MESSAGES: Final = 100_000
QUEUE_BYTES: Final = 128 << 20
#: How long a topic may take to appear that the brokers create by themselves.
CREATE_S: Final = 10.0
#: How long a new producer is left alone. librdkafka asks for its producer id as soon as it starts,
#: and where a first message comes before that it finds no connection and asks again only 500 ms
#: later (librdkafka 2.16: 505 ms until the first message is out, after 5 ms of peace or more 55).
SETTLE_S: Final = 0.01
#: Of the client that is asked once and closed. Half of it passes between the broker it was given
#: and those it learns of from that: its first answer takes 15 ms, with librdkafka's 100 ms 55 (on
#: loopback). Not for clients that stay: while all brokers are gone each tries that often.
ASK_BACKOFF_MS: Final = 20
#: How long the topic's limit is waited for; without it `MESSAGE_BYTES` holds.
LIMIT_S: Final = 3.0

#: librdkafka's limits.
_MESSAGE_BYTES_MIN: Final = 1000
_BATCH_MESSAGES_MAX: Final = 1_000_000
#: librdkafka's default time in which a message must be delivered; never below the linger time.
_DELIVERY_MS: Final = 300_000
_PARTITIONERS: Final = {
    "hash": "murmur2_random",
    "crc32": "consistent_random",
    "fnv1a": "fnv1a_random",
    "random": "random",
}
_TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_TIMED_OUT: Final = frozenset(
    {KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT}  # noqa: SLF001 - librdkafka's own codes
)
_PURGED: Final = frozenset(
    {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}  # noqa: SLF001 - librdkafka's own codes
)


class Opened(NamedTuple):
    """A producer whose topic was there when it was opened."""

    producer: Producer
    #: Most bytes of one message.
    limit: int
    #: Where that limit is set, for errors.
    limit_name: str
    #: The last errors of the connections, the newest last; noted while the producer is polled.
    errors: deque[ck.KafkaError]


def producer_properties(conf: PusherConf, topic_limit: int | None) -> dict[str, object]:
    """Return the properties of a pusher's producer.

    Args:
        conf: the pusher's configuration.
        topic_limit: the topic's `max.message.bytes`, None if it is not known.
    """
    own = conf.kafka.get("message.max.bytes", "")
    limit = topic_limit or (int(own) if own.isdecimal() else MESSAGE_BYTES)
    linger_ms = 0 if conf.sync else conf.flush_interval_ms
    queue_bytes = max(QUEUE_BYTES, 2 * limit, 2 * conf.chunk_size)
    return {
        **client.client_properties(conf),
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "lz4",
        "partitioner": _PARTITIONERS[conf.balancer],
        "linger.ms": linger_ms,
        "message.timeout.ms": max(_DELIVERY_MS, 2 * linger_ms),
        # The brokers refuse a whole batch above the limit. One at most as large is refused only if
        # a single message in it is too large, and such a message always has a batch to itself.
        "batch.size": min(conf.chunk_size, limit),
        "batch.num.messages": _BATCH_MESSAGES_MAX,
        "message.max.bytes": max(_MESSAGE_BYTES_MIN, limit),
        "queue.buffering.max.messages": QUEUE_MESSAGES,
        "queue.buffering.max.kbytes": -(-queue_bytes // 1024),
        **conf.kafka,
    }


def open_producer(conf: PusherConf, reports: Reports, on_delivery: DeliveryReport) -> Opened:
    """Ask the brokers for the topic and return a producer for it.

    Blocking: some milliseconds; bounded by `asking.CONNECT_S` and a few times `asking.REQUEST_S`.

    Args:
        conf: the pusher's configuration.
        reports: of which messages to hear.
        on_delivery: called for each message without a callback of its own, inside `poll`.

    Raises:
        ConfigError: librdkafka refuses a property.
        BrokerError: no broker answers or they refuse us, or the topic is missing.
    """
    way = conf.replace(kafka=_access(conf))
    with asking.Cluster(way, "kqmp-pusher", reconnect_backoff_ms=ASK_BACKOFF_MS) as cluster:
        limit = None
        if not conf.allow_auto_topic_creation:
            asking.topic_of(cluster, conf.topic)
            limit = _topic_limit(conf)
        elif conf.topic in cluster.metadata.topics:
            limit = _topic_limit(conf)
    properties = producer_properties(conf, limit)
    errors: deque[ck.KafkaError] = deque(maxlen=8)
    settings = {
        **properties,
        "delivery.report.only.error": reports == "failures",
        "on_delivery": on_delivery,
        "error_cb": errors.append,
    }
    try:
        producer = Producer(cast("dict[str, str | int | float | bool]", settings), logger=log)
    except KafkaException as error:
        raise ConfigError(findings.property_finding(conf, error.args[0]).text) from error
    producer.poll(SETTLE_S)
    if conf.allow_auto_topic_creation:
        _wait_for_topic(conf, producer)
    own = conf.kafka.get("message.max.bytes")
    name = "message.max.bytes under Kafka" if own else "max.message.bytes of the topic"
    if limit is None and own is None:
        name = "message.max.bytes, as the topic's own is not known"
    return Opened(producer, int(str(properties["message.max.bytes"])), name, errors)


def _topic_limit(conf: PusherConf) -> int | None:
    """Return the topic's `max.message.bytes`; None where we may not know or nobody tells."""
    if "message.max.bytes" in conf.kafka:  # that one holds
        return None
    asker = asking.admin({**client.client_properties(conf), **_access(conf)})
    resource = ConfigResource(ResourceType.TOPIC, conf.topic)
    answer = asker.describe_configs([resource], request_timeout=LIMIT_S)
    with contextlib.suppress(KafkaException, KeyError, TypeError, ValueError):
        return int(answer[resource].result()["max.message.bytes"].value)
    return None


def _access(conf: PusherConf) -> dict[str, str]:
    """Return of the raw properties what leads to the brokers."""
    ways = ("security.", "sasl.", "ssl.", "socket.", "broker.", "client.", "log")
    return {name: value for name, value in conf.kafka.items() if name.startswith(ways)}


def _wait_for_topic(conf: PusherConf, producer: Producer) -> None:
    """Have the brokers create the topic: a producer's question for it is the order to do so."""
    deadline_s = time.monotonic() + CREATE_S
    while True:
        try:
            topic = producer.list_topics(conf.topic, timeout=asking.REQUEST_S).topics[conf.topic]
        except KafkaException as error:
            raise BrokerError(f"topic {conf.topic}: {error.args[0].str()}") from error
        if topic.error is None and topic.partitions:
            return
        reason = topic.error
        is_refused = reason is not None and reason.code() not in _APPEARS
        if is_refused or time.monotonic() > deadline_s:
            said = reason.str() if reason is not None else "it has no partitions"
            raise BrokerError(
                f"topic {conf.topic} at {', '.join(conf.brokers)} was not created: {said}; are the"
                " brokers set to (auto.create.topics.enable), and may this user? Or create it:"
                f" kqmp topic create {conf.topic}"
            )
        time.sleep(0.1)


#: What is said of a topic that is just being created, or never will be.
_APPEARS: Final = asking.UNKNOWN_TOPIC | {KafkaError.LEADER_NOT_AVAILABLE}


def delivery_error(error: ck.KafkaError, message: ck.Message, opened: Opened) -> DeliveryError:
    """Return what to tell of a message that was not delivered."""
    number = message.partition()
    where = (
        f"{message.topic()}[{number}]" if number is not None and number >= 0 else message.topic()
    )
    size = len(message.value() or b"") + len(message.key() or b"")
    reason = error.str()
    if error.code() in _TOO_LARGE:
        reason += f" (the limit here is {opened.limit:,} bytes: {opened.limit_name})"
    elif error.code() in _TIMED_OUT and opened.errors:
        reason += f" ({opened.errors[-1].str()})"
    elif error.code() in _PURGED:
        reason = "the pusher was closed before the brokers had acknowledged it"
    text = f"a message of {size:,} bytes to {where} was not delivered: {reason}"
    return DeliveryError(text, error.name())


def as_message(message: ck.Message, headers: Headers) -> Message:
    """Return a message that was not delivered in kqmp's own form.

    Args:
        message: as the delivery report has it, which knows no headers.
        headers: what it was pushed with.
    """
    number, (kind, time_ms) = message.partition(), message.timestamp()
    return Message.of(
        topic=message.topic() or "",
        partition=-1 if number is None else number,
        offset=-1,
        key=message.key(),
        value=message.value(),
        timestamp_ms=time_ms if kind else None,
        timestamp_type=kind,
        headers=headers,
    )
