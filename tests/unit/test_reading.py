"""What `Reader` makes of what a consumer gives it, without a broker."""

from types import SimpleNamespace

import confluent_kafka as ck
import pytest

from kqmp.config import KqConf
from kqmp.errors import BrokerError, ConfigError
from kqmp.kafka import asking, reading
from kqmp.kafka.member import Bounds
from kqmp.kafka.reading import Reader, Start

CONF = KqConf(brokers=["h:1"], group="g", topic="t")
EOF = ck.KafkaError._PARTITION_EOF


class FakeConsumer:
    """Gives batches one after another."""

    def __init__(self) -> None:
        self.batches: list = []
        self.assigned: dict[int, int] = {}
        self.paused: list[int] = []

    def consume(self, most, timeout):
        return self.batches.pop(0) if self.batches else []

    def poll(self, timeout):
        return None

    def assign(self, parts):
        self.assigned = {part.partition: part.offset for part in parts}

    def pause(self, parts):
        self.paused += [part.partition for part in parts]


@pytest.fixture
def consumer(monkeypatch):
    """Give a consumer of a topic of two partitions, which hold offsets 1 to 3 and 0 to 1."""
    fake = FakeConsumer()
    fake.errors = []
    cluster = SimpleNamespace(consumer=fake, errors=fake.errors, close=lambda: None)
    monkeypatch.setattr(reading, "Cluster", lambda *_, **__: cluster)
    topic = SimpleNamespace(partitions={0: None, 1: None})
    monkeypatch.setattr(asking, "topic_of", lambda *_: topic)
    bounds = {("t", 0): Bounds(1, 4), ("t", 1): Bounds(0, 2)}
    monkeypatch.setattr(
        asking, "log_bounds", lambda _, parts: {part: bounds[part] for part in parts}
    )
    return fake


def messages(partition, *offsets):
    return [
        ck.Message(topic="t", partition=partition, offset=offset, value=b"%d" % offset)
        for offset in offsets
    ]


def places(batch):
    return list(zip(batch.partitions, batch.offsets, strict=True))


def test_what_is_produced_meanwhile_is_left_out_at_the_end(consumer):
    reader = Reader(CONF, "t", Start("beginning"), stop_at_end=True)
    assert consumer.assigned == {0: 1, 1: 0}
    consumer.batches = [messages(0, 1, 2, 3, 4) + messages(1, 0), messages(0, 5), messages(1, 1, 2)]
    first = reader.read(0)
    assert places(first) == [(0, 1), (0, 2), (0, 3), (1, 0)]
    assert first.values == [b"1", b"2", b"3", b"0"]
    assert consumer.paused == [0]
    assert reader.read(0) is None
    assert not reader.is_finished
    assert places(reader.read(0)) == [(1, 1)]
    assert reader.is_finished


def test_an_end_without_a_message_is_an_end_too(consumer):
    reader = Reader(CONF, "t", Start("beginning"), stop_at_end=True, partitions=[0])
    # Offset 3 was compacted away.
    end = ck.Message(topic="t", partition=0, offset=4, error=ck.KafkaError(EOF))
    consumer.batches = [[*messages(0, 1, 2), end]]
    assert places(reader.read(0)) == [(0, 1), (0, 2)]
    assert reader.is_finished


def test_nothing_to_read_is_finished_at_once(consumer):
    assert Reader(CONF, "t", Start("end"), stop_at_end=True).is_finished
    assert consumer.assigned == {}
    follows = Reader(CONF, "t", Start("end"))
    assert not follows.is_finished
    assert consumer.assigned == {0: 4, 1: 2}


def test_a_time_begins_where_the_brokers_say(consumer, monkeypatch):
    asked = []

    def offsets_at(_, parts, timestamp_ms):
        asked.append(timestamp_ms)
        return dict.fromkeys(parts, 1)

    monkeypatch.setattr(asking, "offsets_at", offsets_at)
    Reader(CONF, "t", Start("time", 77))
    assert asked == [77]
    assert consumer.assigned == {0: 1, 1: 1}


def test_columns_that_nobody_wants_are_empty(consumer):
    reader = Reader(CONF, "t", Start("beginning"), columns=["values"])
    consumer.batches = [messages(1, 0, 1)]
    batch = reader.read(0)
    assert batch.values == [b"0", b"1"]
    assert batch.keys == batch.timestamps == batch.headers == []


def test_a_partition_that_is_not_there_is_one_error(consumer):
    with pytest.raises(ConfigError, match=r"^-p 2: topic t has 2 partitions, numbered from 0$"):
        Reader(CONF, "t", Start("end"), partitions=[1, 2, 5])


def test_trouble_is_told_once_and_a_deleted_topic_ends_it(consumer):
    reader = Reader(CONF, "t", Start("end"))
    down = ck.KafkaError._TRANSPORT
    consumer.errors += [
        ck.KafkaError(down, "h:1: Connection refused (after 0ms in state CONNECT)"),
        ck.KafkaError(down, "h:1: Connection refused (after 11ms in state CONNECT)"),
        ck.KafkaError(ck.KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"),
    ]
    assert reader.trouble() == ["h:1: Connection refused"]
    assert reader.trouble() == []
    consumer.errors.append(ck.KafkaError(ck.KafkaError.UNKNOWN_TOPIC_OR_PART))
    with pytest.raises(BrokerError, match="topic t does not exist any more"):
        reader.trouble()


@pytest.mark.parametrize(
    "code", [ck.KafkaError.UNKNOWN_TOPIC_OR_PART, ck.KafkaError.TOPIC_AUTHORIZATION_FAILED]
)
def test_an_error_that_stays_ends_it(consumer, code):
    reader = Reader(CONF, "t", Start("end"))
    consumer.batches = [[ck.Message(topic="t", partition=0, error=ck.KafkaError(code))]]
    with pytest.raises(BrokerError, match="topic t"):
        reader.read(0)


def test_an_error_that_passes_is_let_pass(consumer):
    reader = Reader(CONF, "t", Start("end"))
    error = ck.KafkaError(ck.KafkaError.GROUP_AUTHORIZATION_FAILED)
    consumer.batches = [[ck.Message(topic="t", error=error), *messages(0, 4)]]
    assert places(reader.read(0)) == [(0, 4)]
