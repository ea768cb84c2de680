"""What `kqmp check` finds out from the brokers: are they there, is the topic, can we join.

Joins no group, commits nothing, creates nothing. What the answers mean is said in
`kqmp.kafka.findings`.
"""

import logging
import time
from collections.abc import Iterator
from typing import Final, cast

import confluent_kafka as ck
from confluent_kafka.admin import (
    AdminClient,
    ClusterMetadata,
    ConsumerGroupDescription,
    TopicMetadata,
)

from kqmp.config import KqConf
from kqmp.kafka import client, findings
from kqmp.kafka.findings import Finding, GroupState
from kqmp.kafka.member import REFUSALS, Bounds

#: How long the brokers get for their first answer; `kqmp run` waits longer, for ones that start.
CONNECT_S: Final = 10.0
#: Every broker of the list refused the connection: after so long there is no use in waiting.
REFUSED_S: Final = 3.0
#: Bound of each request after that.
REQUEST_S: Final = 10.0

_COORDINATOR_STARTS: Final = frozenset(
    {
        ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        ck.KafkaError.COORDINATOR_NOT_AVAILABLE,
        ck.KafkaError.NOT_COORDINATOR,
    }
)
_BEGINNING: Final = -2
_END: Final = -1
#: librdkafka's own lines would stand between ours; what matters in them comes as errors too.
_silent = logging.getLogger("kqmp.kafka.check")
_silent.propagate = False
_silent.addHandler(logging.NullHandler())


def look(conf: KqConf) -> Iterator[Finding]:
    """Yield what is found at the brokers, in the order of looking.

    Blocking: bounded by `CONNECT_S` and a few times `REQUEST_S`. What depends on something that
    failed is left out; all else is looked at.
    """
    properties = client.consumer_properties(conf, 0)
    errors: list[ck.KafkaError] = []
    try:
        consumer = ck.Consumer({**properties, "error_cb": errors.append}, logger=_silent)
    except ck.KafkaException as error:
        yield findings.property_finding(conf, error.args[0])
        return
    try:
        yield from _look_at_cluster(conf, consumer, errors, properties)
    finally:
        consumer.close()


def _look_at_cluster(
    conf: KqConf,
    consumer: ck.Consumer,
    errors: list[ck.KafkaError],
    properties: dict[str, object],
) -> Iterator[Finding]:
    metadata = _connect(consumer, errors)
    if metadata is None:
        yield findings.connection_finding(conf, errors)
        return
    counted = findings.counted(len(metadata.brokers), "broker")
    yield Finding("ok", "brokers", f"{', '.join(conf.brokers)}: a cluster of {counted}")
    topic = _topic(consumer, conf.topic)
    if isinstance(topic, ck.KafkaError):
        yield findings.topic_error_finding(conf, topic, metadata.topics)
    else:
        yield from findings.partition_findings(conf, topic)
    partitions = [] if isinstance(topic, ck.KafkaError) else sorted(topic)
    try:
        yield from findings.member_findings(conf, _group(conf, properties))
    except ck.KafkaException as error:
        yield findings.group_error_finding(conf, error.args[0])
    if partitions:
        yield from _look_at_offsets(conf, consumer, partitions)


def _look_at_offsets(
    conf: KqConf, consumer: ck.Consumer, partitions: list[int]
) -> Iterator[Finding]:
    try:
        bounds = _bounds(consumer, conf.topic, partitions)
        committed = _committed(consumer, conf.topic, partitions)
    except ck.KafkaException as error:
        yield findings.broker_error("offsets", f"they cannot be read: {error.args[0].str()}")
        return
    yield from findings.position_findings(conf, committed, bounds)


def _connect(consumer: ck.Consumer, errors: list[ck.KafkaError]) -> ClusterMetadata | None:
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


def _topic(consumer: ck.Consumer, name: str) -> dict[int, int] | ck.KafkaError:
    """Return the leader (-1: none) of each partition of the topic, or why there is no answer."""
    try:
        topic: TopicMetadata = consumer.list_topics(name, timeout=REQUEST_S).topics[name]
    except ck.KafkaException as error:
        reason = error.args[0]
        assert isinstance(reason, ck.KafkaError)
        return reason
    if topic.error is not None:
        return topic.error
    return {number: part.leader for number, part in topic.partitions.items()}


def _bounds(consumer: ck.Consumer, topic: str, partitions: list[int]) -> dict[int, Bounds]:
    """Return the ends of the partitions' logs."""
    ends = []
    for which in (_BEGINNING, _END):
        asked = [ck.TopicPartition(topic, number, which) for number in partitions]
        answer = consumer.offsets_for_times(asked, timeout=REQUEST_S) if asked else []
        ends.append({part.partition: part.offset for part in answer})
    return {number: Bounds(ends[0][number], ends[1][number]) for number in partitions}


def _committed(consumer: ck.Consumer, topic: str, partitions: list[int]) -> dict[int, int | None]:
    asked = [ck.TopicPartition(topic, number) for number in partitions]
    answer = consumer.committed(asked, timeout=REQUEST_S) if asked else []
    for part in answer:
        if part.error is not None:
            raise ck.KafkaException(part.error)
    return {part.partition: part.offset if part.offset >= 0 else None for part in answer}


def _group(conf: KqConf, properties: dict[str, object]) -> GroupState:
    """Ask who is in the group; again while its coordinator starts, as in a fresh cluster."""
    admin = AdminClient(cast("dict[str, str | int | float]", properties), logger=_silent)
    deadline_s = time.monotonic() + REQUEST_S
    while True:
        answer = admin.describe_consumer_groups([conf.group], request_timeout=REQUEST_S)
        try:
            return _state(answer[conf.group].result())
        except ck.KafkaException as error:
            code = error.args[0].code()
            # Since Kafka 4.0 a group that does not exist may be an error, before it was a dead one.
            if code == ck.KafkaError.GROUP_ID_NOT_FOUND:
                return GroupState()
            if code not in _COORDINATOR_STARTS or time.monotonic() > deadline_s:
                raise
        time.sleep(0.2)


def _state(told: ConsumerGroupDescription) -> GroupState:
    return GroupState(
        members=len(told.members),
        assignor=told.partition_assignor if told.members else "",
        is_consumer_protocol=told.type == ck.ConsumerGroupType.CONSUMER,
        instance_ids=frozenset(m.group_instance_id for m in told.members if m.group_instance_id),
    )
