"""Offsets that no longer exist: the engine goes on where `Offset` says, and says so.

Method: an engine handles a part and is stopped; then records are deleted beyond its committed
positions. With `first` the next engine begins at what is left; with `last` it begins at the end and
handles only what comes after. The same under a running engine, whose handlers stand still while the
records behind what it has fetched are deleted.
"""

import pytest
from confluent_kafka import TopicPartition

from tests.kafka.conftest import SceneFactory
from tests.support.scene import FAST, GATED, Scene

pytestmark = pytest.mark.engine


def delete_below(field: Scene, lows: dict[int, int]) -> None:
    """Delete all records below these offsets."""
    parts = [TopicPartition(field.topic, p, offset) for p, offset in lows.items()]
    for future in field.admin.delete_records(parts).values():
        future.result(timeout=30)


@pytest.mark.parametrize("offset", ["first", "last"])
def test_deleted_records_are_passed_as_offset_says(scene: SceneFactory, offset: str) -> None:
    field = scene(partitions=2)
    field.feed.send(500)
    first = field.engine(FAST)
    field.wait_all_handled(first)
    first.stop()
    field.feed.send(500)
    lows = {partition: end - 100 for partition, end in field.ends().items()}
    delete_below(field, lows)
    gone = {
        message.uid
        for message in field.feed.acked
        if message.uid >= 500 and (offset == "last" or message.offset < lows[message.partition])
    }
    second = field.engine(FAST, {"Offset": offset})
    second.wait_until(lambda: second.output.count("out of range") == 2, "both partitions reset")
    if offset == "last":
        second.wait_until(lambda: field.committed() == field.ends(), "new start positions")
    field.feed.send(200)
    field.wait_all_handled(second, but=gone)
    second.stop()
    field.verdict(excused=gone).assert_sound(duplicates_at_most=0)
    assert not gone & field.tail.ended
    assert field.committed() == field.ends()
    for partition in lows:
        assert f"{field.topic}[{partition}]" in second.output


def test_records_deleted_under_a_running_engine(scene: SceneFactory, tmp_path) -> None:
    gate = tmp_path / "gate"
    # Small read-ahead, so that what is deleted was not fetched before.
    conf = {
        "Consumers": 1,
        "QueueCapacity": 10,
        "MaxBytes": 20_000,
        "Kafka": {"queued.max.messages.kbytes": 64},
    }
    field = scene(partitions=1, value_bytes=2000)
    engine = field.engine(GATED, conf, GATE=str(gate))
    field.wait_settled(engine, 1)
    field.feed.send(60_000)
    engine.wait_until(lambda: field.tail.written >= 2, "a message in each handler")
    low = field.ends()[0] - 100
    delete_below(field, {0: low})
    gate.touch()
    last = {message.uid for message in field.feed.acked if message.offset >= low}
    engine.wait_until(lambda: field.tail.poll() is None or last <= field.tail.ended, "the rest")
    assert engine.output.count("out of range") == 1
    engine.stop()
    excused = {message.uid for message in field.feed.acked if message.offset < low}
    field.verdict(excused=excused).assert_sound(duplicates_at_most=0)
    assert field.committed() == field.ends()
    assert len(field.tail.ended) < 50_000
