"""One run of a `ServiceGroup`: its services start together and stop as one.

A thread of its own follows the members, and stops them all when one ends, or when it is told to.
What it is told comes as flags and a ring of its bell, which a signal handler may do at any moment.
Runs in the user's program.
"""

import contextlib
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from kqmp.config import KqConf
from kqmp.errors import EngineEnded, ExitCode
from kqmp.roles.exports import SharedPages
from kqmp.roles.program import Engine
from kqmp.roles.service import unique

#: A `start()` that has run for so long without an error is one that blocks, and has started.
BLOCKS_S: Final = 0.5
#: When the deadline has passed each service still gets so long, once told; a queue, which then
#: commits what is finished and leaves its group, gets more.
LATE_S: Final = 1.0
LATE_QUEUE_S: Final = 20.0

#: Name of the method by which a `Queue`, which this layer does not know, is started:
#: `(*, live: bool, changed: Callable[[], None], observed: Observed | None) -> Engine`.
BEGIN_METHOD: Final = "__kqmp_begin__"

#: Takes the packed snapshots of a queue whose pages are not its own to serve.
Observed = Callable[[bytes], None]


class Service(Protocol):
    """What a group starts and stops."""

    def start(self) -> object:
        """Work until `stop()`, or begin to and return. Called on a thread of its own."""

    def stop(self) -> object:
        """End it, and return when that is done or under way. Called on a thread of its own."""


class _Member:
    """A service in a run."""

    #: How long its end is waited for when the time for all is over.
    late_s = LATE_S

    def __init__(self, service: Service, changed: Callable[[], None]) -> None:
        self.name = repr(service)
        #: What it failed with; known when it `is_ended`.
        self.error: BaseException | None = None
        self.threads: list[threading.Thread] = []
        self._service = service
        self._changed = changed
        self._begun_s = 0.0
        self._returned: set[str] = set()

    def begin(self) -> None:
        """Start it; returns at once."""
        self._begun_s = time.monotonic()
        self._call("start")

    def _call(self, name: str) -> None:
        def work() -> None:
            try:
                getattr(self._service, name)()
            except BaseException as error:  # noqa: BLE001 - it is the group's error
                self.error = self.error or error
            self._returned.add(name)
            self._changed()

        thread = threading.Thread(target=work, name=f"kqmp-group {name}", daemon=True)
        self.threads.append(thread)
        try:
            thread.start()
        except RuntimeError as error:  # no further thread can be had
            self.threads.remove(thread)
            self.error = self.error or error
            self._changed()

    @property
    def is_started(self) -> bool:
        return bool(self._returned) or time.monotonic() - self._begun_s >= BLOCKS_S

    @property
    def is_ended(self) -> bool:
        """Whether it failed, or both its methods have returned."""
        return self.error is not None or self._returned >= {"start", "stop"}

    def stop(self, _within_s: float) -> None:
        """Tell it to stop; returns at once."""
        self._call("stop")

    def interrupt(self, _count: int) -> None:
        """Make haste: it has no way to but to be left alone."""

    def give_up(self, stop_s: float) -> None:
        """Its time is over."""
        self.error = EngineEnded(
            f"{self.name} did not stop within {stop_s:g} s", ExitCode.DRAIN_DEADLINE
        )


class _QueueMember(_Member):
    """A queue in a run: no thread waits for it, its engine tells."""

    late_s = LATE_QUEUE_S

    def __init__(
        self, service: Any, changed: Callable[[], None], observed: Observed | None, *, live: bool
    ) -> None:
        super().__init__(service, changed)
        self._live = live
        self._observed = observed
        self._engine: Engine | None = None

    def begin(self) -> None:
        try:
            begin = getattr(self._service, BEGIN_METHOD)
            self._engine = begin(live=self._live, changed=self._changed, observed=self._observed)
        except Exception as error:  # noqa: BLE001 - it is the group's error
            self.error = error

    @property
    def is_started(self) -> bool:
        return self._engine is not None and self._engine.started.is_set()

    @property
    def is_ended(self) -> bool:
        engine = self._engine
        if engine is None or not engine.ended.is_set():
            return self.error is not None
        self.error = self.error or engine.error()
        return True

    def stop(self, within_s: float) -> None:
        if self._engine is not None:
            self._engine.stop(math.ceil(within_s * 1000))

    def interrupt(self, count: int) -> None:
        if self._engine is not None:
            self._engine.interrupt(count)

    def give_up(self, _stop_s: float) -> None:
        """Its coordinator stands still."""
        if self._engine is not None:
            self._engine.kill()
            self._engine.ended.wait()


def is_queue(service: object) -> bool:
    """Tell whether a service is a `Queue`."""
    return not isinstance(service, type) and hasattr(service, BEGIN_METHOD)


class Run:
    """One run of a group. `stop` and `interrupt` may be called from anywhere, signals included."""

    def __init__(
        self,
        services: Sequence[Service],
        stop_s: float,
        confs: Mapping[int, KqConf],
        *,
        live: bool,
    ) -> None:
        """Start nothing yet, but take the ports of the pages that queues share.

        Args:
            services: in the order in which they were added.
            stop_s: how long they all have to stop.
            confs: of the queues, by their places among the services.
            live: whether queues may draw a status line, if their stderr is a terminal.

        Raises:
            ConfigError: of pages that they share, a package is missing, or a host is wrong.
            WorkerStartError: the same, a port is in use.
        """
        #: All have started; set at the end, too.
        self.started = threading.Event()
        self.ended = threading.Event()
        #: Why it ended, None if that was a clean stop. Only when it has `ended`.
        self.error: BaseException | None = None
        self._stop_s = stop_s
        self._stop_wanted = False
        self._interrupts = 0
        # Its put() is reentrant, which nothing that holds a lock is.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        names = dict(zip(confs, unique([conf.name for conf in confs.values()]), strict=True))
        self._pages = SharedPages({names[place]: conf for place, conf in confs.items()})
        self._members: list[_Member] = []
        for place, one in enumerate(services):
            if is_queue(one):
                name = names.get(place, "")
                observed = partial(self._pages.show, name) if name in self._pages.names else None
                self._members.append(_QueueMember(one, self._ring, observed, live=live))
            else:
                self._members.append(_Member(one, self._ring))
        self._pid = os.getpid()

    def begin(self) -> None:
        """Start the services; wait for nothing."""
        threading.Thread(target=self._work, name="kqmp-group", daemon=True).start()

    @property
    def is_ours(self) -> bool:
        """Whether this process runs it; false in a forked child of the program."""
        return os.getpid() == self._pid

    def is_on_its_thread(self) -> bool:
        """Tell whether the caller is a service of it."""
        current = threading.current_thread()
        return any(current in member.threads for member in self._members)

    def stop(self) -> None:
        """Begin to stop; returns at once."""
        self._stop_wanted = True
        self._ring()

    def interrupt(self, count: int) -> None:
        """SIGINT came for the `count`-th time: the first stops, the second ends at once."""
        self._interrupts = max(self._interrupts, count)
        self.stop()

    def _ring(self) -> None:
        self._bell.put(None)

    def _wait(self, timeout_s: float | None) -> None:
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=timeout_s)

    def _work(self) -> None:
        """Follow the services from their start to their end. Runs on a thread of its own."""
        try:
            begun = self._start()
            while not (self._stop_wanted or any(member.is_ended for member in begun)):
                if not self.started.is_set() and all(member.is_started for member in begun):
                    self.started.set()
                self._wait(None if self.started.is_set() else BLOCKS_S / 10)
            failed = self._failed(begun)
            self._stop_all(begun)
            failed += [member for member in self._failed(begun) if member not in failed]
            self.error = _error(failed)
        except BaseException as error:  # noqa: BLE001 - raised where the group was started
            self.error = error
        finally:
            with contextlib.suppress(OSError):
                self._pages.close()
            self.ended.set()
            self.started.set()

    def _start(self) -> list[_Member]:
        """Start the members, up to one that cannot be."""
        begun: list[_Member] = []
        for member in self._members:
            if self._stop_wanted:
                break
            begun.append(member)
            member.begin()
            if member.is_ended:
                break
        return begun

    @staticmethod
    def _failed(begun: Iterable[_Member]) -> list[_Member]:
        return [member for member in begun if member.is_ended and member.error is not None]

    def _stop_all(self, begun: Sequence[_Member]) -> None:
        deadline_s = time.monotonic() + self._stop_s
        for step in _steps(begun):
            for member in step:
                if not member.is_ended:
                    member.stop(max(0.0, deadline_s - time.monotonic()))
            self._await(step, max(deadline_s, time.monotonic()) + step[0].late_s)
            if self._interrupts > 1:
                deadline_s = 0.0

    def _await(self, step: Sequence[_Member], until_s: float) -> None:
        """Wait for the end of some members, up to a time; a second interrupt shortens it."""
        is_told = False
        while left := [member for member in step if not member.is_ended]:
            if self._interrupts > 1 and not is_told:
                is_told = True
                until_s = min(until_s, time.monotonic() + step[0].late_s)
                for member in self._members:
                    member.interrupt(self._interrupts)
            left_s = until_s - time.monotonic()
            if left_s > 0:
                self._wait(left_s)
                continue
            for member in left:
                member.give_up(self._stop_s)


def _steps(members: Sequence[_Member]) -> list[list[_Member]]:
    """Return who stops together, in order: last first, with queues side by side as one step."""
    steps: list[list[_Member]] = []
    for member in reversed(members):
        if isinstance(member, _QueueMember) and steps and isinstance(steps[-1][0], _QueueMember):
            steps[-1].append(member)
        else:
            steps.append([member])
    return steps


def _error(failed: Sequence[_Member]) -> BaseException | None:
    """Return the first error, with notes on where it was and what else went wrong."""
    if not failed:
        return None
    first = failed[0].error
    assert first is not None
    first.add_note(f"in {failed[0].name} of a ServiceGroup")
    for member in failed[1:]:
        if member.error is not first:
            first.add_note(f"then {member.name}: {type(member.error).__name__}: {member.error}")
    return first
