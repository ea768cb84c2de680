"""`kqmp run` on real Kafka, as a user meets it: the seed's file, a terminal, pipes, wrong brokers.

Judged by what the handler writes down (one O_APPEND write a message) and by the committed positions
that another client reads.
"""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from kqmp.errors import ExitCode
from tests.support import kafka as kafka_support
from tests.support.engine import title, wait_until
from tests.support.kafka import ROOT
from tests.support.terminal import Screen, Session

pytestmark = [pytest.mark.engine, pytest.mark.kafka]

#: The seed of this project, byte for byte.
SEED = """\
Name: mq
Host: 0.0.0.0
Port: 8888

#kq
KqConsumerConf:
  Name: kqConsumer
  Brokers:
  - 127.0.1:9092
  Group: kqConsumer
  Topic: payment-success
  Offset: first
  Consumers: 8
  Processors: 8
"""
HANDLER = """\
import os, time
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def consume(key, value):
    os.write(ledger, value + b"\\n")

def talk(key, value):
    # One write, also with PYTHONUNBUFFERED, where print would make two of it.
    print(f"handled {value.decode()}\\n", end="", flush=True)
    os.write(ledger, value + b"\\n")

def sleep(key, value):
    os.write(ledger, value + b"\\n")
    time.sleep(600)

def fail(key, value):
    os.write(ledger, value + b"\\n")
    if value in (b"3", b"8"):
        raise ValueError(value)
"""


class Place:
    """A directory with a handler, a topic, and what a user can see from there."""

    def __init__(self, path: Path, kafka: Any, topic: str, group: str, partitions: int) -> None:
        self.path = path
        self.kafka = kafka
        self.topic = topic
        self.group = group
        self._parts = [TopicPartition(topic, number) for number in range(partitions)]
        self._client: Any = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group})
        self._client.list_topics(topic, timeout=30)
        (path / "mqs.py").write_text(HANDLER)

    def produce(self, first: int, count: int) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap, "linger.ms": 5})
        for number in range(first, first + count):
            key = str(number % 97)
            producer.produce(self.topic, key=key, value=str(number))
            if number % 1000 == 0:
                producer.poll(0)
        assert producer.flush(30) == 0

    def handled(self) -> list[int]:
        ledger = self.path / "ledger"
        return [int(line) for line in ledger.read_bytes().split()] if ledger.exists() else []

    def wait_handled(self, count: int) -> None:
        wait_until(lambda: len(self.handled()) >= count, f"{count} messages handled")

    def committed(self) -> int:
        """Return the sum of the committed positions."""
        parts = self._client.committed(self._parts, timeout=30)
        return sum(max(0, part.offset) for part in parts)

    def ends(self) -> int:
        return sum(self._client.get_watermark_offsets(part, timeout=30)[1] for part in self._parts)

    @property
    def flags(self) -> list[str]:
        return [
            *("--brokers", self.kafka.bootstrap, "--group", self.group, "--topic", self.topic),
            *("--set", "Name=mq", "--set", "Offset=first", "--processors", "2"),
        ]

    def close(self) -> None:
        self._client.close()


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "kqmp", "run", *args]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run_until(
    place: Place, args: list[str], reached: Callable[[], object], number: int = signal.SIGTERM
) -> "subprocess.CompletedProcess[str]":
    """Run an engine until something is reached, then signal it; it must end."""
    with (place.path / "stderr").open("w+") as output:
        process = subprocess.Popen(
            command(*args), cwd=place.path, env=environment(), stderr=output, text=True
        )
        try:

            def reached_or_ended() -> object:
                assert process.poll() is None, (place.path / "stderr").read_text()
                return reached()

            wait_until(reached_or_ended, "what the test waits for")
            process.send_signal(number)
            code = process.wait(30)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        return subprocess.CompletedProcess(args, code, stderr=output.read())


@pytest.fixture
def places(tmp_path: Path, kafka: Any, topic: Any, group: str) -> Iterator[Callable[[int], Place]]:
    made: list[Place] = []

    def create(partitions: int) -> Place:
        made.append(Place(tmp_path, kafka, topic(partitions), group, partitions))
        return made[-1]

    yield create
    for place in made:
        place.close()


@pytest.fixture
def place(places: Callable[[int], Place]) -> Place:
    return places(4)


@pytest.fixture
def seed(tmp_path: Path, kafka: Any, kafka_admin: Any) -> Iterator[Place]:
    """The seed's own topic and group."""
    kafka_support.create_topic(kafka_admin, "payment-success", 4, None, 1)
    place = Place(tmp_path, kafka, "payment-success", "kqConsumer", 4)
    (tmp_path / "etc").mkdir()
    port = kafka.bootstrap.rpartition(":")[2]
    (tmp_path / "etc" / "mq.yaml").write_text(SEED.replace("9092", port))
    yield place
    place.close()
    for future in kafka_admin.delete_topics(["payment-success"]).values():
        future.result(timeout=30)


def test_the_seed_s_file_is_consumed_once_and_a_second_run_consumes_nothing(seed: Place) -> None:
    seed.produce(0, 20_000)
    args = ["mqs:consume", "-f", "etc/mq.yaml"]
    seen: set[str] = set()

    def all_handled() -> bool:
        if not seen and len(seed.handled()) > 100:
            seen.update(titles_of_children())
        return len(seed.handled()) >= 20_000

    done = run_until(seed, args, all_handled)
    assert done.returncode == 0, done.stderr
    assert sorted(seed.handled()) == list(range(20_000))
    assert seed.committed() == seed.ends() == 20_000
    processors = {f"kqmp: processor 0.{number}" for number in range(8)}
    assert seen == {"kqmp: coordinator kqConsumer", "kqmp: fetcher 0", *processors}
    assert re.search(r"ended after .* consumed 20,000 .*, failed 0, .* uncommitted 0$", done.stderr)

    # Whatever a second run would repeat comes before this message.
    seed.produce(20_000, 1)
    done = run_until(seed, args, lambda: 20_000 in seed.handled()[20_000:])
    assert done.returncode == 0, done.stderr
    assert seed.handled()[20_000:] == [20_000]
    assert seed.committed() == 20_001


def titles_of_children() -> set[str]:
    found = psutil.Process().children(recursive=True)
    return {name for name in map(title, found) if name.startswith("kqmp: ")}


def test_the_coordinator_stays_small(place: Place) -> None:
    place.produce(0, 5000)
    sizes: list[int] = []

    def measured() -> bool:
        if len(place.handled()) < 5000:
            return False
        for process in psutil.Process().children(recursive=True):
            if title(process) == "kqmp: coordinator mq":
                sizes.append(process.memory_full_info().uss)  # noqa: PERF401 - it is one
        return True

    assert run_until(place, ["mqs:consume", *place.flags], measured).returncode == 0
    assert 1 << 20 < sizes[0] < 40 << 20


APP = """\
from kqmp import KqConf, Queue
from mqs import consume

def make():
    return Queue(KqConf(brokers="127.0.0.1:1", group="g", topic="t", offset="first"), consume)
"""


def test_a_function_that_returns_a_queue_is_run_as_flags_have_it(place: Place) -> None:
    (place.path / "app.py").write_text(APP)
    place.produce(0, 300)
    done = run_until(place, ["app:make", *place.flags], lambda: len(place.handled()) == 300)
    assert done.returncode == 0, done.stderr
    assert "mq: handler mqs:consume, topic" in done.stderr
    assert "1 fetcher + 2 processors" in done.stderr
    assert place.committed() == 300


def test_failures_are_said_at_the_start_and_counted_at_the_end(place: Place) -> None:
    place.produce(0, 100)
    done = run_until(place, ["mqs:fail", *place.flags], lambda: len(place.handled()) == 100)
    assert done.returncode == 0
    assert "note: failures are passed over (ForceCommit true)" in done.stderr
    assert (
        len(re.findall(r"handler failed: .* offset \d+ key '[38]': ValueError", done.stderr)) == 2
    )
    assert re.search(r"consumed 100 \(.*\), failed 2 \(passed over\), restarts 0", done.stderr)


def test_a_new_group_at_last_is_told_what_it_will_not_read(place: Place) -> None:
    place.produce(0, 1234)
    flags = [*place.flags, "--set", "Offset=last"]
    stderr = place.path / "stderr"

    def told() -> bool:
        return "will not be read" in stderr.read_text()

    done = run_until(place, ["mqs:consume", *flags], told)
    assert done.returncode == 0
    assert (
        "group is new, Offset last: 1,234 existing messages will not be read"
        " (Offset: first reads them)" in done.stderr
    )
    assert place.handled() == []


def test_a_missing_topic_is_one_error(place: Place) -> None:
    done = subprocess.run(
        command("mqs:consume", *place.flags, "--topic", "nosuchtopic", "--conns", "2"),
        cwd=place.path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == ExitCode.BROKER
    (error,) = [line for line in done.stderr.splitlines() if " ERROR " in line]
    assert "topic 'nosuchtopic' (Topic) does not exist" in error


@pytest.fixture
def terminal(place: Place) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def start(*args: str) -> Session:
        made.append(Session(command(*args), place.path, environment(), size=(120, 12)))
        return made[-1]

    yield start
    for session in made:
        session.close()


def test_a_terminal_shows_one_line_that_tangles_with_nothing(
    place: Place, terminal: Callable[..., Session]
) -> None:
    session = terminal("mqs:talk", *place.flags)
    session.read_until("p99")
    place.produce(0, 500)
    while len(place.handled()) < 500:
        session.read(0.1)
    session.read_until("lag 0", timeout_s=10)
    screen = Screen(120, 12)
    screen.feed(session.text[: session.text.rindex("\x1b8") + 2])
    assert re.fullmatch(
        r"mq  [\d,]+/s  p99 .*ms  lag 0.*  running 2  failed 0  restarts 0",
        screen.lines[-1].strip(),
    )
    session.type("\x03")
    assert session.wait() == 0
    screen = Screen(120, 12)
    screen.feed(session.text)
    written = screen.written()
    printed = [line for line in written if line.startswith("handled ")]
    assert Counter(printed) == Counter(f"handled {number}" for number in range(500))
    assert not any("p99" in line and "(" not in line for line in written)
    assert "Traceback" not in session.text
    assert "SIGINT: draining" in session.text
    assert "uncommitted 0" in written[-1]
    assert place.committed() == 500


def test_a_second_interrupt_stops_at_once(place: Place, terminal: Callable[..., Session]) -> None:
    place.produce(0, 10)
    session = terminal("mqs:sleep", *place.flags)
    wait_until(lambda: session.read(0.05) and place.handled(), "a handler that sleeps")
    session.type("\x03")
    session.read_until("draining")
    session.type("\x03")
    assert session.wait(10) == ExitCode.INTERRUPTED
    assert "Traceback" not in session.text


def test_a_closed_terminal_is_a_clean_stop(place: Place, terminal: Callable[..., Session]) -> None:
    place.produce(0, 200)
    session = terminal("mqs:talk", *place.flags)
    wait_until(lambda: session.read(0.05) and len(place.handled()) >= 50, "50 messages handled")
    session.hang_up()
    assert session.process.wait(30) == 0
    # What was printed after the window was gone failed nothing and lost nothing.
    handled = place.handled()
    assert len(handled) == len(set(handled)) == place.committed()


@pytest.mark.parametrize(("handler", "lines"), [("consume", 1), ("talk", 20)])
def test_a_reader_that_leaves_is_a_clean_stop(place: Place, handler: str, lines: int) -> None:
    """Early, while everything starts; and when a handler has begun to print."""
    place.produce(0, 2000)
    line = " ".join(command(f"mqs:{handler}", *place.flags))
    done = subprocess.run(
        ["/bin/bash", "-c", f"{line} 2>&1 | head -{lines}; exit ${{PIPESTATUS[0]}}"],
        cwd=place.path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == lines
    handled = place.handled()
    assert len(handled) == len(set(handled)) == place.committed()
