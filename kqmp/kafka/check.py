"""What `kqmp check` finds out from the brokers: are they there, is the topic, can we join.

Joins no group, commits nothing, creates nothing. What the answers mean is said in
`kqmp.kafka.findings`.
"""

from collections.abc import Iterator

import confluent_kafka as ck
from confluent_kafka.admin import ConsumerGroupDescription

from kqmp.config import KqConf
from kqmp.kafka import asking, client, findings
from kqmp.kafka.findings import Finding, GroupState


def look(conf: KqConf) -> Iterator[Finding]:
    """Yield what is found at the brokers, in the order of looking.

    Blocking: bounded by `asking.CONNECT_S` and a few times `asking.REQUEST_S`. What depends on
    something that failed is left out; all else is looked at.
    """
    properties = client.consumer_properties(conf, 0)
    errors: list[ck.KafkaError] = []
    try:
        consumer = ck.Consumer({**properties, "error_cb": errors.append}, logger=asking.silent)
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
    metadata = asking.connect(consumer, errors)
    if metadata is None:
        yield findings.connection_finding(conf, errors)
        return
    counted = findings.counted(len(metadata.brokers), "broker")
    yield Finding("ok", "brokers", f"{', '.join(conf.brokers)}: a cluster of {counted}")
    topic = asking.ask_topic(consumer, conf.topic)
    leaders = {}
    if isinstance(topic, ck.KafkaError):
        yield findings.topic_error_finding(conf, topic, metadata.topics)
    else:
        leaders = {number: part.leader for number, part in topic.partitions.items()}
        yield from findings.partition_findings(conf, leaders)
    try:
        told = asking.describe_group(asking.admin(properties), conf.group)
        state = GroupState() if told is None else _state(told)
        yield from findings.member_findings(conf, state)
    except ck.KafkaException as error:
        yield findings.group_error_finding(conf, error.args[0])
    led = sorted(number for number, leader in leaders.items() if leader >= 0)
    if led:
        yield from _look_at_offsets(conf, consumer, led)


def _look_at_offsets(
    conf: KqConf, consumer: ck.Consumer, partitions: list[int]
) -> Iterator[Finding]:
    parts = [(conf.topic, number) for number in partitions]
    try:
        bounds = asking.log_bounds(consumer, parts)
        committed = asking.committed(consumer, parts)
    except ck.KafkaException as error:
        yield findings.broker_error("offsets", f"they cannot be read: {error.args[0].str()}")
        return
    told = {number: ends for (_, number), ends in bounds.items() if ends is not None}
    positions = {number: at for (_, number), at in committed.items() if number in told}
    yield from findings.position_findings(conf, positions, told)


def _state(told: ConsumerGroupDescription) -> GroupState:
    return GroupState(
        members=len(told.members),
        assignor=told.partition_assignor if told.members else "",
        is_consumer_protocol=told.type == ck.ConsumerGroupType.CONSUMER,
        instance_ids=frozenset(m.group_instance_id for m in told.members if m.group_instance_id),
    )
