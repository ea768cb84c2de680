"""Questions to the brokers, asked of a client that is not one."""

import time
from types import SimpleNamespace
from typing import Any

import confluent_kafka as ck
import pytest

from kqmp.config import KqConf
from kqmp.kafka import asking
from kqmp.kafka.asking import END, Cluster, offsets_at

CONF = KqConf(brokers=["h:1"], group="g", topic="t")


def test_errors_of_the_connections_do_not_grow_without_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = SimpleNamespace(list_topics=lambda timeout: "metadata")

    def made(settings: dict, logger: object) -> SimpleNamespace:
        client.heard = settings["error_cb"]
        return client

    monkeypatch.setattr(ck, "Consumer", made)
    cluster = Cluster(CONF, "g")
    for number in range(asking.ERRORS_MAX + 3):
        client.heard(number)
    assert list(cluster.errors) == list(range(3, asking.ERRORS_MAX + 3))


def shy(*codes: int) -> Any:
    """Return a client that gives offset 7 of every partition, after some refusals."""
    refusals = list(codes)

    def offsets_for_times(asked: list, timeout: float) -> list:
        if refusals:
            raise ck.KafkaException(ck.KafkaError(refusals.pop(0)))
        return [ck.TopicPartition(part.topic, part.partition, 7) for part in asked]

    return SimpleNamespace(offsets_for_times=offsets_for_times)


def test_a_leader_that_has_not_heard_of_a_new_topic_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    unknown = ck.KafkaError.UNKNOWN_TOPIC_OR_PART
    moved = ck.KafkaError.NOT_LEADER_FOR_PARTITION
    assert offsets_at(shy(unknown, moved, unknown), [("t", 0)], END) == {("t", 0): 7}
    monkeypatch.setattr(asking, "LEADERS_S", -1.0)
    with pytest.raises(ck.KafkaException):
        offsets_at(shy(unknown), [("t", 0)], END)
