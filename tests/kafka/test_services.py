"""`ServiceGroup` on real Kafka: two queues of two topics beside another service, as one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from kqmp import BrokerError, KqConf, Queue, ServiceGroup
from tests.support.engine import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.kafka]

LEDGER = "KQMP_TEST_SERVICES_LEDGER"


def consume_orders(key: bytes, value: bytes) -> None:
    note(b"orders " + value)


def consume_payments(key: bytes, value: bytes) -> None:
    note(b"payments " + value)


def note(line: bytes) -> None:
    fd = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, line + b"\n")
    os.close(fd)


class Beside:
    """What a program runs beside its queues."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self) -> None:
        self.told.append("start")

    def stop(self) -> None:
        self.told.append("stop")


def test_two_queues_and_another_service_are_one(
    kafka: Any,
    topic: Callable[..., str],
    group: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = tmp_path / "ledger"
    monkeypatch.setenv(LEDGER, str(ledger))
    topics = {"orders": topic(2), "payments": topic(2)}
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 5})
    for name in topics.values():
        for number in range(500):
            producer.produce(name, key=str(number % 50), value=str(number))
    assert producer.flush(30) == 0

    def queue(name: str, handler: Callable[..., None], **changes: Any) -> Queue:
        conf = KqConf(
            brokers=[kafka.bootstrap], group=f"{group}-{name}", topic=topics[name], offset="first"
        )
        return Queue(conf.replace(processors=1, name=name, **changes), handler)

    beside = Beside()
    services = ServiceGroup()
    services.add(beside)
    services.add(queue("orders", consume_orders))
    services.add(queue("payments", consume_payments))
    with services:
        wait_until(lambda: ledger.exists() and len(ledger.read_bytes().split(b"\n")) > 1000, "all")
    found = sorted(ledger.read_text().splitlines())
    assert found == sorted(f"{name} {number}" for name in topics for number in range(500))

    # One that fails ends the others.
    beside.told.clear()
    services = ServiceGroup()
    services.add(beside)
    services.add(queue("orders", consume_orders))
    services.add(queue("payments", consume_payments, topic="nosuchtopic"))
    with pytest.raises(BrokerError, match="'nosuchtopic'") as caught:
        services.start()
    assert caught.value.__notes__[0].startswith("in <Queue payments: nosuchtopic -> ")
    assert beside.told == ["start", "stop"]
    assert sorted(ledger.read_text().splitlines()) == found
