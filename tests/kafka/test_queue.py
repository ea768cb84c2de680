"""`Queue` on real Kafka: from a script, from a test, from a thread; and how its engine ends.

The scripts run in processes of their own; the tests that need none use `Queue` right here, in
pytest, with a handler of this very module.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from kqmp import BrokerError, EngineEnded, ExitCode, HandlerImportError, KqConf, Queue
from tests.support.engine import is_alive, title, wait_until
from tests.support.kafka import ROOT
from tests.support.terminal import Session

pytestmark = [pytest.mark.engine, pytest.mark.kafka]

LEDGER = "KQMP_TEST_QUEUE_LEDGER"


def consume(key: bytes, value: bytes) -> None:
    note(value)


def consume_slowly(key: bytes, value: bytes) -> None:
    note(value)
    threading.Event().wait(600)


def complain(key: bytes, value: bytes) -> None:
    note(value)
    logging.getLogger("shop.orders").warning("odd order %s", value.decode())
    sys.stderr.write(f"printed {value.decode()}\n")
    raise ValueError("no such order " + "x" * 20_000)


def note(value: bytes) -> None:
    fd = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, value + b"\n")
    os.close(fd)


SCRIPT = """\
import os, sys, threading, time
from kqmp import KqConf, Queue

def consume(key: bytes, value: bytes):
    fd = os.open(os.environ["KQMP_TEST_QUEUE_LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, value + b"\\n")
    os.close(fd)
    time.sleep(float(os.environ.get("PAUSE", "0")))

if __name__ == "__main__":
    conf = KqConf(
        brokers=[os.environ["BROKERS"]], group=os.environ["GROUP"], topic=os.environ["TOPIC"],
        offset="first", processors=2,
    )
    print("starts", flush=True)
    Queue(conf, consume).start()
    print("returned", flush=True)
"""
FORKS = SCRIPT.replace(
    'print("starts", flush=True)',
    """\
queue = Queue(conf, consume)
    queue.__enter__()
    if os.fork() == 0:
        time.sleep(600)
    print("forked", flush=True)
    time.sleep(600)""",
)


class Place:
    """A topic, a group, a ledger."""

    def __init__(self, path: Path, kafka: Any, topic: str, group: str) -> None:
        self.path = path
        self.ledger = path / "ledger"
        self._kafka = kafka
        self._topic = topic
        self._group = group

    def produce(self, count: int) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap, "linger.ms": 5})
        for number in range(count):
            producer.produce(self._topic, key=str(number % 50), value=str(number))
        assert producer.flush(30) == 0

    def conf(self, **changes: Any) -> KqConf:
        return KqConf(
            brokers=[self._kafka.bootstrap],
            group=self._group,
            topic=self._topic,
            offset="first",
            processors=2,
        ).replace(**changes)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "BROKERS": self._kafka.bootstrap,
            "GROUP": self._group,
            "TOPIC": self._topic,
            **more,
        }

    def script(self, source: str = SCRIPT) -> list[str]:
        (self.path / "script.py").write_text(source)
        return [sys.executable, "script.py"]

    def handled(self) -> list[int]:
        return [int(n) for n in self.ledger.read_bytes().split()] if self.ledger.exists() else []

    def wait_handled(self, count: int) -> None:
        wait_until(lambda: len(self.handled()) >= count, f"{count} messages handled")


@pytest.fixture
def place(
    tmp_path: Path,
    kafka: Any,
    topic: Callable[..., str],
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    made = Place(tmp_path, kafka, topic(4), group)
    monkeypatch.setenv(LEDGER, str(made.ledger))
    return made


@pytest.fixture
def running(place: Place) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Scripts in processes of their own, ended after the test."""
    made: list[subprocess.Popen[str]] = []

    def start(source: str = SCRIPT, **env: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            place.script(source),
            cwd=place.path,
            env=place.environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        made.append(process)
        return process

    yield start
    for process in made:
        process.kill()
        process.communicate()


def family(pid: int) -> list[psutil.Process]:
    """Return the processes of an engine that a program started, less those without a title yet."""
    return [p for p in psutil.Process(pid).children(recursive=True) if title(p).startswith("kqmp:")]


def runs(queue: Queue) -> bool:
    """Return `is_running` in a way that leads no type checker to think it stays so."""
    return queue.is_running


def gone(processes: list[psutil.Process]) -> bool:
    return not any(map(is_alive, processes))


# ---- in this very process


def test_beside_the_program(place: Place) -> None:
    place.produce(2000)
    queue = Queue(place.conf(), consume)
    with queue as entered:
        assert entered is queue
        assert runs(queue)
        place.wait_handled(2000)
        with pytest.raises(RuntimeError, match="is running already"):
            queue.start()
    assert not runs(queue)
    assert sorted(place.handled()) == list(range(2000))
    # It may run again, and has nothing left to do.
    with queue:
        assert runs(queue)
    assert len(place.handled()) == 2000


def test_from_a_thread(place: Place) -> None:
    place.produce(100)
    queue = Queue(place.conf(), consume)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            queue.start()
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    place.wait_handled(100)
    queue.stop()
    assert not queue.is_running
    thread.join(10)
    assert not thread.is_alive()
    assert raised == []
    queue.stop()


def test_stopped_while_it_starts(place: Place) -> None:
    queue = Queue(place.conf(), consume)
    thread = threading.Thread(target=queue.start)
    thread.start()
    wait_until(lambda: queue.is_running, "the start")
    queue.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_signals_are_the_program_s_again_afterwards(place: Place) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    queue = Queue(place.conf(), consume)
    # `start()` is entered in the main thread, where signals are its own.
    stopper = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stopper.start()
    queue.start()
    stopper.join()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_signal_handler_of_the_program_may_stop_it(place: Place) -> None:
    queue = Queue(place.conf(), consume)
    before = signal.signal(signal.SIGTERM, lambda *_: queue.stop())
    try:
        stopper = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopper.start()
        queue.start()
        stopper.join()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_wrong_at_the_start_is_raised(place: Place) -> None:
    missing = Queue(place.conf(topic="nosuchtopic"), consume)
    with pytest.raises(BrokerError, match=r"topic 'nosuchtopic' \(Topic\) does not exist"):
        missing.start()
    with pytest.raises(BrokerError, match="does not exist"), missing:
        pytest.fail("entered")
    assert not missing.is_running
    with pytest.raises(HandlerImportError, match="did you mean 'consume'"):
        Queue(place.conf(), f"{__name__}:konsume").start()


def test_an_engine_that_cannot_drain_says_so(place: Place) -> None:
    place.produce(1)
    queue = Queue(place.conf(drain_timeout="200ms"), consume_slowly)
    with pytest.raises(EngineEnded, match="DrainTimeout passed") as caught, queue:
        place.wait_handled(1)
    assert caught.value.exit_code is ExitCode.DRAIN_DEADLINE


def test_an_exception_of_the_program_is_not_hidden(place: Place) -> None:
    place.produce(1)
    queue = Queue(place.conf(drain_timeout="200ms"), consume_slowly)

    def program() -> None:
        with queue:
            place.wait_handled(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program()


def test_a_killed_coordinator_is_an_error_and_leaves_nothing(place: Place) -> None:
    queue = Queue(place.conf(), consume)

    def program() -> None:
        with queue:
            children = family(os.getpid())
            (coordinator,) = [p for p in children if "coordinator" in title(p)]
            assert len(children) >= 4
            coordinator.kill()
            wait_until(lambda: not queue.is_running, "its end")
            wait_until(lambda: gone(children), "the end of its children", timeout_s=2)

    with pytest.raises(EngineEnded, match=r"without a word \(signal 9\)"):
        program()


def test_records_of_all_processes_reach_the_program_s_logging(
    place: Place, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    place.produce(2)
    with Queue(place.conf(), complain, logging=True):
        place.wait_handled(2)
    found = {(r.name, r.levelname, getattr(r, "role", "")) for r in caplog.records}
    roles = {"processor 0.0", "processor 0.1"}
    assert ("kqmp.coordinator", "INFO", "coordinator") in found
    assert {("shop.orders", "WARNING", role) for role in roles} & found
    assert {("kqmp.processor", "ERROR", role) for role in roles} & found
    texts = [record.getMessage() for record in caplog.records]
    assert sorted(text for text in texts if text.startswith("odd")) == [
        "odd order 0",
        "odd order 1",
    ]
    printed = [r for r in caplog.records if r.getMessage().startswith("printed ")]
    assert sorted(r.getMessage() for r in printed) == ["printed 0", "printed 1"]
    assert {record.levelname for record in printed} == {"WARNING"}
    failures = [text for text in texts if text.startswith("handler failed")]
    assert len(failures) == 2
    assert any("ended after" in text and "failed 2" in text for text in texts)
    # Whole, however long, and nowhere else.
    assert all(text.endswith("x" * 100) for text in failures)
    assert capfd.readouterr().err == ""


def test_a_logger_s_level_is_the_children_s(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.produce(1)
    logger = logging.getLogger("test.queue")
    with caplog.at_level(logging.ERROR, "test.queue"):
        with Queue(place.conf(), complain, logging=logger):
            place.wait_handled(1)
        levels = {r.levelname for r in caplog.records if not r.getMessage().startswith("printed")}
    assert levels == {"ERROR"}


# ---- as a script


def test_a_script_stops_on_sigterm(
    place: Place, running: Callable[..., "subprocess.Popen[str]"]
) -> None:
    place.produce(1000)
    process = running()
    place.wait_handled(1000)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert stdout == "starts\nreturned\n"
    assert "Traceback" not in stderr
    assert sorted(place.handled()) == list(range(1000))


def test_a_script_without_its_guard_is_one_error(place: Place) -> None:
    source = SCRIPT.replace('if __name__ == "__main__":', "if True:")
    done = subprocess.run(
        place.script(source),
        cwd=place.path,
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    last = [line for line in done.stderr.splitlines() if line.startswith("kqmp.errors.")]
    assert len(last) == 1
    assert "HandlerImportError" in last[0]
    assert 'put it under `if __name__ == "__main__":`' in last[0]


@pytest.fixture
def terminal(place: Place) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def start(**env: str) -> Session:
        made.append(Session(place.script(), place.path, place.environment(**env)))
        return made[-1]

    yield start
    for session in made:
        session.close()


def test_ctrl_c_in_a_terminal_drains(place: Place, terminal: Callable[..., Session]) -> None:
    place.produce(100)
    session = terminal(PAUSE="0.01")
    wait_until(lambda: session.read(0.05) and len(place.handled()) > 20, "20 messages handled")
    session.type("\x03")
    assert session.wait() == 0
    assert "returned" in session.text
    assert "Traceback" not in session.text
    assert "uncommitted 0" in session.text
    assert len(place.handled()) == len(set(place.handled()))


def test_a_second_ctrl_c_ends_at_once(place: Place, terminal: Callable[..., Session]) -> None:
    place.produce(4)
    session = terminal(PAUSE="600")
    wait_until(lambda: session.read(0.05) and place.handled(), "a handler that sleeps")
    session.type("\x03")
    session.read_until("draining")
    session.type("\x03")
    assert session.wait(10) == 130
    assert "Traceback" not in session.text
    assert "returned" not in session.text


def test_a_killed_program_leaves_nothing(
    place: Place, running: Callable[..., "subprocess.Popen[str]"]
) -> None:
    place.produce(500)
    process = running()
    place.wait_handled(500)
    children = family(process.pid)
    assert len(children) >= 4
    process.kill()
    wait_until(lambda: gone(children), "the end of its engine", timeout_s=10)
    assert sorted(place.handled()) == list(range(500))


def test_a_program_killed_while_the_handler_is_imported_leaves_nothing(
    place: Place, running: Callable[..., "subprocess.Popen[str]"]
) -> None:
    source = SCRIPT.replace(
        "if __name__", 'if __name__ != "__main__": time.sleep(600)\nif __name__'
    )
    process = running(source)
    wait_until(lambda: "kqmp: probe" in map(title, family(process.pid)), "the probe")
    children = family(process.pid)
    process.kill()
    wait_until(lambda: gone(children), "the end of coordinator and probe", timeout_s=5)


def test_a_forked_child_does_not_keep_the_engine(
    place: Place, running: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = running(FORKS)
    assert process.stdout is not None
    assert process.stdout.readline() == "forked\n"
    children = psutil.Process(process.pid).children(recursive=True)
    engine = family(process.pid)
    assert len(engine) >= 4
    try:
        process.kill()
        wait_until(lambda: gone(engine), "the end of its engine", timeout_s=10)
        assert not gone(children)
    finally:
        for child in children:
            if is_alive(child):
                child.kill()
