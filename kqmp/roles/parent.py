"""The parent of several engines: what `kqmp run` of a file with several consumers is.

Each section has a coordinator of its own, started as a `Queue` starts one. The parent imports no
handler and no librdkafka; it passes signals on, hears the coordinators, and ends them as one: when
one ends, the others drain. Its own death, kill -9 too, ends all of them at once.
"""

import logging
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from setproctitle import setproctitle

from kqmp.config import KqConf
from kqmp.errors import ExitCode
from kqmp.obs.output import OutputWatch
from kqmp.roles import control
from kqmp.roles.spawn import FOR_THE_COORDINATOR, Child, spawn

#: Longest time between two looks at what sends no event: whether anybody reads our output.
TURN_S: Final = 0.5
#: Beyond the largest DrainTimeout a coordinator gets so long to commit, leave and end.
LEAVE_S: Final = 20.0

_CODES: Final = {int(code): code for code in ExitCode}

log = logging.getLogger("kqmp.parent")


class Watcher:
    """What a parent does with its sections besides running them; this one does nothing.

    All calls come from the parent's one thread, and must not block it.
    """

    def hear(self, section: str, message: control.Message) -> None:
        """A coordinator has sent a message that is not about its start or end."""

    def ended(self, section: str) -> None:
        """A coordinator has ended."""

    def turn(self, now_s: float) -> None:
        """Time has passed: called at least each `TURN_S`, with the monotonic time."""

    def close(self) -> None:
        """All have ended."""


class _Section:
    """A coordinator under the parent."""

    def __init__(self, spec: control.EngineSpec) -> None:
        self.spec = spec
        self.label = spec.label
        self.child: Child | None = None
        self.started = False
        self.word: control.Ended | None = None
        #: How it ended; None before.
        self.code: ExitCode | None = None
        self.reason = ""

    def start(self) -> None:
        self.child = spawn("kqmp.roles.queue_main", self.spec)

    def tell(self, message: control.Message) -> None:
        if self.child is not None:
            self.child.channel.send(message)

    def bury(self, code: int) -> None:
        """Note how it ended."""
        assert self.child is not None
        self.child.close()
        self.child = None
        if self.word is not None:
            self.code, self.reason = _CODES[self.word.exit_code], self.word.text
            return
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.code = ExitCode.GAVE_UP
        self.reason = f"the coordinator has ended without a word ({how})"


class Parent:
    """Runs several engines as one. Create and `run` it in the main thread."""

    def __init__(self, specs: Sequence[control.EngineSpec], watcher: Watcher) -> None:
        """Start nothing yet.

        Args:
            specs: what to run, each with a label of its own.
            watcher: is told what the parent does not need itself; closed at the end.
        """
        self.exit_code = ExitCode.CLEAN
        self.reason = ""
        self._sections = [_Section(spec) for spec in specs]
        self._watcher = watcher
        self._output = OutputWatch()
        self._signals: list[int] = []
        self._interrupts = 0
        self._is_stopping = False
        self._deadline_s = 0.0

    def run(self) -> ExitCode:
        """Run all until they are stopped, or one ends.

        Returns:
            The exit code of the first that did not end cleanly.

        Raises:
            WorkerStartError: a coordinator could not be started; the others were ended.
        """
        with self._waking_signals() as wake:
            try:
                for section in self._sections:
                    section.start()
                while any(section.child is not None for section in self._sections):
                    self._turn(wake)
            finally:
                self._end_all()
                self._watcher.close()
        self._tell_ends()
        return self.exit_code

    @contextmanager
    def _waking_signals(self) -> Iterator[socket.socket]:
        """Have INT, TERM and HUP wake the loop; handlers only take note."""
        wake, end = socket.socketpair()
        wake.setblocking(False)
        end.setblocking(False)

        def take(number: int, _frame: object) -> None:
            self._signals.append(number)

        before = {number: signal.signal(number, take) for number in FOR_THE_COORDINATOR}
        old = signal.set_wakeup_fd(end.fileno(), warn_on_full_buffer=False)
        try:
            yield wake
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            wake.close()
            end.close()

    def _turn(self, wake: socket.socket) -> None:
        self._wait(wake)
        self._act_on_signals()
        for section in self._sections:
            if section.child is not None:
                self._look_at(section, section.child)
        now_s = time.monotonic()
        if not self._is_stopping and self._output.is_gone():
            log.info("nobody reads the output any more: draining")
            self._stop()
        if self._is_stopping and now_s >= self._deadline_s:
            self._end_all()
        self._watcher.turn(now_s)

    def _wait(self, wake: socket.socket) -> None:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        for section in self._sections:
            if section.child is not None:
                poller.register(section.child.pidfd, select.POLLIN)
                if not section.child.channel.closed:
                    poller.register(section.child.channel, select.POLLIN)
        poller.poll(TURN_S * 1000)
        try:
            while wake.recv(64):
                pass
        except BlockingIOError:
            pass

    def _act_on_signals(self) -> None:
        received, self._signals = self._signals, []
        for number in received:
            if number == signal.SIGINT:
                self._interrupts += 1
                # A terminal signals the coordinators as well: the larger count counts.
                self._stop(control.Interrupt(self._interrupts))
            elif not self._is_stopping:
                log.info("%s: draining", signal.Signals(number).name)
                self._stop()

    def _stop(self, message: control.Message | None = None) -> None:
        """Have all drain and end; a further interrupt makes haste."""
        if not self._is_stopping:
            self._is_stopping = True
            drain_ms = max(_drain_ms(section.spec) for section in self._sections)
            self._deadline_s = time.monotonic() + drain_ms / 1000 + LEAVE_S
        for section in self._sections:
            section.tell(message or control.Stop())

    def _look_at(self, section: _Section, child: Child) -> None:
        code = child.exit_code()
        for message in child.channel.receive():
            if isinstance(message, control.Ended):
                section.word = message
            elif isinstance(message, control.Started):
                self._started(section)
            else:
                self._watcher.hear(section.label, message)
        if code is not None:
            self._bury(section, code)

    def _started(self, section: _Section) -> None:
        section.started = True
        if all(one.started for one in self._sections):
            log.info("all %d sections have started", len(self._sections))

    def _bury(self, section: _Section, code: int) -> None:
        section.bury(code)
        assert section.code is not None
        self._watcher.ended(section.label)
        if section.code is not ExitCode.CLEAN and self.exit_code is ExitCode.CLEAN:
            self.exit_code = section.code
            self.reason = f"{section.label}: {section.reason}"
        if section.word is None:
            # It could not say so itself.
            log.error("section %s: %s", section.label, section.reason)
        if not self._is_stopping:
            if len(self._sections) > 1:
                how = f"section {section.label} has ended (exit code {int(section.code)})"
                log.log(
                    logging.ERROR if section.code else logging.INFO, "%s: stopping the others", how
                )
            self._stop()

    def _end_all(self) -> None:
        """Kill what does not end by itself."""
        for section in self._sections:
            if section.child is not None:
                if self._is_stopping:
                    log.error("section %s did not stop in time: killed", section.label)
                section.child.kill()
                section.child.reap()
                section.child = None
                section.code = ExitCode.DRAIN_DEADLINE
                section.reason = "it did not stop in time"
                if self.exit_code is ExitCode.CLEAN:
                    self.exit_code = section.code
                    self.reason = f"{section.label}: {section.reason}"

    def _tell_ends(self) -> None:
        """Say how each section ended, and what that makes of all."""
        codes = ", ".join(f"{one.label} {int(one.code or 0)}" for one in self._sections)
        log.info("ended, exit code %d (%s)", int(self.exit_code), codes)


def _drain_ms(spec: control.EngineSpec) -> int:
    return KqConf.from_wire(spec.conf).drain_timeout_ms


def run(
    specs: Sequence[control.EngineSpec], watcher: Watcher | None = None
) -> tuple[ExitCode, str]:
    """Run several engines in this process's children, until they are stopped or one ends.

    Caller: `kqmp run`, from the main thread.

    Args:
        specs: what to run; each label tells a section in titles and logs.
        watcher: what else to do with what the coordinators send.

    Returns:
        The exit code of the first that did not end cleanly, and why; all is logged.

    Raises:
        WorkerStartError: a coordinator could not be started.
    """
    setproctitle(f"kqmp: parent {', '.join(spec.label for spec in specs)}")
    parent = Parent(specs, watcher or Watcher())
    code = parent.run()
    return code, parent.reason
