"""Topics as the brokers keep them: list, describe and create. For `kqmp topic`."""

import time
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import (
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from kqmp.config import KqConf
from kqmp.errors import BrokerError, ConfigError
from kqmp.kafka import asking, client
from kqmp.kafka.asking import Cluster, Part
from kqmp.kafka.member import Bounds

#: Lets the brokers choose the number of partitions, or of replicas.
BROKERS_CHOICE: Final = -1
#: A created topic has its leaders after so long, or something is wrong.
LEADERS_S: Final = 20.0

#: What the user gave is wrong, and no broker would take it.
_BAD_VALUES: Final = frozenset(
    {
        ck.KafkaError.INVALID_PARTITIONS,
        ck.KafkaError.INVALID_REPLICATION_FACTOR,
        ck.KafkaError.INVALID_REPLICA_ASSIGNMENT,
        ck.KafkaError.INVALID_CONFIG,
        ck.KafkaError.INVALID_REQUEST,
        ck.KafkaError.POLICY_VIOLATION,
        ck.KafkaError.TOPIC_EXCEPTION,
    }
)
_GROUP: Final = "kqmp-topic"


class Partition(NamedTuple):
    """One partition.

    Attributes:
        number: from 0.
        leader: number of the broker that leads it; None while none does.
        replicas: the brokers that keep it, the preferred leader first.
        in_sync: those of them that have all of it.
        low: first offset of its log; None where it has no leader that answers.
        high: the next offset that will be written; None likewise.
    """

    number: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    low: int | None
    high: int | None

    @property
    def messages(self) -> int | None:
        """Offsets in its log: at least the number of messages, more if it is compacted."""
        return None if self.low is None or self.high is None else self.high - self.low


class Topic(NamedTuple):
    """One topic.

    Attributes:
        name: its name.
        partitions: by number.
        config: settings of its own, that is other than the cluster's; None if they were not asked
            for, or this user may not see them.
    """

    name: str
    partitions: list[Partition]
    config: dict[str, str] | None

    @property
    def replication(self) -> int:
        """Copies of each partition; of the one with the most, should they differ."""
        return max((len(part.replicas) for part in self.partitions), default=0)

    @property
    def messages(self) -> int:
        """Offsets in all logs that could be asked for."""
        return sum(part.messages or 0 for part in self.partitions)


def list_topics(conf: KqConf) -> list[Topic]:
    """Return all topics by name, without their settings.

    Raises:
        ConfigError: librdkafka refuses a property.
        BrokerError: no broker answers, or they refuse us.
    """
    with Cluster(conf, _GROUP) as cluster:
        known = cluster.metadata.topics
        bounds = _bounds(cluster, known.values())
        return [_topic(known[name], bounds, None) for name in sorted(known)]


def show_topic(conf: KqConf, name: str) -> Topic:
    """Return a topic with its settings.

    Raises:
        ConfigError: librdkafka refuses a property.
        BrokerError: no broker answers, or they refuse us; it does not exist.
    """
    with Cluster(conf, _GROUP) as cluster:
        told = asking.topic_of(cluster, name)
        bounds = _bounds(cluster, [told])
        return _topic(told, bounds, _own_config(conf, name))


def create_topic(
    conf: KqConf, name: str, partitions: int, replication: int, config: Mapping[str, str]
) -> Topic:
    """Create a topic and return it when all its partitions have a leader.

    Args:
        conf: where the brokers are.
        name: its name.
        partitions: >= 1, or `BROKERS_CHOICE`.
        replication: copies of each partition, >= 1, or `BROKERS_CHOICE`.
        config: settings of its own.

    Raises:
        ConfigError: librdkafka refuses a property, or the brokers what was asked for.
        TopicExists: it is there already.
        BrokerError: no broker answers, or they refuse us.
    """
    with Cluster(conf, _GROUP) as cluster:
        new = NewTopic(name, partitions, replication, config=dict(config))
        asker = asking.admin({**client.client_properties(conf), **conf.kafka})
        answer = asker.create_topics([new], request_timeout=asking.REQUEST_S)[name]
        try:
            answer.result(asking.CONNECT_S + asking.REQUEST_S)
        except ck.KafkaException as error:
            raise _refused(name, error.args[0]) from error
        except TimeoutError:
            raise BrokerError(
                f"topic {name}: the brokers do not answer; look whether it is there"
            ) from None
        told = _with_leaders(cluster, name)
        return _topic(told, _bounds(cluster, [told]), dict(config))


class TopicExists(BrokerError):
    """The topic to be created is there already."""


def _refused(name: str, error: ck.KafkaError) -> Exception:
    text = error.str().rstrip(".")
    if error.code() == ck.KafkaError.TOPIC_ALREADY_EXISTS:
        return TopicExists(f"topic {name} exists already; kqmp topic show {name}")
    if error.code() in _BAD_VALUES:
        return ConfigError(f"topic {name}: the brokers refuse it: {text}")
    return BrokerError(f"topic {name} was not created: {text}")


def _with_leaders(cluster: Cluster, name: str) -> TopicMetadata:
    """Wait until a new topic can be used: its metadata spreads after the broker's answer."""
    deadline_s = time.monotonic() + LEADERS_S
    while True:
        told = asking.ask_topic(cluster.consumer, name)
        if isinstance(told, TopicMetadata):
            leaders = [part.leader for part in told.partitions.values()]
            if min(leaders, default=-1) >= 0:
                return told
        if time.monotonic() > deadline_s:
            raise BrokerError(
                f"topic {name} was created, but has no leaders after {LEADERS_S:.0f} s"
            )
        time.sleep(0.02)


def _bounds(cluster: Cluster, topics: Collection[TopicMetadata]) -> dict[Part, Bounds | None]:
    """Return the ends of all logs that have a leader."""
    parts = [
        (str(topic.topic), number)
        for topic in topics
        for number, part in topic.partitions.items()
        if part.leader >= 0
    ]
    with asking.explained("offsets cannot be read"):
        return asking.log_bounds(cluster.consumer, parts)


def _topic(
    told: TopicMetadata, bounds: Mapping[Part, Bounds | None], config: dict[str, str] | None
) -> Topic:
    name = str(told.topic)
    partitions = []
    for number in sorted(told.partitions):
        part = told.partitions[number]
        ends = bounds.get((name, number))
        low, high = ends or (None, None)
        leader = part.leader if part.leader >= 0 else None
        partitions.append(
            Partition(number, leader, tuple(part.replicas), tuple(part.isrs), low, high)
        )
    return Topic(name, partitions, config)


def _own_config(conf: KqConf, name: str) -> dict[str, str] | None:
    """Return the settings that were made for this topic; None if this user may not see them."""
    asker = asking.admin({**client.client_properties(conf), **conf.kafka})
    resource = ConfigResource(ResourceType.TOPIC, name)
    try:
        entries: dict[str, Any] = asker.describe_configs(
            [resource], request_timeout=asking.REQUEST_S
        )[resource].result(asking.CONNECT_S + asking.REQUEST_S)
    except (ck.KafkaException, TimeoutError):
        return None
    own = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    return {
        key: "***" if entry.is_sensitive else str(entry.value)
        for key, entry in sorted(entries.items())
        if entry.source == own
    }
