"""The common ground of all tests on real Kafka: a topic is usable at once, the node comes back."""

from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.conftest import TopicFactory
from tests.support import leaks


def produce(kafka: Any, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(30) == 0


def read_all(kafka: Any, topic: str, group: str, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        messages = consumer.consume(count, timeout=30)
        assert all(message.error() is None for message in messages)
        return [message.value() for message in messages]
    finally:
        consumer.close()


def test_a_new_topic_has_its_partitions_and_takes_messages(
    kafka: Any, topic: TopicFactory, kafka_admin: AdminClient, group: str
) -> None:
    name, other = topic(partitions=3), topic()
    assert name != other
    assert len(kafka_admin.list_topics(name, timeout=10).topics[name].partitions) == 3
    produce(kafka, name, [b"first", b"", b"last"])
    assert read_all(kafka, name, group, 3) == [b"first", b"", b"last"]


@pytest.mark.engine
def test_a_restarted_node_keeps_its_messages_and_is_no_leak(
    kafka: Any, topic: TopicFactory, group: str
) -> None:
    name = topic()
    produce(kafka, name, [b"kept"])
    before = leaks.snapshot()
    kafka.restart(1)
    assert read_all(kafka, name, group, 1) == [b"kept"]
    assert not leaks.wait_until_clean(before)
