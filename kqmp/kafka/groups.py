"""A consumer group as the brokers see it: positions, ends, members. For `kqmp lag`.

Joins nothing, commits nothing. The positions are asked for with `Consumer.committed`: the call of
the AdminClient for them (`list_consumer_group_offsets` of confluent-kafka 2.16.1) can crash the
process while the group's coordinator starts.
"""

import time
from typing import Any, NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription, TopicMetadata

from kqmp.config import KqConf
from kqmp.core.lag import Look, Owner, Seen
from kqmp.errors import BrokerError
from kqmp.kafka import asking, client
from kqmp.kafka.asking import Cluster, Part


class Listed(NamedTuple):
    """One group in a list of them."""

    name: str
    #: As Kafka names it, in lower case.
    state: str


def list_groups(conf: KqConf) -> list[Listed]:
    """Return the consumer groups that this user may see, by name.

    Raises:
        ConfigError: librdkafka refuses a property.
        BrokerError: no broker answers, or they refuse us.
    """
    with Cluster(conf, conf.group), asking.explained("groups cannot be listed"):
        return _listed(_admin(conf))


class Group:
    """Looks at one group, as often as one likes. A context manager; belongs to one thread."""

    def __init__(self, conf: KqConf, group: str, topic: str = "") -> None:
        """Connect.

        Args:
            conf: where the brokers are.
            group: its name.
            topic: look only at this topic; "": at all.

        Raises:
            ConfigError: librdkafka refuses a property.
            BrokerError: no broker answers, or they refuse us.
        """
        self.name = group
        self._topic = topic
        self._cluster = Cluster(conf, group)
        self._admin = _admin(conf)

    def look(self) -> Look:
        """Ask the brokers; bounded by a few times `asking.REQUEST_S`.

        Partitions are those that have a committed position or are assigned to a member.

        Raises:
            BrokerError: the group or the topic does not exist; the brokers did not answer, or
                refused.
        """
        with asking.explained(f"group {self.name}"):
            told = asking.describe_group(self._admin, self.name)
            owners = {} if told is None else _owners(told)
            parts = self._parts()
            committed = asking.committed(self._cluster.consumer, list(parts))
            at_s = time.monotonic()
            wanted = [part for part in parts if committed[part] is not None or part in owners]
            if told is None and not wanted:
                raise self._missing()
            led = [part for part in wanted if parts[part]]
            bounds = asking.log_bounds(self._cluster.consumer, led)
        seen = {}
        for part in wanted:
            low, high = bounds.get(part) or (None, None)
            seen[part] = Seen(committed[part], low, high, owners.get(part))
        state = "empty" if told is None else told.state.name.lower()
        return Look(at_s, state, 0 if told is None else len(told.members), seen)

    def idle(self, seconds: float) -> None:
        """Wait, and meanwhile let the connections be served."""
        self._cluster.consumer.poll(seconds)

    def close(self) -> None:
        """End the connections."""
        self._cluster.close()

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _parts(self) -> dict[Part, bool]:
        """Return the partitions to look at, in order, and whether each has a leader."""
        topics: list[TopicMetadata]
        if self._topic:
            topics = [asking.topic_of(self._cluster, self._topic)]
        else:
            known: dict[str, Any] = self._cluster.consumer.list_topics(
                timeout=asking.REQUEST_S
            ).topics
            topics = [known[name] for name in sorted(known)]
        return {
            (str(topic.topic), number): topic.partitions[number].leader >= 0
            for topic in topics
            for number in sorted(topic.partitions)
        }

    def _missing(self) -> BrokerError:
        where = ", ".join(self._cluster.conf.brokers)
        try:
            known = [group.name for group in _listed(self._admin)]
        except ck.KafkaException:
            known = []
        guess = asking.did_you_mean(self.name, known)
        return BrokerError(f"group {self.name} does not exist at {where}{guess}")


def _admin(conf: KqConf) -> AdminClient:
    return asking.admin({**client.client_properties(conf), **conf.kafka})


def _listed(asker: AdminClient) -> list[Listed]:
    answer = asker.list_consumer_groups(request_timeout=asking.REQUEST_S).result()
    if answer.errors and not answer.valid:
        raise answer.errors[0]
    return sorted(Listed(str(one.group_id), one.state.name.lower()) for one in answer.valid)


def _owners(told: ConsumerGroupDescription) -> dict[Part, Owner]:
    owners = {}
    for member in told.members:
        owner = Owner(
            str(member.member_id),
            str(member.client_id),
            member.group_instance_id or "",
            str(member.host).lstrip("/"),
        )
        for part in member.assignment.topic_partitions:
            owners[part.topic, part.partition] = owner
    return owners
