"""The parent of several sections, with coordinators that only tell: who is stopped, what code."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from kqmp import KqConf
from kqmp.errors import ExitCode, WorkerStartError
from kqmp.obs.output import OutputWatch
from kqmp.roles import control, parent

CONF = KqConf(brokers="127.0.0.1:1", group="g", topic="t", drain_timeout="10m")


class FakeChild:
    """A coordinator as the parent sees it. Says what it is given to say, ends when it is told."""

    def __init__(self, spec: control.EngineSpec) -> None:
        self.label = spec.label
        #: Readable from the start: the parent looks at once, and at every turn.
        self.pidfd = os.eventfd(1)
        self.channel: Any = self
        self.closed = False
        self.says: list[control.Message] = []
        self.told: list[control.Message] = []
        self.code: int | None = None
        self.is_killed = False
        self.is_deaf = False
        #: What happens when the parent first looks.
        self.first: Callable[[FakeChild], None] = lambda _: None

    def end(self, code: ExitCode, text: str = "") -> None:
        self.says.append(control.Ended(int(code), text))
        self.code = int(code)

    # ---- a Channel

    def fileno(self) -> int:
        return self.pidfd

    def send(self, message: control.Message) -> bool:
        self.told.append(message)
        if isinstance(message, control.Interrupt) and message.count > 1:
            self.end(ExitCode.INTERRUPTED)
        elif not self.is_deaf and self.code is None:
            self.end(ExitCode.CLEAN)
        return True

    def receive(self) -> list[control.Message]:
        said, self.says = self.says, []
        return said

    # ---- a Child

    def exit_code(self) -> int | None:
        first, self.first = self.first, lambda _: None
        first(self)
        return self.code

    def kill(self) -> None:
        self.is_killed = True

    def reap(self) -> int:
        self.close()
        return -9

    def close(self) -> None:
        os.close(self.pidfd)


class Watcher(parent.Watcher):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def hear(self, section: str, message: control.Message) -> None:
        self.told.append((section, message))

    def ended(self, section: str) -> None:
        self.told.append(f"{section} ended")

    def close(self) -> None:
        self.told.append("closed")


Made = dict[str, FakeChild]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """The children that the parent has started, by label."""
    children: Made = {}

    def spawn(module: str, spec: control.EngineSpec) -> FakeChild:
        assert module == "kqmp.roles.queue_main"
        children[spec.label] = FakeChild(spec)
        children[spec.label].first = script.get(spec.label, lambda _: None)
        children[spec.label].is_deaf = spec.label in deaf
        return children[spec.label]

    monkeypatch.setattr(parent, "spawn", spawn)
    monkeypatch.setattr(parent, "setproctitle", lambda _: None)
    script.clear()
    deaf.clear()
    return children


#: What each does first, and who does not end when it is told.
script: dict[str, Callable[[FakeChild], None]] = {}
deaf: set[str] = set()


def run(watcher: parent.Watcher | None = None) -> tuple[ExitCode, str]:
    specs = [
        control.EngineSpec(
            handler=b"",
            conf=CONF.to_wire(),
            live=False,
            logs_fd=-1,
            log_level="INFO",
            log_encoding="plain",
            label=label,
        )
        for label in "ABC"
    ]
    return parent.run(specs, watcher)


def test_one_that_fails_ends_all_with_its_code(made: Made) -> None:
    script["B"] = lambda child: child.end(ExitCode.BROKER, "no such topic")
    assert run() == (ExitCode.BROKER, "B: no such topic")
    assert made["A"].told == made["C"].told == [control.Stop()]
    assert not any(child.is_killed for child in made.values())


def test_the_first_that_fails_decides(made: Made) -> None:
    deaf.add("A")
    script["C"] = lambda child: child.end(ExitCode.HANDLER_IMPORT, "no module")

    def late(child: FakeChild) -> None:
        child.first = lambda child: child.end(ExitCode.DRAIN_DEADLINE, "late")

    script["A"] = late
    assert run() == (ExitCode.HANDLER_IMPORT, "C: no module")


def test_one_that_ends_cleanly_ends_all_cleanly(made: Made) -> None:
    script["A"] = lambda child: child.end(ExitCode.CLEAN)
    assert run() == (ExitCode.CLEAN, "")
    assert made["B"].told == [control.Stop()]


def test_one_that_is_killed_has_given_up(made: Made) -> None:
    script["B"] = lambda child: setattr(child, "code", -9)
    code, reason = run()
    assert code is ExitCode.GAVE_UP
    assert reason == "B: the coordinator has ended without a word (signal 9)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all(made: Made, number: int) -> None:
    script["C"] = lambda _: os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    assert run() == (ExitCode.CLEAN, "")
    assert all(child.told == [control.Stop()] for child in made.values())
    assert signal.getsignal(number) is before


def test_interrupts_are_passed_on_with_their_count(made: Made) -> None:
    deaf.update("ABC")
    script["A"] = lambda _: os.kill(os.getpid(), signal.SIGINT)

    def again(child: FakeChild) -> None:
        child.first = again if not child.told else lambda _: os.kill(os.getpid(), signal.SIGINT)

    script["B"] = again
    assert run() == (ExitCode.INTERRUPTED, "A: ")
    for child in made.values():
        assert child.told == [control.Interrupt(1), control.Interrupt(2)]


def test_what_does_not_stop_in_time_is_killed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "LEAVE_S", -600.0)
    deaf.add("B")
    script["A"] = lambda child: child.end(ExitCode.CLEAN)
    assert run() == (ExitCode.DRAIN_DEADLINE, "B: it did not stop in time")
    assert [label for label, child in made.items() if child.is_killed] == ["B"]


def test_a_watcher_hears_what_the_parent_does_not_need(made: Made) -> None:
    watcher = Watcher()

    def talk(child: FakeChild) -> None:
        child.says += [control.Started(), control.Joined(3)]
        child.first = lambda child: child.end(ExitCode.CLEAN)

    script["B"] = talk
    run(watcher)
    assert watcher.told[0] == ("B", control.Joined(3))
    assert set(watcher.told[1:-1]) == {"A ended", "B ended", "C ended"}
    assert watcher.told[-1] == "closed"


def test_when_nobody_reads_the_output_all_drain(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OutputWatch, "is_gone", lambda _: True)
    assert run() == (ExitCode.CLEAN, "")
    assert all(child.told == [control.Stop()] for child in made.values())


def test_one_that_cannot_be_started_leaves_none(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = vars(parent)["spawn"]

    def refuse(module: str, spec: control.EngineSpec) -> Any:
        if spec.label == "C":
            raise WorkerStartError("no more processes")
        return start(module, spec)

    monkeypatch.setattr(parent, "spawn", refuse)
    watcher = Watcher()
    with pytest.raises(WorkerStartError, match="no more"):
        run(watcher)
    assert made["A"].is_killed
    assert made["B"].is_killed
    assert watcher.told == ["closed"]
