"""The probe, as the coordinator meets it: a process that answers, fails, dies, or hangs."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kqmp import KqConf
from kqmp.errors import ConfigError, HandlerImportError
from kqmp.handler import parse_target
from kqmp.roles import control, service
from kqmp.roles.channel import Channel, pair

pytestmark = pytest.mark.engine

CONF = KqConf(brokers="127.0.0.1:1", group="g", topic="t")

SOURCE = """
import os, time
from kqmp import KqConf, Queue, ServiceGroup
from kqmp.message import Message

def consume(key, value): ...
def see(message: Message): ...
class Bare:
    columns = ["headers"]
    def consume(self, message): ...
def make():
    print("made", flush=True)
    return queue
queue = Queue(KqConf(brokers="b:1", group="mine", topic="mine"), see)

class Web:
    def __repr__(self): return "<Web>"
    def start(self): ...
    def stop(self): ...

other = Queue(KqConf(brokers="b:1", group="other", topic="other", name="mine"), consume)
group, single, mixed, empty = (ServiceGroup() for _ in range(4))
for queue_ in (queue, other):
    group.add(queue_)
def make_group():
    return group
single.add(other)
mixed.add(queue)
mixed.add(Web())
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write a module `mqs`, which only the probe imports."""
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> Path:
        (tmp_path / "mqs.py").write_text(source)
        return tmp_path

    return write


def order(target: str, conf: KqConf | None = CONF, **more: object) -> service.Order:
    return service.Order(ref=parse_target(target), conf=conf, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "columns"),
    [
        ("mqs:consume", []),
        ("mqs:see", ["headers", "timestamp"]),
        ("mqs:Bare", ["headers"]),
    ],
)
def test_a_handler_s_columns_are_learned(
    module: Callable[[str], Path], target: str, columns: list[str]
) -> None:
    module(SOURCE)
    plan = service.plan_of(order(target), service.probe(order(target)))
    assert (plan.handler_name, plan.columns, plan.conf) == (target, columns, CONF)
    assert "mqs" not in sys.modules


@pytest.mark.parametrize("target", ["mqs:queue", "mqs:make"])
def test_a_queue_s_configuration_is_taken_and_changed(
    module: Callable[[str], Path], target: str
) -> None:
    module(SOURCE)
    asked = order(target, None, changes={"topic": "other", "kafka": {"check.crcs": "true"}})
    probed = service.probe(asked)
    conf = service.plan_of(asked, probed).conf
    assert (conf.group, conf.topic, conf.brokers) == ("mine", "other", ("b:1",))
    assert conf.kafka == {"check.crcs": "true"}
    assert probed.name == "mqs:see"
    with pytest.raises(ConfigError, match="leave -f FILE out"):
        service.plan_of(order(target, has_file=True), probed)


@pytest.mark.parametrize("target", ["mqs:group", "mqs:make_group"])
def test_a_group_s_queues_are_handed_back(module: Callable[[str], Path], target: str) -> None:
    module(SOURCE)
    asked = order(target, None, changes={"brokers": "c:1"}, log_level="WARNING")
    probed = service.probe(asked)
    assert [(one.name, one.columns) for one in probed.group] == [
        ("mqs:see", ["headers", "timestamp"]),
        ("mqs:consume", []),
    ]
    orders = service.members(asked, probed)
    confs = [one.conf for one in orders if one.conf is not None]
    assert [(conf.topic, conf.brokers) for conf in confs] == [
        ("mine", ("c:1",)),
        ("other", ("c:1",)),
    ]
    assert [one.label for one in orders] == ["mine", "mine-2"]
    assert [one.ref.target for one in orders] == ["mqs:see", "mqs:consume"]
    assert {one.log_level for one in orders} == {"WARNING"}
    assert [service.spec_of(one).label for one in orders] == ["mine", "mine-2"]
    with pytest.raises(ConfigError, match="leave -f FILE out"):
        service.members(order(target, has_file=True), probed)
    with pytest.raises(ConfigError, match="is a ServiceGroup, not a handler"):
        service.plan_of(asked, probed)


def test_a_group_of_one_queue_is_that_queue(module: Callable[[str], Path]) -> None:
    module(SOURCE)
    probed = service.probe(order("mqs:single", None))
    assert (probed.name, probed.group) == ("mqs:consume", [])
    assert KqConf.from_wire(probed.conf).topic == "other"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("mqs:mixed", r"mqs:mixed: the ServiceGroup holds <Web>, which runs only in a program"),
        ("mqs:empty", r"mqs:empty: the ServiceGroup is empty; add\(queue\) first"),
    ],
)
def test_a_group_of_others_runs_only_in_a_program(
    module: Callable[[str], Path], target: str, text: str
) -> None:
    module(SOURCE)
    with pytest.raises(HandlerImportError, match=text):
        service.probe(order(target, None))


def test_without_a_queue_what_was_missing_is_told(module: Callable[[str], Path]) -> None:
    module(SOURCE)
    asked = order("mqs:consume", None, missing=("Group: missing", "Topic: missing"))
    with pytest.raises(ConfigError, match="Group: missing\nTopic: missing"):
        service.plan_of(asked, service.probe(asked))


def test_an_import_that_hangs_ends_and_says_where(
    module: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    module("import time\ndef load_the_model():\n    time.sleep(600)\nload_the_model()\n")
    monkeypatch.setattr(service, "PROBE_S", 1.6)
    with pytest.raises(HandlerImportError, match=r"took more than 2 s.*setup\(context\)"):
        service.probe(order("mqs:consume"))
    assert "in load_the_model" in capfd.readouterr().err


def test_an_import_that_leaves_processes_and_threads_behind_is_no_wait(
    module: Callable[[str], Path],
) -> None:
    module(
        "import atexit, threading, time\n"
        "atexit.register(time.sleep, 600)\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "def consume(key, value): ...\n"
    )
    assert service.probe(order("mqs:consume")).name == "mqs:consume"


@pytest.mark.parametrize("word", [control.Stop(), control.Interrupt(1), None])
def test_a_program_that_stops_or_dies_meanwhile_ends_the_probe(
    module: Callable[[str], Path], word: control.Message | None
) -> None:
    module("import time\ntime.sleep(600)\n")
    ours, theirs = map(Channel, pair())
    try:
        if word is None:
            ours.close()
        else:
            ours.send(word)
        with pytest.raises(service._Stopped) as caught:
            service.probe(order("mqs:consume"), theirs)
        interrupted = isinstance(word, control.Interrupt)
        assert (caught.value.number == signal.SIGINT) is interrupted
    finally:
        ours.close()
        theirs.close()


def test_a_signal_meanwhile_ends_the_probe(module: Callable[[str], Path]) -> None:
    module("import time\ntime.sleep(600)\n")
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert service.run(order("mqs:consume")) == (0, "")
    timer.join()
    assert signal.getsignal(signal.SIGTERM) is before
