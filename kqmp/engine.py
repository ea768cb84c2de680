"""`Queue`: an engine inside a program.

The coordinator is a process of its own, also here, so that the program may do what it likes: block,
fork, use threads, die. It holds one socket to it, whose end means drain and stop.
"""

import logging as std_logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import msgspec

from kqmp.config import Duration, KqConf
from kqmp.config.checks import shown
from kqmp.config.units import parse_duration_ms
from kqmp.errors import ConfigError, ExitCode, HandlerImportError, KqmpError
from kqmp.handler import HandlerRef, ref_of, refuse_in_processor
from kqmp.obs.logs import level_name
from kqmp.obs.metrics import Metrics
from kqmp.roles import control
from kqmp.roles.program import Engine, StopSignals, reader

#: Bounds of `metrics_interval`.
METRICS_LOW_MS: Final = 1000
METRICS_HIGH_MS: Final = 3_600_000
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Queue:
    """Consumes one topic with a handler on every core: go-queue's `kq.Queue`.

    `start()` blocks, as kq's does; `with Queue(...)` runs the engine beside the program. Both work
    from a script, from a test and from a thread. The handler is imported by name in processes of
    its own, so that a script that starts a queue does so under `if __name__ == "__main__":`.

    Example:
        >>> def consume(key: bytes, value: bytes): ...
        >>> if __name__ == "__main__":
        ...     conf = KqConf(brokers=["localhost:9092"], group="thumbs", topic="images")
        ...     Queue(conf, consume).start()
    """

    def __init__(  # noqa: PLR0913 - kq's options, by name only
        self,
        conf: KqConf,
        handler: Callable[..., Any] | object | str | None = None,
        *,
        on_error: Callable[..., Any] | str | None = None,
        metrics: Callable[[Metrics], object] | None = None,
        metrics_interval: Duration = 60,
        commit_interval: Duration | None = None,
        queue_capacity: int | None = None,
        max_wait: Duration | None = None,
        logging: "bool | std_logging.Logger" = False,
        log_level: int | str | None = None,
    ) -> None:
        """Check what can be checked here; start nothing.

        Args:
            conf: what to consume.
            handler: a function, a class or an object with `consume`, at the top level of a module,
                or its name as "module:name". None: `conf.handler` names it.
            on_error: a function at the top level of a module, or its name, which a processor calls
                with each message whose handler raised, and with the error, instead of logging it:
                kq's error handler. It may return `kqmp.DONE` (pass over, commit) or `kqmp.RETRY`
                (call the handler again after a back-off, meanwhile the lane waits), whatever
                ForceCommit says, or None. A method `on_error` of the handler does the same; this
                one wins. Messages then carry timestamp and headers also for a (key, value) handler,
                unless its object says otherwise with `columns`.
            metrics: called in this process, on a thread of its own, with the `Metrics` of each
                interval and with those of the rest at the end. What it raises is logged. Not called
                where `kqmp run` runs this queue, as there is no program then.
            metrics_interval: how often, from 1 s to 1 h.
            commit_interval: changes that field of `conf`, as kq's option of that name does.
            queue_capacity: the same.
            max_wait: the same.
            logging: where log records of all processes go. False: to the program's stderr. True:
                to the program's own `logging`, under their own names (those of kqmp begin with
                "kqmp"); what the processes print to stderr becomes a warning there. A Logger: the
                same, through that logger's handlers.
            log_level: records below it are dropped, those of the handler too. None: INFO, or with
                `logging` the level that logger has now.

        Raises:
            ConfigError: an argument is wrong.
            HandlerImportError: the handler cannot be found by name in another process.
        """
        given: object = conf
        if not isinstance(given, KqConf):
            msg = f"conf must be a KqConf, not {type(given).__name__}: make one with KqConf(...)"
            raise ConfigError(msg)
        if handler is None and not conf.handler:
            raise ConfigError("handler: missing; pass it to Queue, or set handler in KqConf")
        options = {
            "commit_interval": commit_interval,
            "queue_capacity": queue_capacity,
            "max_wait": max_wait,
        }
        changes = {name: value for name, value in options.items() if value is not None}
        self._conf = conf.replace(**changes) if changes else conf
        ref = ref_of(conf.handler if handler is None else handler)
        self._ref = msgspec.structs.replace(ref, on_error=_error_ref(on_error))
        _require_callable(metrics)
        self._metrics = metrics
        self._metrics_interval_ms = _interval_ms(metrics_interval) if metrics else 0
        self._logger = std_logging.getLogger("kqmp") if logging is True else (logging or None)
        said = conf.log.level
        if log_level is None and said is not None:
            log_level = level_name(said)
        self._level = _level(log_level, self._logger)
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show what it consumes, without secrets."""
        return f"<Queue {self._conf.name}: {self._conf.topic} -> {self._ref.name}>"

    @property
    def conf(self) -> KqConf:
        """What it consumes, and how."""
        return self._conf

    def __kqmp_queue__(self) -> tuple[HandlerRef, bytes]:
        """Show a probe what this queue holds: `kqmp run module:queue`."""
        return self._ref, self._conf.to_wire()

    def start(self) -> None:
        """Run the engine until it is stopped, and return after a clean stop.

        It stops by `stop()` from another thread, and, called from the main thread, by SIGTERM,
        SIGHUP or Ctrl-C, unless the program has handlers of its own for these. A second Ctrl-C
        stops at once.

        Raises:
            KqmpError: the engine could not be started or ended otherwise; the class and its
                `exit_code` say how.
            SystemExit: 130, after a second Ctrl-C.
            HandlerImportError: reached in a process that imports this script for its handler.
        """
        with StopSignals() as signals:
            engine = self.__kqmp_begin__(live=True)
            signals.follow(engine)
            error = self._finish(engine)
        if error is not None and error.exit_code is ExitCode.INTERRUPTED and signals.interrupts:
            # The user wants an end, not a traceback.
            sys.exit(int(ExitCode.INTERRUPTED))
        if error is not None:
            raise error

    def stop(self) -> None:
        """Drain and stop, and return when that is done. May be called from any thread.

        Does nothing if the engine does not run. Why it ended is told where it was started.
        """
        engine = self._engine
        if engine is not None:
            engine.stop()
            engine.ended.wait()

    @property
    def is_running(self) -> bool:
        """Whether the engine runs."""
        engine = self._engine
        return engine is not None and not engine.ended.is_set()

    def __enter__(self) -> "Queue":
        """Run the engine beside the program.

        Returns when the handlers are set up and the brokers have answered, so that what is wrong
        with either is raised here.

        Raises:
            KqmpError: as `start()`.
        """
        engine = self.__kqmp_begin__(live=False)
        try:
            engine.started.wait()
        except BaseException:
            self.stop()
            raise
        if engine.ended.is_set() and (error := self._finish(engine)) is not None:
            raise error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain and stop.

        Raises:
            KqmpError: the engine did not end by a clean stop (not raised over another exception).
        """
        engine = self._engine
        if engine is None:
            return
        self.stop()
        ended = self._finish(engine)
        if ended is not None and error is None:
            raise ended

    def __kqmp_begin__(
        self,
        *,
        live: bool,
        changed: Callable[[], None] | None = None,
        observed: Callable[[bytes], None] | None = None,
    ) -> Engine:
        """Start the engine and wait for nothing; for `ServiceGroup`, which follows several.

        With `observed` its pages are the caller's to serve.

        Raises:
            HandlerImportError: in a process that imports this script for its handler.
            WorkerStartError: the system refuses another process.
            RuntimeError: it runs already.
        """
        refuse_in_processor(self, "its handler")
        with self._lock:
            if self.is_running:
                raise RuntimeError(f"{self!r} is running already")
            pipes = None if self._logger is None else reader(self._logger)
            spec = control.EngineSpec(
                handler=msgspec.msgpack.encode(self._ref),
                conf=self._conf.to_wire(),
                live=live and pipes is None,
                logs_fd=-1 if pipes is None else pipes.theirs.fileno(),
                log_level=self._level,
                log_encoding=(self._conf.log.encoding or "plain") if pipes is None else "json",
                metrics_interval_ms=self._metrics_interval_ms,
                relays=observed is not None,
            )
            self._engine = Engine(spec, pipes, changed, self._metrics, observed)
            return self._engine

    def _finish(self, engine: Engine) -> KqmpError | None:
        if self._engine is engine:
            self._engine = None
        return engine.error()


def _error_ref(on_error: Callable[..., Any] | str | None) -> HandlerRef | None:
    if on_error is None:
        return None
    try:
        return ref_of(on_error)
    except HandlerImportError as error:
        text = str(error)
        raise HandlerImportError(f"on_error{text.removeprefix('handler')}") from None


def _interval_ms(interval: Duration) -> int:
    try:
        interval_ms = parse_duration_ms(interval)
    except (ValueError, TypeError):
        interval_ms = 0
    if not METRICS_LOW_MS <= interval_ms <= METRICS_HIGH_MS:
        text = f"metrics_interval: {shown(interval)} is not allowed; use a duration from 1s to 1h"
        raise ConfigError(text)
    return interval_ms


def _require_callable(metrics: object) -> None:
    if metrics is not None and not callable(metrics):
        msg = f"metrics: {shown(metrics)} cannot be called; pass a function of one argument"
        raise ConfigError(msg)


def _level(wanted: int | str | None, logger: std_logging.Logger | None) -> str:
    """Return the name of a level: the highest that drops nothing of what is wanted."""
    if isinstance(wanted, str):
        if wanted.upper() not in _LEVELS:
            raise ConfigError(f"log_level: {wanted!r} is not allowed; use one of {_LEVELS}")
        return wanted.upper()
    if wanted is None:
        wanted = std_logging.INFO if logger is None else logger.getEffectiveLevel()
    numbers = std_logging.getLevelNamesMapping()
    below = [name for name in _LEVELS if numbers[name] <= wanted]
    return below[-1] if below else "DEBUG"
