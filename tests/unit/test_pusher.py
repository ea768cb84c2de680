"""`Pusher` on librdkafka's mock cluster: counted, told, waited for, and never lost unseen."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import confluent_kafka as ck
import pytest

from kqmp import (
    ConfigError,
    DeliveryError,
    Message,
    MessageTooLarge,
    Pusher,
    PusherConf,
    PushError,
    QueueFull,
)
from kqmp.kafka.mock import MockHost
from kqmp.kafka.plain import log_bounds
from kqmp.kafka.sending import Sender
from kqmp.pusher import Delivery, PusherStatistics
from tests.support.kafka import ROOT

TOPIC = "orders"
LIMIT = 50_000
#: The mock knows no topic's limit, and waiting for its answer takes seconds.
KAFKA: dict[str, str | float] = {"message.max.bytes": LIMIT}

pytestmark = pytest.mark.engine


@pytest.fixture
def host() -> Iterator[MockHost]:
    with MockHost(TOPIC, 4) as running:
        yield running


def pusher(host: MockHost, **more: Any) -> Pusher:
    kafka = {**KAFKA, **more.pop("kafka", {})}
    return Pusher(host.bootstrap, TOPIC, kafka=kafka, **more)


def records(host: MockHost, count: int) -> list[ck.Message]:
    """Read the first messages of the topic, sorted by partition and offset."""
    consumer = ck.Consumer(
        {"bootstrap.servers": host.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    try:
        consumer.assign([ck.TopicPartition(TOPIC, number, 0) for number in range(4)])
        found: list[ck.Message] = []
        while len(found) < count:
            more = consumer.consume(count - len(found), timeout=10)
            assert more, f"only {len(found)} of {count} messages are there"
            found += more
        return sorted(found, key=lambda record: (record.partition() or 0, record.offset() or 0))
    finally:
        consumer.close()


def run_to_its_end(program: str, host: MockHost) -> None:
    """Run a program, which is given the brokers; it must say nothing and succeed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, host.bootstrap],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_pushed_arrives_with_key_and_headers(host: MockHost) -> None:
    with pusher(host) as one:
        one.push({"amount": 12}, "customer-7", {"trace": "1", "empty": None})
        one.push_with_key("customer-7", "text")
        one.kpush(b"customer-7", b"bytes")
        one.push(None, "customer-7")
    found = records(host, 4)
    assert [record.value() for record in found] == [b'{"amount":12}', b"text", b"bytes", None]
    assert {record.key() for record in found} == {b"customer-7"}
    assert found[0].headers() == [("trace", b"1"), ("empty", None)]
    assert one.statistics() == (4, 4, 0, 0)
    with pytest.raises(PushError, match="closed"):
        one.push("late")
    one.close()


def test_many_at_once_arrive_in_order_and_the_wrong_one_is_named(host: MockHost) -> None:
    with pusher(host, reports="failures") as one:
        one.push_many((f"v{number}" for number in range(1000)), "k")
        one.push_many([{"a": 1}, b"b"], "k")
        values = ["x"] * 300 + ["y" * 60_000] + ["z"]
        with pytest.raises(MessageTooLarge) as caught:
            one.push_many(values, "k")
        assert caught.value.index == 300
        one.push_many(values[301:], "k", {"h": "x"})
        with pytest.raises(ConfigError, match="reports='all'"):
            asyncio.run(one.apush("v"))
    assert one.statistics() == (1303, 1303, 0, 0)
    found = [record.value() for record in records(host, 1303)]
    assert found[:1002] == [b"v%d" % number for number in range(1000)] + [b'{"a":1}', b"b"]
    assert found[1002:] == [b"x"] * 300 + [b"z"]


def test_what_stands_before_a_wrong_value_is_on_its_way(host: MockHost) -> None:
    """A value of no type that can be pushed, a text that is none, and a generator that fails."""

    def values() -> Iterator[object]:
        yield from ("e", {"f": 1})
        raise KeyError("the program's own")

    with pusher(host) as one:
        with pytest.raises(TypeError, match="value must be str, bytes"):
            one.push_many(["a", {"b": 1}, 5, "never"], "k")
        with pytest.raises(PushError, match="half of a surrogate pair") as caught:
            one.push_many(["c", b"d", "caf\udce9", "never"], "k")
        assert caught.value.index == 2
        with pytest.raises(KeyError, match="the program's own"):
            one.push_many(values(), "k")
    assert one.statistics() == (6, 6, 0, 0)
    found = [record.value() for record in records(host, 6)]
    assert found == [b"a", b'{"b":1}', b"c", b"d", b"e", b'{"f":1}']


def test_many_threads_push_at_once_and_all_is_counted(host: MockHost) -> None:
    one = pusher(host)

    def push_many() -> None:
        for number in range(2000):
            one.push(b"value", str(number))

    threads = [threading.Thread(target=push_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.statistics().pushed == 8000
    assert one.flush(30) == 0
    assert one.statistics() == (8000, 8000, 0, 0)
    one.close()
    assert log_bounds(host.bootstrap, TOPIC)[1] == 8000


def test_a_message_that_is_too_large_fails_alone_with_its_size(host: MockHost) -> None:
    with pusher(host) as one:
        one.push("before")
        with pytest.raises(MessageTooLarge, match=r"60,001 bytes .* limit is 50,000") as caught:
            one.push(b"x" * 60_000, "k")
        one.push("after")
    assert (caught.value.size, caught.value.limit) == (60_001, LIMIT)
    assert one.statistics() == (2, 2, 0, 0)


def test_bad_values_name_themselves_and_harm_nobody(host: MockHost) -> None:
    with pusher(host) as one:
        with pytest.raises(TypeError, match="value must be str, bytes"):
            one.push(5)
        with pytest.raises(TypeError, match="key must be str, bytes or None, not int"):
            one.push("v", 5)  # type: ignore[arg-type]
        with pytest.raises(PushError, match="half of a surrogate pair"):
            one.push("caf\udce9")
    with pytest.raises(ConfigError, match="reports: 'failures' hears of no delivery"):
        pusher(host, reports="failures", sync=True)
    assert one.statistics().pushed == 0


def test_a_full_queue_blocks_for_max_block_and_what_is_lost_is_told(host: MockHost) -> None:
    told: list[tuple[Message, DeliveryError]] = []
    one = pusher(
        host,
        max_block="10ms",
        kafka={"queue.buffering.max.messages": 3},
        on_error=lambda message, error: told.append((message, error)),
    )
    host.close()
    for number in range(3):
        one.push(f"v{number}", "k", {"n": str(number)})
    with pytest.raises(QueueFull, match=r"3 messages wait .* 0.01 s \(MaxBlock\)"):
        one.push("one too many")
    assert one.statistics() == (3, 0, 0, 3)
    assert one.flush(0) == 3
    with pytest.raises(PushError, match=r"orders: 3 of 3 messages were lost; the first: .*closed"):
        one.close(0)
    assert sorted((m.value or b"", m.headers) for m, _ in told) == [
        (b"v%d" % number, (("n", b"%d" % number),)) for number in range(3)
    ]
    assert {error.code for _, error in told} <= {"_PURGE_QUEUE", "_PURGE_INFLIGHT"}
    assert one.statistics() == (3, 0, 3, 0)


class Chatty:
    """A producer with three events of its own in its queue, which librdkafka counts there too."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __len__(self) -> int:
        return len(self.real) + 3

    def flush(self, timeout_s: float) -> int:
        return int(self.real.flush(timeout_s)) + 3


def test_only_messages_are_counted_among_what_waits(
    host: MockHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pusher(host, flush_interval="15m", on_error=lambda *_: True)
    host.close()
    one.push("v")
    sender = one._sender
    assert sender is not None
    with monkeypatch.context() as patch:
        patch.setattr(sender, "_producer", Chatty(sender._producer))
        assert one.flush(0) == 1
        assert "1 messages wait" in str(sender.queue_full())
    one.close(0)
    assert one.statistics() == (1, 0, 1, 0)


def test_failures_are_told_though_nobody_pushes_or_flushes(
    host: MockHost, caplog: pytest.LogCaptureFixture
) -> None:
    """One that `on_error` takes care of is no loss; one at which it fails is logged, and is."""
    told: list[bytes | None] = []
    heard_both = threading.Event()

    def on_error(message: Message, error: DeliveryError) -> bool:
        told.append(message.value)
        if len(told) == 2:
            heard_both.set()
        if message.value == b"cared for":
            return True
        raise RuntimeError("no wind today")

    one = pusher(host, flush_interval=0, kafka={"message.timeout.ms": 100}, on_error=on_error)
    host.close()
    with caplog.at_level(logging.ERROR, "kqmp.pusher"):
        one.push("cared for")
        one.push("lost")
        assert heard_both.wait(30)
        assert one.flush(30) == 2
    assert one.flush(30) == 0
    assert one.statistics() == (2, 0, 2, 0)
    assert caplog.text.count("on_error failed") == 1
    with pytest.raises(PushError, match=r"1 of 2 messages were lost; the first: .*timed out"):
        one.close()


def test_a_loss_does_not_hide_another_exception(
    host: MockHost, caplog: pytest.LogCaptureFixture
) -> None:
    one = pusher(host, flush_interval=0, kafka={"message.timeout.ms": 100})
    host.close()

    def program() -> None:
        with one:
            one.push("v")
            raise KeyError("the program's own")

    with caplog.at_level(logging.ERROR, "kqmp.pusher"), pytest.raises(KeyError):
        program()
    assert "1 of 1 messages were lost" in caplog.text


def test_sync_returns_the_place_and_raises_what_failed(host: MockHost) -> None:
    with pusher(host, sync=True) as one:
        first, second = one.push("a", "k"), one.push("b", "k", {"h": "x"})
    assert first is not None
    assert second is not None
    assert (first.topic, second.offset) == (TOPIC, first.offset + 1)
    assert one.statistics() == (2, 2, 0, 0)
    one = pusher(host, sync=True, kafka={"message.timeout.ms": 100})
    host.close()
    with pytest.raises(DeliveryError, match=r"a message of 2 bytes to orders.* not delivered"):
        one.push("c", "k")
    assert one.statistics() == (1, 0, 1, 0)
    one.close()


def test_apush_waits_without_blocking_the_loop(host: MockHost) -> None:
    async def program() -> None:
        async with pusher(host, flush_interval="15m") as one:
            pushes = [one.apush(f"v{number}", str(number)) for number in range(500)]
            places = await asyncio.gather(*pushes)
            assert len(set(places)) == 500
            with pytest.raises(MessageTooLarge):
                await one.apush(b"x" * 60_000)

    asyncio.run(program())
    assert log_bounds(host.bootstrap, TOPIC)[1] == 500


def test_apush_raises_what_failed_and_a_cancelled_one_is_told(host: MockHost) -> None:
    told: list[bytes | None] = []

    async def program(one: Pusher) -> None:
        task = asyncio.create_task(one.apush("cancelled"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(DeliveryError):
            await one.apush("awaited")
        with pytest.raises(asyncio.CancelledError):
            await task
        while not told:
            await asyncio.sleep(0.01)

    one = pusher(
        host,
        flush_interval=0,
        kafka={"message.timeout.ms": 100},
        on_error=lambda message, _: told.append(message.value),
    )
    host.close()
    asyncio.run(program(one))
    assert told == [b"cancelled"]
    with pytest.raises(PushError, match="1 of 2 messages were lost"):
        one.close()


def test_what_fails_for_who_waits_no_more_is_told(
    host: MockHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `push` with `sync` that Ctrl-C interrupts, and an `apush` whose event loop is closed."""
    told: list[bytes | None] = []
    has_told = threading.Semaphore(0)

    def on_error(message: Message, error: DeliveryError) -> bool:
        told.append(message.value)
        has_told.release()
        return True

    def interrupt(sender: Sender, done: threading.Event) -> None:
        raise KeyboardInterrupt

    kafka = {"message.timeout.ms": 500}
    one = pusher(host, sync=True, kafka=kafka, on_error=on_error)
    host.close()
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "wait_until", interrupt)
        with pytest.raises(KeyboardInterrupt):
            one.push("interrupted")
    assert has_told.acquire(timeout=30)
    loop = asyncio.new_event_loop()
    task = loop.create_task(one.apush("left"))
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    assert has_told.acquire(timeout=30)
    assert told == [b"interrupted", b"left"]
    assert one.flush(30) == 2
    assert one.statistics() == (2, 0, 2, 0)
    one.close()


def test_a_failure_counts_before_who_waits_for_it_looks(host: MockHost) -> None:
    seen: list[PusherStatistics] = []

    async def program() -> None:
        task = asyncio.create_task(one.apush("v"))
        await asyncio.sleep(0)
        one.flush(30)  # blocks the loop on purpose: the task cannot look
        seen.append(one.statistics())
        with pytest.raises(DeliveryError):
            await task

    one = pusher(host, flush_interval=0, kafka={"message.timeout.ms": 100})
    host.close()
    asyncio.run(program())
    assert seen[0] == one.statistics() == (1, 0, 1, 0)
    assert one.flush(30) == 0
    one.close()


def test_a_queue_that_is_full_for_a_while_loses_nothing(host: MockHost) -> None:
    with pusher(host, kafka={"queue.buffering.max.messages": 50}) as one:
        for number in range(2000):
            one.push(b"v", str(number))

        async def program() -> None:
            await asyncio.gather(*(one.apush(b"v", str(number)) for number in range(500)))

        asyncio.run(program())
    assert one.statistics() == (2500, 2500, 0, 0)


def test_a_full_queue_keeps_the_order_of_a_key(host: MockHost) -> None:
    """One `push_many`, then many `apush` at once, each of 2000 messages into room for 50."""

    async def program(one: Pusher) -> list[Delivery]:
        return await asyncio.gather(*(one.apush(f"a{number}", "k") for number in range(2000)))

    with pusher(host, kafka={"queue.buffering.max.messages": 50}) as one:
        one.push_many((f"m{number}" for number in range(2000)), "k")
        places = asyncio.run(program(one))
    assert [place.offset for place in places] == list(range(2000, 4000))
    assert one.statistics() == (4000, 4000, 0, 0)
    values = [record.value() for record in records(host, 4000)]
    assert values == [b"%b%d" % (way, number) for way in (b"m", b"a") for number in range(2000)]


def test_close_does_not_wait_for_those_that_go_on_pushing(host: MockHost) -> None:
    """No broker, a full queue, and a thread that fills at once what close makes free."""
    is_pushing = threading.Event()
    refused: list[PushError] = []

    def values() -> Iterator[str]:
        give_up_s = time.monotonic() + 30
        while time.monotonic() < give_up_s:
            yield "v"
            is_pushing.set()

    def push() -> None:
        try:
            one.push_many(values())
        except PushError as error:
            refused.append(error)

    room = {"queue.buffering.max.messages": 1000}
    one = pusher(host, kafka=room, on_error=lambda *_: True)
    host.close()
    thread = threading.Thread(target=push)
    thread.start()
    assert is_pushing.wait(30)
    one.close("100ms")
    thread.join()
    assert "the pusher is closed" in str(refused[0])
    assert one.statistics() == (refused[0].index, 0, refused[0].index, 0)


def test_close_inside_on_error_is_refused_and_takes_nothing_away(
    host: MockHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    has_told = threading.Event()

    def on_error(message: Message, error: DeliveryError) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(Sender, "close", lambda *_: told.append("the sender was taken away"))
            try:
                one.close()
            except RuntimeError as why:
                told.append(str(why))
        has_told.set()
        return True

    one = pusher(host, flush_interval=0, kafka={"message.timeout.ms": 100}, on_error=on_error)
    host.close()
    one.push("v")
    assert has_told.wait(30)
    assert told == ["close() cannot be called inside on_error"]
    one.close()


def test_a_property_that_librdkafka_refuses_is_named(host: MockHost) -> None:
    with pytest.raises(ConfigError, match=r"no\.such\.property"):
        pusher(host, kafka={"no.such.property": "x"})


def test_from_config_takes_a_conf_or_a_parsed_section(host: MockHost) -> None:
    section = {"Brokers": [host.bootstrap], "Topic": TOPIC, "Kafka": KAFKA}
    for conf in (PusherConf.from_section(section), section):
        with Pusher.from_config(conf) as one:
            assert one.name == TOPIC
    with pytest.raises(ConfigError, match="must be a PusherConf or a map"):
        Pusher.from_config("mq.yaml")  # type: ignore[arg-type]


DROPS = f"""
import gc, sys
from kqmp import Pusher
def notify(value):
    Pusher(sys.argv[1], {TOPIC!r}, kafka={KAFKA!r}, flush_interval="15m").push(value)
for number in range(3):
    notify(f"v{{number}}")
gc.collect()
"""


def test_a_pusher_that_the_program_drops_still_sends(host: MockHost) -> None:
    run_to_its_end(DROPS, host)
    assert sorted(record.value() or b"" for record in records(host, 3)) == [b"v0", b"v1", b"v2"]


FORKS = f"""
import os, sys
from kqmp import Pusher
pusher = Pusher(sys.argv[1], {TOPIC!r}, kafka={KAFKA!r}, flush_interval="15m")
for _ in range(5):
    pusher.push("parent")
child = os.fork()
if child == 0:
    for _ in range(3):
        pusher.push("child")
    assert pusher.statistics().pushed == 3
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert pusher.statistics().pushed == 5
"""


def test_a_forked_child_has_its_own_and_the_end_of_a_program_sends_all(host: MockHost) -> None:
    """Neither parent nor child closes its pusher, and both have nothing sent when they end."""
    run_to_its_end(FORKS, host)
    values = [record.value() for record in records(host, 8)]
    assert sorted(values) == [b"child"] * 3 + [b"parent"] * 5  # type: ignore[type-var]


CHILDREN = f"""
import multiprocessing, sys
from kqmp import Pusher
pusher = Pusher(sys.argv[1], {TOPIC!r}, kafka={KAFKA!r}, flush_interval="15m")
def inherited():
    pusher.push("inherited")
def own():
    Pusher(sys.argv[1], {TOPIC!r}, kafka={KAFKA!r}, flush_interval="15m").push("own")
pusher.push("parent")
for target in (inherited, own):
    child = multiprocessing.get_context("fork").Process(target=target)
    child.start()
    child.join()
    assert child.exitcode == 0
pusher.push("parent")
"""


def test_a_child_of_multiprocessing_sends_what_it_pushed(host: MockHost) -> None:
    """Such a child ends without the interpreter's own end."""
    run_to_its_end(CHILDREN, host)
    values = sorted(record.value() or b"" for record in records(host, 4))
    assert values == [b"inherited", b"own", b"parent", b"parent"]
