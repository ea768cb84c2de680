"""`ServiceGroup`: several queues, and whatever else starts and stops, as one: go-zero's, in Python.

What follows the services while they run is `kqmp.roles.group`.
"""

import asyncio
import contextlib
import inspect
import threading
from datetime import timedelta
from types import TracebackType
from typing import Final

from kqmp.config.units import parse_duration_ms
from kqmp.engine import Queue
from kqmp.errors import ConfigError, ExitCode, KqmpError
from kqmp.handler import refuse_in_processor
from kqmp.roles.group import Run, Service
from kqmp.roles.program import StopSignals

#: `stop_timeout` of a group without a queue.
STOP_S: Final = 30.0


class ServiceGroup:
    """Starts services together and stops them together: go-zero's `service.ServiceGroup`.

    A service is a `Queue` or anything with `start()` and `stop()`. As soon as one ends, by an
    error or, a queue, of its own accord, all are stopped: in the reverse of the order in which they
    were added, each after those added later have ended; queues that stand side by side drain at
    the same time. One deadline holds for all of that. May be started again after its end.

    `start()` blocks; `with` and `async with` (which does not block the event loop) run the group
    beside the program, such as a web server.

    Example:
        >>> if __name__ == "__main__":
        ...     group = ServiceGroup()
        ...     group.add(Queue(orders, on_order))
        ...     group.add(Queue(payments, on_payment))
        ...     group.start()
    """

    def __init__(self, *, stop_timeout: "str | float | timedelta | None" = None) -> None:
        """Make a group without services.

        Args:
            stop_timeout: the longest a stop of all lets them finish what they are at: text such as
                "30s", a `timedelta`, or seconds. A queue drains for its own DrainTimeout if that is
                less. None: the largest DrainTimeout of its queues, 30 s without any.

        Raises:
            ConfigError: `stop_timeout` is no duration above zero.
        """
        self._stop_s = None if stop_timeout is None else _seconds(stop_timeout)
        self._services: list[Queue | Service] = []
        self._run: Run | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show what is in it."""
        return f"<ServiceGroup: {', '.join(map(repr, self._services)) or 'empty'}>"

    def __kqmp_group__(self) -> list[Queue | Service]:
        """Show a probe what this group holds: `kqmp run module:group`."""
        return list(self._services)

    def add(self, service: "Queue | Service") -> None:
        """Add a service; it starts with the others, and stops before those added earlier.

        Raises:
            ConfigError: it has no `start()` and `stop()` that can be called from a thread, or is in
                the group already.
            RuntimeError: the group runs.
        """
        if service is self or any(service is one for one in self._services):
            raise ConfigError(f"add({service!r}): it is in the group already")
        if isinstance(service, type):
            raise ConfigError(f"add({service.__name__}): it is a class; add an object of it")
        for name in ("start", "stop"):
            method = getattr(service, name, None)
            if not callable(method):
                raise ConfigError(f"add({service!r}): it has no {name}(); a service has both")
            if inspect.iscoroutinefunction(method):
                msg = f"add({service!r}): {name}() is a coroutine function; give the group one"
                raise ConfigError(f"{msg} that runs it, such as by asyncio.run(...)")
        with self._lock:
            if self.is_running:
                raise RuntimeError(f"{self!r} is running: add services before its start")
            self._services.append(service)

    @property
    def is_running(self) -> bool:
        """Whether it runs: from its start until the last service has ended."""
        run = self._run
        return run is not None and run.is_ours and not run.ended.is_set()

    def start(self) -> None:
        """Run all services until they are stopped, and return after a clean stop of all.

        They stop by `stop()` from another thread, when one of them ends, and, called from the main
        thread, by SIGTERM, SIGHUP or Ctrl-C, unless the program has handlers of its own for these.
        A second Ctrl-C stops at once.

        Raises:
            Exception: the error of the service that failed first, at its start or later, as it
                raised it; notes say in which service that was, and what else went wrong.
            EngineEnded: a service did not stop in time (`exit_code` 7).
            SystemExit: 130, after a second Ctrl-C.
            ConfigError: the group is empty.
        """
        with StopSignals() as signals:
            run = self._begin(live=True)
            signals.follow(run)
        error = run.error
        code = error.exit_code if isinstance(error, KqmpError) else None
        is_given_up = code is ExitCode.DRAIN_DEADLINE and signals.interrupts > 1
        if is_given_up or (code is ExitCode.INTERRUPTED and signals.interrupts):
            # The user wants an end, not a traceback.
            raise SystemExit(int(ExitCode.INTERRUPTED))
        if error is not None:
            raise error

    def stop(self) -> None:
        """Stop all services, and return when that is done. May be called from any thread.

        Does nothing if the group does not run. What went wrong is told where it was started. From
        within a service's own `start()` or `stop()` it does not wait.
        """
        run = self._run
        if run is None or not run.is_ours:
            return
        run.stop()
        if not run.is_on_its_thread():
            run.ended.wait()

    def __enter__(self) -> "ServiceGroup":
        """Run all services beside the program.

        Returns when the queues have started, as for `Queue`, and the other services' `start()` has
        returned, or has run without an error for half a second. If one fails until then, all that
        were started are stopped and its error is raised here.

        Raises:
            Exception: as `start()`.
        """
        run = self._begin(live=False)
        try:
            run.started.wait()
        except BaseException:
            self.stop()
            raise
        if run.ended.is_set() and run.error is not None:
            raise run.error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop all services.

        Raises:
            Exception: as `start()`, also for what failed long ago (not raised over another one).
        """
        run, self._run = self._run, None
        if run is None or not run.is_ours:
            return
        run.stop()
        run.ended.wait()
        if run.error is not None and error is None:
            raise run.error

    async def __aenter__(self) -> "ServiceGroup":
        """As `with`, without blocking the event loop."""
        entering = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            if (run := self._run) is not None:
                run.stop()
            with contextlib.suppress(Exception):
                await entering
            await asyncio.to_thread(self.stop)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As `with`, without blocking the event loop, so that a web server answers meanwhile."""
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def _begin(self, *, live: bool) -> Run:
        refuse_in_processor(self, "a handler")
        with self._lock:
            if self.is_running:
                raise RuntimeError(f"{self!r} is running already")
            if not self._services:
                raise ConfigError("the ServiceGroup is empty: add(service) first")
            queues = [one for one in self._services if isinstance(one, Queue)]
            drain_s = [queue.conf.drain_timeout_ms / 1000 for queue in queues]
            run = self._run = Run(
                self._services,
                self._stop_s or max(drain_s, default=STOP_S),
                {n: one.conf for n, one in enumerate(self._services) if isinstance(one, Queue)},
                # Several status lines would tangle.
                live=live and len(queues) == 1,
            )
            # Not before it can be found: a service may stop its group at once.
            run.begin()
            return run


def _seconds(value: object) -> float:
    try:
        seconds = parse_duration_ms(value) / 1000
    except ValueError as error:
        raise ConfigError(f"stop_timeout: {value!r} is not allowed; use {error}") from None
    if seconds <= 0:
        raise ConfigError(f"stop_timeout: {value!r} is not allowed; use more than 0")
    return seconds
