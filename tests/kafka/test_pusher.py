"""`Pusher` and `kqmp push` on real Kafka: partitions, limits, an outage, a topic that is not there.

Keys go where a Java producer sends them; a message that is too large fails alone, whether the
topic's limit is known or only the broker's answer tells; a broker that is killed and comes back
costs nothing, repeats nothing and reorders nothing.
"""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest

from kqmp import BrokerError, DeliveryError, Message, MessageTooLarge, Pusher, PusherConf, PushError
from kqmp.kafka import producer
from tests.support.kafka import ROOT

pytestmark = pytest.mark.engine


def records(bootstrap: str, topic: str, count: int) -> dict[int, list[ck.Message]]:
    """Read `count` messages from the beginning, and that there are no more; by partition."""
    consumer = ck.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    try:
        numbers = consumer.list_topics(topic, 10).topics[topic].partitions
        parts = [ck.TopicPartition(topic, number, 0) for number in numbers]
        ends = [consumer.get_watermark_offsets(part, 10)[1] for part in parts]
        assert sum(ends) == count
        consumer.assign(parts)
        found: dict[int, list[ck.Message]] = defaultdict(list)
        while count:
            for record in consumer.consume(count, timeout=10):
                assert record.error() is None
                found[record.partition() or 0].append(record)
                count -= 1
        return found
    finally:
        consumer.close()


def murmur2(data: bytes) -> int:
    """Hash as Java's `org.apache.kafka.common.utils.Utils.murmur2`, made positive."""
    mix, mask = 0x5BD1E995, 0xFFFFFFFF
    value = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * mix & mask
        word = (word ^ word >> 24) * mix & mask
        value = value * mix & mask ^ word
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * mix & mask
    value = (value ^ value >> 13) * mix & mask
    return (value ^ value >> 15) & 0x7FFFFFFF


def test_keys_go_where_java_sends_them_and_messages_without_a_key_are_spread(
    kafka: Any, topic: Any
) -> None:
    # From UtilsTest of Apache Kafka: what the function above must give.
    assert murmur2(b"21") == -973932308 & 0x7FFFFFFF
    assert murmur2(b"foobar") == -790332482 & 0x7FFFFFFF
    name = topic(7)
    keys = [f"key-{number * number}" for number in range(300)]
    # Each chooses anew, which librdkafka does otherwise every 10 ms.
    with Pusher(kafka.bootstrap, name, kafka={"sticky.partitioning.linger.ms": 0}) as pusher:
        for key in keys:
            pusher.push(key, key)
        pusher.push_many(["no key"] * 700)
    found = records(kafka.bootstrap, name, 1000)
    placed = {r.key(): number for number, part in found.items() for r in part if r.key()}
    assert placed == {key.encode(): murmur2(key.encode()) % 7 for key in keys}
    spread = {number for number, part in found.items() for r in part if r.key() is None}
    assert spread == set(range(7))


def test_a_message_above_the_topic_s_limit_fails_alone(kafka: Any, topic: Any) -> None:
    name = topic(1, {"max.message.bytes": "20000"})
    with Pusher(kafka.bootstrap, name) as pusher:
        pusher.push_many(["x" * 100] * 1000)
        with pytest.raises(
            MessageTooLarge, match=r"20,000 bytes.*max\.message\.bytes of the topic"
        ):
            pusher.push("x" * 20_001, "k")
        pusher.push("last")
    assert pusher.statistics() == (1001, 1001, 0, 0)
    records(kafka.bootstrap, name, 1001)


def test_a_message_that_only_the_broker_refuses_fails_alone(kafka: Any, topic: Any) -> None:
    told: list[tuple[Message, DeliveryError]] = []
    pusher = Pusher(
        kafka.bootstrap,
        name := topic(1, {"max.message.bytes": "20000"}),
        chunk_size="10KiB",
        kafka={"message.max.bytes": 100_000, "compression.type": "none"},
        on_error=lambda message, error: told.append((message, error)),
    )
    for number in range(400):
        pusher.push("x" * (30_000 if number == 200 else 100), "k", {"n": str(number)})
    assert pusher.flush() == 1
    with pytest.raises(PushError, match=f"{name}: 1 of 400 messages were lost"):
        pusher.close()
    [(message, error)] = told
    assert (len(message.value or b""), message.headers) == (30_000, (("n", b"200"),))
    assert error.code == "MSG_SIZE_TOO_LARGE"
    assert "a message of 30,001 bytes" in str(error)
    records(kafka.bootstrap, name, 399)


def test_an_outage_loses_nothing_repeats_nothing_and_keeps_the_order(
    kafka: Any, topic: Any
) -> None:
    name = topic(3)
    numbers = iter(range(1_000_000))
    with Pusher(kafka.bootstrap, name, flush_interval="5ms") as pusher:

        def push(count: int) -> None:
            for _ in range(count):
                number = next(numbers)
                pusher.push(str(number), f"key-{number % 10}")

        push(2000)
        assert pusher.flush(60) == 0
        push(2000)  # some of it on its way while the broker dies
        kafka.kill(1)
        try:
            push(2000)
            assert pusher.flush(1) > 0
        finally:
            kafka.restart(1)
        push(2000)
        assert pusher.flush(60) == 0
    assert pusher.statistics() == (8000, 8000, 0, 0)
    by_key = defaultdict(list)
    for part in records(kafka.bootstrap, name, 8000).values():
        for record in part:
            by_key[record.key()].append(int(record.value() or b""))
    assert by_key == {b"key-%d" % key: list(range(key, 8000, 10)) for key in range(10)}


def test_a_topic_that_is_missing_is_one_error(
    kafka: Any, topic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "CREATE_S", 0.5)
    name = topic(1)
    wrong = f"{name[:-1]}x" if name[-1] != "x" else f"{name[:-1]}y"
    with pytest.raises(BrokerError, match=rf"topic {wrong} does not exist .*did you mean {name}\?"):
        Pusher(kafka.bootstrap, wrong)
    # These brokers create no topics.
    with pytest.raises(BrokerError, match=r"was not created: .*auto\.create\.topics\.enable"):
        Pusher(kafka.bootstrap, wrong, allow_auto_topic_creation=True)


def test_a_section_s_pusher_and_the_command_write_the_same_topic(
    kafka: Any, topic: Any, tmp_path: Path
) -> None:
    name = topic(2)
    file = tmp_path / "mq.yaml"
    section = f"KqPusherConf:\n  Brokers:\n  - {kafka.bootstrap}\n  Topic: {name}\n"
    file.write_text(f"Name: service\n{section}")
    with Pusher.from_config(PusherConf.load(file)) as pusher:
        pusher.push({"from": "the library"})
    lines = b"".join(b"%d,line %d\n" % (number % 5, number) for number in range(20_000))
    done = subprocess.run(
        [sys.executable, "-m", "kqmp", "push", "-f", str(file), "-K", ","],
        cwd=ROOT,
        input=lines,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"20,000 messages delivered to %b" % name.encode())
    by_key = defaultdict(list)
    for part in records(kafka.bootstrap, name, 20_001).values():
        for record in part:
            by_key[record.key()].append(record.value())
    assert by_key.pop(None) == [b'{"from":"the library"}']
    assert by_key == {
        b"%d" % key: [b"line %d" % number for number in range(key, 20_000, 5)] for key in range(5)
    }
