"""The program's end of an engine: start its coordinator, follow it, stop it.

One thread watches the coordinator's socket, its end and, where the program wants them, the log
records of all its processes. Everything else may be called from any thread, and from a signal
handler.
"""

import contextlib
import logging
import os
import select
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Protocol

import msgspec

from kqmp.errors import (
    BrokerError,
    ConfigError,
    EngineEnded,
    ExitCode,
    HandlerImportError,
    KqmpError,
    WorkerStartError,
)
from kqmp.obs import logs
from kqmp.obs.metrics import Metrics
from kqmp.roles import control
from kqmp.roles.meter import Meter
from kqmp.roles.pipes import PipeReader
from kqmp.roles.spawn import FOR_THE_COORDINATOR, spawn

#: How late a signal may be heard that comes just before the main thread waits.
SIGNAL_S: Final = 0.2
#: After the coordinator's end the last records of its children are awaited for so long.
LAST_WORDS_S: Final = 1.0

_CODES: Final = {int(code): code for code in ExitCode}
_ERRORS: Final = {
    ExitCode.WORKER_START: WorkerStartError,
    ExitCode.HANDLER_IMPORT: HandlerImportError,
    ExitCode.BROKER: BrokerError,
}


class Engine:
    """A running coordinator, as the program sees it."""

    def __init__(
        self,
        spec: control.EngineSpec,
        pipes: PipeReader | None,
        changed: Callable[[], None] | None = None,
        metrics: Callable[[Metrics], object] | None = None,
        observed: Callable[[bytes], None] | None = None,
    ) -> None:
        """Start the coordinator; wait for nothing.

        Args:
            spec: what to run.
            pipes: reads the log records of all processes, and is ours from now on; its socket is
                `spec.logs_fd`. None = they go to the program's stderr.
            changed: called when it has `started` and when it has `ended`, on its own thread.
            metrics: called with those that the coordinator sends, on a thread of its own.
            observed: called with each snapshot that it sends, packed; must not block.

        Raises:
            WorkerStartError: the system refuses another process.
        """
        #: Handlers are set up and brokers have answered; set at the end, too.
        self.started = threading.Event()
        self.ended = threading.Event()
        self._pipes = pipes
        self._changed = changed or (lambda: None)
        self._last_word: control.Ended | None = None
        fds = [] if pipes is None else [pipes.theirs.fileno()]
        try:
            stderr = None if pipes is None else pipes.create
            self._child = spawn("kqmp.roles.queue_main", spec, fds, stderr=stderr)
        except BaseException:
            if pipes is not None:
                pipes.close()
            raise
        if pipes is not None:
            pipes.theirs.close()
        self._observed = observed or (lambda _: None)
        self._meter = None if metrics is None else Meter(metrics)
        _engines.add(self)
        threading.Thread(target=self._watch, name="kqmp-queue", daemon=True).start()

    def stop(self, within_ms: int | None = None) -> None:
        """Ask it to drain and stop; returns at once. Harmless if it has ended.

        Args:
            within_ms: it drains for no longer, if that is less than DrainTimeout.
        """
        self._tell(control.Stop() if within_ms is None else control.Stop(within_ms))

    def kill(self) -> None:
        """End it and its children at once, for want of a better end. Harmless if it has ended."""
        if not self.ended.is_set():
            self._child.kill()

    def interrupt(self, count: int) -> None:
        """Tell that the program received SIGINT for the `count`-th time: the second ends it."""
        self._tell(control.Interrupt(count))

    def error(self) -> KqmpError | None:
        """Return why it ended, None if that was a clean stop. Only when it has `ended`."""
        code, text = self.exit
        if code is ExitCode.CLEAN:
            return None
        if code is ExitCode.CONFIG:
            return ConfigError(*text.splitlines())
        kind = _ERRORS.get(code)
        return EngineEnded(text, code) if kind is None else kind(text)

    @property
    def exit(self) -> tuple[ExitCode, str]:
        """Exit code and reason. Only when it has `ended`."""
        if self._last_word is not None:
            return _CODES[self._last_word.exit_code], self._last_word.text
        how = f"signal {-self._code}" if self._code < 0 else f"exit code {self._code}"
        return ExitCode.GAVE_UP, f"the coordinator has ended without a word ({how})"

    def _tell(self, message: control.Message) -> None:
        with contextlib.suppress(OSError):
            self._child.channel.send(message)

    def _watch(self) -> None:
        """Follow the coordinator to its end. Runs on a thread of its own."""
        try:
            while (code := self._child.exit_code()) is None:
                self._wait()
                self._hear()
            self._code = code
            self._hear()
            if self._pipes is not None:
                self._pipes.drain(LAST_WORDS_S)
        finally:
            if self._pipes is not None:
                self._pipes.close()
            self._child.close()
            if self._meter is not None:
                self._meter.close()
            self.ended.set()
            self.started.set()
            self._changed()

    def _wait(self) -> None:
        fds = [self._child.pidfd]
        if not self._child.channel.closed:
            fds.append(self._child.channel.fileno())
        if self._pipes is not None:
            fds += self._pipes.fds()
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        poller.poll()

    def _hear(self) -> None:
        for message in self._child.channel.receive():
            if isinstance(message, control.Ended):
                self._last_word = message
            elif isinstance(message, control.Observed):
                self._observed(message.snapshot)
            elif isinstance(message, control.Metered):
                if self._meter is not None:
                    self._meter.put(msgspec.msgpack.decode(message.metrics, type=Metrics))
            elif isinstance(message, control.Started):
                self.started.set()
                self._changed()
        if self._pipes is not None:
            self._pipes.read()

    def forget_in_fork(self) -> None:
        """In a forked child of the program: let go of the socket.

        A child that held it would keep the engine running after the program's death.
        """
        self._child.channel.close()
        self.ended.set()
        self.started.set()


_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.forget_in_fork()


os.register_at_fork(after_in_child=_after_fork)


def reader(logger: logging.Logger) -> PipeReader:
    """Return what hands the records of all processes to the program's `logging`."""
    return PipeReader(lambda line: logs.relay(line, logger))


class Stoppable(Protocol):
    """What signals can stop: an `Engine`, or several as one. Called from signal handlers."""

    ended: threading.Event

    def stop(self) -> None:
        """Begin to drain and stop; returns at once."""

    def interrupt(self, count: int) -> None:
        """SIGINT came for the `count`-th time."""


class StopSignals:
    """While it is entered in the main thread, INT, TERM and HUP stop what it follows.

    A signal for which the program has a handler of its own stays the program's.
    """

    def __init__(self) -> None:
        """Take no signal yet."""
        self.interrupts = 0
        self._stop = False
        self._followed: Stoppable | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        """Take the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in FOR_THE_COORDINATOR:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def follow(self, engine: Stoppable) -> None:
        """Wait for its end; stop it on a signal, also on one that came before.

        A signal that comes after Python has looked for signals and before the wait interrupts
        nothing, and its handler would run only after the wait: so no wait is long. An exception,
        such as the SystemExit of a handler that the program has for SIGTERM, goes on when what was
        followed has drained and ended.
        """
        self._followed = engine
        try:
            self._pass_on()
            while not engine.ended.wait(SIGNAL_S):
                pass
        except BaseException:
            engine.stop()
            engine.ended.wait()
            raise

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self.interrupts += 1
        else:
            self._stop = True
        self._pass_on()

    def _pass_on(self) -> None:
        if self._followed is None:
            return
        if self._stop:
            self._followed.stop()
        if self.interrupts:
            self._followed.interrupt(self.interrupts)
