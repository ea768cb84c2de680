"""Several consumer sections under one `kqmp run` on real Kafka: one parent, ended as one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from confluent_kafka import Producer

from kqmp.errors import ExitCode
from tests.support.engine import is_alive, title, wait_until
from tests.support.kafka import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.kafka]

HANDLERS = """\
import os, time
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def orders(key, value):
    os.write(ledger, b"Orders " + value + b"\\n")

def payments(key, value):
    os.write(ledger, b"Payments " + value + b"\\n")

class Audit:
    def setup(self, context):
        assert context.document["Web"] == {"Port": 8888}
        self.label = context.section["Handler"].partition(":")[2].encode()

    def consume(self, key, value):
        os.write(ledger, self.label + b" " + value + b"\\n")

def stand_still(key, value):
    os.write(ledger, b"Orders " + value + b"\\n")
    time.sleep(600)
"""
#: The same as a `ServiceGroup`, for TARGET.
GROUP = """
from kqmp import KqConf, Queue, ServiceGroup

group = ServiceGroup()
for name, handler in (("Orders", orders), ("Payments", payments), ("Audit", "mqs:orders")):
    group.add(Queue(KqConf.load("all.yaml", name), handler))
"""
SECTIONS = {"Orders": "mqs:orders", "Payments": "mqs:payments", "Audit": "mqs:Audit"}


class Place:
    """A directory with handlers and a file of three sections, and what runs there."""

    def __init__(self, path: Path, kafka: Any, topics: list[str], group: str) -> None:
        self.path = path
        self._kafka = kafka
        (path / "mqs.py").write_text(HANDLERS)
        self.conf: dict[str, Any] = {"Name": "all", "Web": {"Port": 8888}}
        for (name, handler), topic in zip(SECTIONS.items(), topics, strict=True):
            self.conf[name] = {
                "Brokers": [kafka.bootstrap],
                "Group": f"{group}-{name}",
                "Topic": topic,
                "Offset": "first",
                "Processors": 1,
                "Handler": handler,
            }
        self.conf["Pusher"] = {"Brokers": [kafka.bootstrap], "Topic": topics[0]}
        self.process: subprocess.Popen[str] | None = None

    def produce(self, count: int) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap, "linger.ms": 5})
        for name in SECTIONS:
            for number in range(count):
                producer.produce(self.conf[name]["Topic"], key=str(number % 7), value=str(number))
        assert producer.flush(30) == 0

    def start(self, *args: str) -> "subprocess.Popen[str]":
        args = args or ("-f", "all.yaml")
        (self.path / "all.yaml").write_text(yaml.safe_dump(self.conf, sort_keys=False))
        with (self.path / "stderr").open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kqmp", "run", *args],
                cwd=self.path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stderr=output,
                text=True,
            )
        return self.process

    @property
    def stderr(self) -> str:
        return (self.path / "stderr").read_text()

    def handled(self) -> list[str]:
        ledger = self.path / "ledger"
        return ledger.read_text().splitlines() if ledger.exists() else []

    def wait_handled(self, count: int) -> None:
        process = self.process
        assert process is not None

        def reached_or_ended() -> bool:
            assert process.poll() is None, self.stderr
            return len(self.handled()) >= count

        wait_until(reached_or_ended, f"{count} messages handled")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def place(tmp_path: Path, kafka: Any, topic: Callable[..., str], group: str) -> Iterator[Place]:
    made = Place(tmp_path, kafka, [topic(2) for _ in SECTIONS], group)
    yield made
    made.close()


def titles(processes: list[psutil.Process]) -> set[str]:
    return set(map(title, processes))


def test_three_sections_are_consumed_and_stopped_as_one(place: Place) -> None:
    place.produce(200)
    process = place.start()
    place.wait_handled(600)
    children = psutil.Process(process.pid).children(recursive=True)
    assert title(psutil.Process(process.pid)) == "kqmp: parent Orders, Payments, Audit"
    assert titles(children) == {
        *(f"kqmp: coordinator {name}" for name in SECTIONS),
        *(f"kqmp: fetcher {name} 0" for name in SECTIONS),
        *(f"kqmp: processor {name} 0.0" for name in SECTIONS),
    }
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 0, place.stderr
    wanted = [f"{name} {number}" for name in SECTIONS for number in range(200)]
    assert sorted(place.handled()) == sorted(wanted)
    for name in SECTIONS:
        assert f"coordinator {name}: ({name}) - ended after" in place.stderr
    assert place.stderr.count("uncommitted 0") == 3
    last = place.stderr.splitlines()[-1]
    assert last.endswith("parent: ended, exit code 0 (Orders 0, Payments 0, Audit 0)")


@pytest.mark.parametrize(
    ("key", "value", "code", "text"),
    [
        ("Topic", "nosuchtopic", ExitCode.BROKER, "topic 'nosuchtopic' (Topic) does not exist"),
        ("Handler", "mqs:orderz", ExitCode.HANDLER_IMPORT, "did you mean 'orders'"),
    ],
)
def test_one_failing_section_ends_all_with_its_error(
    place: Place, key: str, value: str, code: ExitCode, text: str
) -> None:
    place.conf["Payments"][key] = value
    process = place.start()
    assert process.wait(40) == code, place.stderr
    errors = [line for line in place.stderr.splitlines() if " ERROR " in line]
    assert "coordinator Payments: " in errors[0]
    assert text in errors[0]
    number = int(code)
    assert errors[1].endswith(
        f"parent: section Payments has ended (exit code {number}): stopping the others"
    )
    assert len(errors) == 2
    last = place.stderr.splitlines()[-1]
    assert last.endswith(f"ended, exit code {number} (Orders 0, Payments {number}, Audit 0)")


def test_a_killed_coordinator_ends_all_queues_of_a_group(place: Place) -> None:
    (place.path / "mqs.py").write_text(HANDLERS + GROUP)
    place.produce(1)
    process = place.start("mqs:group")
    place.wait_handled(3)
    children = psutil.Process(process.pid).children()
    (victim,) = [child for child in children if title(child) == "kqmp: coordinator Audit"]
    victim.kill()
    assert process.wait(40) == ExitCode.GAVE_UP, place.stderr
    assert "section Audit: the coordinator has ended without a word (signal 9)" in place.stderr
    assert "(Orders 0, Payments 0, Audit 6)" in place.stderr


def test_a_killed_parent_leaves_nothing(place: Place) -> None:
    # A drain would take DrainTimeout.
    place.conf["Orders"]["Handler"] = "mqs:stand_still"
    place.produce(1)
    process = place.start()
    place.wait_handled(3)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) == 9
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, family)), "the end of all", timeout_s=2)
