"""Both sources of a member's messages, on real Kafka: the same log is the same columns."""

import time

import pytest
from confluent_kafka import Producer

from kqmp.config import KqConf
from kqmp.kafka import compiled
from kqmp.kafka.client import consumer_properties
from kqmp.kafka.member import Member
from tests.support.member import Group, join

pytestmark = pytest.mark.engine

needs_compiled = pytest.mark.skipif(bool(compiled.why_not()), reason=compiled.why_not())

#: key, value, headers
ODD = [
    (b"k", b"v", None),
    (None, b"no key", None),
    (b"", b"empty key", None),
    (b"k", b"", None),
    (b"tombstone", None, None),
    (None, None, None),
    (b"k", b"v", []),
    (b"k", b"v", [("a", b"1")]),
    (b"k", b"v", [("a", b"1"), ("a", b""), ("b", None), ("", b"no name"), ("\u00e9", b"\0\xff")]),
    (b"\0\xff", b"\xff\0" * 40, [("trace", b"x" * 300)]),
    (b"large", b"y" * 300_000, None),
]


def fill(bootstrap, topic, partitions):
    settings = {"bootstrap.servers": bootstrap, "linger.ms": 20, "enable.idempotence": True}
    producer = Producer(settings)
    for round_ in range(60):
        for number, (key, value, headers) in enumerate(ODD):
            producer.produce(
                topic,
                value,
                key,
                partition=(round_ * len(ODD) + number) % partitions,
                headers=headers,
                timestamp=1_700_000_000_000 + round_ * 100 + number,
            )
    assert producer.flush(30) == 0
    return 60 * len(ODD)


def rows_of(bootstrap, topic, partitions, count, wanted):
    """Return (partition, offset, key, value, stamp, type, headers) of all messages, sorted."""
    conf = KqConf(brokers=[bootstrap], group=f"{topic}-{time.monotonic_ns()}", topic=topic)
    group = Group()
    member = Member(consumer_properties(conf, 0), topic, group, wanted)
    rows, batches = [], []
    deadline_s = time.monotonic() + 60
    join(member, group, partitions, within_s=60)
    member.read_from(dict.fromkeys(group.assignment, 0))
    while len(rows) < count:
        assert time.monotonic() < deadline_s, len(rows)
        fetched = member.fetch(500, 0.1)
        if fetched is None:
            continue
        columns = fetched.columns
        batches.append(fetched)
        names = [p for p, number in fetched.runs for _ in range(number)]
        nothing = [None] * len(names)
        rows += zip(
            names,
            columns.offsets,
            columns.keys,
            columns.values,
            columns.timestamps or nothing,
            columns.timestamp_types or nothing,
            columns.headers or nothing,
            strict=True,
        )
    assert member.fetch(10, 0.2) is None
    member.close()
    for partition in range(partitions):  # in order as they came
        offsets = [row[1] for row in rows if row[0] == partition]
        assert offsets == sorted(offsets)
    return sorted(rows, key=lambda row: row[:2]), batches


@needs_compiled
@pytest.mark.parametrize("wanted", [(), ("timestamp",), ("headers", "timestamp")])
def test_both_sources_bring_the_same_columns(kafka, topic, wanted, monkeypatch):
    name = topic(partitions=5)
    count = fill(kafka.bootstrap, name, 5)
    fast, batches = rows_of(kafka.bootstrap, name, 5, count, wanted)
    for fetched in batches:
        assert fetched.value_bytes == sum(len(value or b"") for value in fetched.columns.values)
    monkeypatch.setenv(compiled.SWITCH, "0")
    plain, _ = rows_of(kafka.bootstrap, name, 5, count, wanted)
    assert fast == plain
    assert len(fast) == count
    if "timestamp" in wanted:
        assert {row[5] for row in fast} == {1}  # CreateTime
        assert fast[0][4] == 1_700_000_000_000
    if "headers" in wanted:
        assert ("\u00e9", b"\0\xff") in next(row[6] for row in fast if len(row[6] or []) == 5)
