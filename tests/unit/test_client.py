"""What librdkafka is told: defaults that the guarantees rest on, and what a user may change."""

from typing import Any

from kqmp.config import KqConf
from kqmp.kafka.client import consumer_properties


def properties(index: int = 0, **values: Any) -> dict[str, object]:
    conf = KqConf(brokers=["b:1"], group="g", topic="t", **values)
    return consumer_properties(conf, index)


def test_kqmp_alone_decides_what_is_committed_and_where_reading_starts() -> None:
    given = properties()
    assert given["enable.auto.commit"] is False
    assert given["enable.auto.offset.store"] is False
    assert given["auto.offset.reset"] == "error"
    assert given["partition.assignment.strategy"] == "cooperative-sticky"


def test_a_revoke_that_waits_for_the_handlers_never_outlasts_the_poll_interval() -> None:
    assert properties()["max.poll.interval.ms"] == 300_000
    assert properties(drain_timeout="10m")["max.poll.interval.ms"] == 610_000
    own = properties(kafka={"max.poll.interval.ms": 40_000})
    assert own["max.poll.interval.ms"] == "40000"


def test_heartbeats_fit_a_short_session() -> None:
    assert properties()["heartbeat.interval.ms"] == 2500
    assert properties(kafka={"session.timeout.ms": 2000})["heartbeat.interval.ms"] == 500
    both = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 100}
    assert properties(kafka=both)["heartbeat.interval.ms"] == "100"


def test_each_fetcher_has_an_instance_id_of_its_own() -> None:
    assert "group.instance.id" not in properties()
    assert properties(1, instance_id="pod-3")["group.instance.id"] == "pod-3-1"


def test_one_message_larger_than_max_bytes_still_comes() -> None:
    given = properties(max_bytes="200MiB")
    assert given["max.partition.fetch.bytes"] == 200 << 20
    assert int(str(given["receive.message.max.bytes"])) >= 400 << 20
