"""What a running engine tells the outside, on real Kafka: metrics, health, failures, intervals.

Method: the pages are scraped until they show what the ledger and the brokers say; a page that never
does fails the test. Ports lie below those that the system gives to clients.
"""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from confluent_kafka import Producer
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from kqmp import KqConf, Metrics, Queue, ServiceGroup
from kqmp.errors import ExitCode
from tests.kafka.conftest import SceneFactory
from tests.support.engine import wait_until
from tests.support.kafka import ROOT
from tests.support.ledger import END, FAILED

pytestmark = pytest.mark.engine

#: Every tenth message always raises; it is tried again once.
ONCE_AGAIN = """
from collections import Counter
import kqmp
from tests.support.ledger import Ledger
ledger = Ledger()
tries = Counter()

class consume:
    def consume(self, message):
        with ledger.handling(message):
            if int(message.value.split()[0]) % 10 == 0:
                raise ValueError("every tenth")

    def on_error(self, message, error):
        where = message.partition, message.offset
        tries[where] += 1
        return kqmp.RETRY if tries[where] < 2 else kqmp.DONE
"""


def consume(key: bytes, value: bytes) -> None: ...


def free_port() -> int:
    while True:
        port = random.randint(20_000, 30_000)
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and text of a page; (0, "") while nobody listens."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"Accept": "application/openmetrics-text"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""


def scrape(port: int) -> list[tuple[str, dict[str, str], float]]:
    status, text = get(port, "/metrics")
    families = text_string_to_metric_families(text) if status == 200 else []
    return [(s.name, s.labels, s.value) for family in families for s in family.samples]


def total(port: int, name: str, **labels: str) -> float | None:
    """Return the sum of the samples with these labels, None if there is none."""
    values = [
        value
        for found, its, value in scrape(port)
        if found == name and labels.items() <= its.items()
    ]
    return sum(values) if values else None


def positions(port: int) -> dict[int, float]:
    return {
        int(labels["partition"]): value
        for name, labels, value in scrape(port)
        if name == "kqmp_committed_position"
    }


def test_pages_show_what_happens_and_on_error_has_its_say(scene: SceneFactory) -> None:
    field = scene(partitions=2, keys=[b"a", b"b", b"c", b"d"])
    field.feed.send(100)
    field.watch_commits()
    port = free_port()
    dev = {"Host": "127.0.0.1", "Port": port}
    engine = field.engine(ONCE_AGAIN, {"DevServer": dev})
    engine.wait_until(
        lambda: total(port, "kqmp_messages_consumed_total") == 100, "100 messages on the page"
    )
    assert total(port, "kqmp_messages_failed_total") == 10
    assert total(port, "kqmp_handler_retries_total") == 10
    assert total(port, "kqmp_processes_up", role="processor") == 2
    engine.wait_until(lambda: positions(port) == field.ends(), "all committed on the page")
    engine.wait_until(lambda: total(port, "kqmp_lag") == 0, "no lag on the page")
    assert get(port, "/healthz") == (200, "OK")
    listening = [
        child
        for child in engine.children()
        if any(c.status == psutil.CONN_LISTEN for c in child.net_connections())
    ]
    assert not listening
    engine.stop()
    # Each that failed was tried twice.
    field.verdict().assert_sound(duplicates_at_most=10)
    kinds = Counter(record.kind for record in field.tail.records)
    assert (kinds[FAILED], kinds[END]) == (20, 90)
    assert "failed 10 (passed over), retried 10" in engine.output
    assert "every tenth" not in engine.output


@pytest.fixture
def run(kafka: Any, tmp_path: Path) -> Iterator[Any]:
    """Give a function that starts `kqmp run` of some sections, which ends with the test."""
    started: list[subprocess.Popen[bytes]] = []
    (tmp_path / "mqs.py").write_text("def consume(key, value): ...\n")

    def start(sections: dict[str, Any]) -> "subprocess.Popen[bytes]":
        for section in sections.values():
            section |= {"Brokers": [kafka.bootstrap], "Handler": "mqs:consume", "Processors": 1}
        (tmp_path / "mq.yaml").write_text(yaml.safe_dump(sections))
        with (tmp_path / "output").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "kqmp", "run", "-f", "mq.yaml"],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_sections_share_one_port_and_log_as_they_say(
    run: Any, topic: Any, group: str, tmp_path: Path
) -> None:
    name, port = topic(1), free_port()
    dev = {"Host": "127.0.0.1", "Port": port}
    sections = {
        one: {
            "Group": f"{group}-{one}",
            "Topic": name,
            "DevServer": dev,
            "Log": {"Encoding": "json"},
        }
        for one in ("A", "B")
    }
    process = run(sections)
    wait_until(lambda: get(port, "/healthz") == (200, "OK"), "both sections to be well")
    for one in sections:
        assert total(port, "kqmp_assignments_total", section=one, queue=one) is not None
    process.terminate()
    assert process.wait(60) == 0
    records = [json.loads(line) for line in (tmp_path / "output").read_text().splitlines()]
    roles = {record["role"] for record in records}
    assert {"parent", "coordinator A", "coordinator B"} <= roles


def test_queues_of_a_program_share_one_port_and_tell_their_metrics(
    kafka: Any, topic: Any, group: str
) -> None:
    name, port = topic(2), free_port()
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(50):
        producer.produce(name, b"%d" % number)
    producer.flush()
    seen: list[tuple[Metrics, str]] = []

    def measure(metrics: Metrics) -> None:
        seen.append((metrics, threading.current_thread().name))
        if len(seen) == 1:
            raise ValueError("not fatal")

    services = ServiceGroup()
    for its in ("one", "two"):
        conf = KqConf(
            brokers=kafka.bootstrap,
            group=f"{group}-{its}",
            topic=name,
            offset="first",
            processors=1,
            name=its,
            dev_server={"Host": "127.0.0.1", "Port": port},
        )
        function = measure if its == "one" else None
        services.add(Queue(conf, consume, metrics=function, metrics_interval=1))
    with services:
        wait_until(lambda: sum(m.consumed for m, _ in seen) >= 50, "50 messages in the intervals")
        wait_until(lambda: get(port, "/healthz") == (200, "OK"), "both queues to be well")
        for its in ("one", "two"):
            assert total(port, "kqmp_assignments_total", section=its, queue=its) is not None
    assert get(port, "/healthz") == (0, "")
    assert sum(metrics.consumed for metrics, _ in seen) == 50
    assert {metrics.name for metrics, _ in seen} == {"one"}
    assert max(metrics.running for metrics, _ in seen) == 1
    assert {thread for _, thread in seen} == {"kqmp-metrics"}


def test_a_port_in_use_ends_the_start(run: Any, group: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        dev = {"Host": "127.0.0.1", "Port": port}
        process = run({"A": {"Group": group, "Topic": "none", "DevServer": dev}})
        assert process.wait(60) == ExitCode.WORKER_START
    told = (tmp_path / "output").read_text()
    assert f"error: DevServer: Port: 127.0.0.1:{port} is in use by another process" in told
