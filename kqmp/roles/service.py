"""One engine as the work of a whole process: probe the handler, run the coordinator, report.

`kqmp run` is such a process, and so is the coordinator that a `Queue` starts. Nothing here imports
the handler or librdkafka.
"""

import logging
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import msgspec

from kqmp.config import KqConf
from kqmp.errors import ConfigError, ExitCode, HandlerImportError, KqmpError
from kqmp.roles import control
from kqmp.roles.coordinator import Coordinator
from kqmp.roles.spawn import Child, child_environment, spawn
from kqmp.roles.tree import Plan

#: How long the probe may take: it says by itself where it hangs a second before.
PROBE_S: Final = 60.0
#: A probe that has answered gets this long to end by itself.
PROBE_END_S: Final = 1.0

log = logging.getLogger("kqmp.coordinator")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is asked to run."""

    #: msgpack of a `HandlerRef`, and its text for messages.
    handler: bytes
    target: str
    #: None: the handler must turn out to be a `Queue`, which brings its own.
    conf: KqConf | None
    #: What the probe's configuration lacks if `conf` is None and TARGET is no `Queue`.
    missing: tuple[str, ...] = ()
    #: Fields to change in the configuration of a `Queue`.
    changes: dict[str, object] = {}
    #: JSON of the section and of the whole parsed file.
    section: bytes = b"{}"
    document: bytes = b"{}"
    #: Lines of the banner that came up while the configuration was read.
    notes: tuple[str, ...] = ()
    log_level: str = "INFO"
    log_encoding: Literal["plain", "json"] = "plain"


def run(order: Order, parent: control.Channel | None = None) -> tuple[ExitCode, str]:
    """Run an engine until it is stopped or ends; call it from the main thread.

    Args:
        order: what to run.
        parent: socket of the program that started this process, if one did.

    Returns:
        The exit code and, if it is not clean, the reason, which was logged.
    """
    try:
        with _stopped_early():
            plan = _plan(order, _probe(order))
            coordinator = Coordinator(plan, parent)
    except _Stopped as stopped:
        code = ExitCode.INTERRUPTED if stopped.number == signal.SIGINT else ExitCode.CLEAN
        return code, "stopped before the start"
    except KqmpError as error:
        log.error("%s", error)
        return error.exit_code, str(error)
    code = coordinator.run()
    return code, coordinator.reason


class _Stopped(BaseException):
    """A signal came before the coordinator ran."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _stopped_early() -> Iterator[None]:
    """Have a signal that means stop raise `_Stopped`."""

    def raise_it(number: int, _frame: object) -> None:
        raise _Stopped(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, raise_it) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _probe(order: Order) -> control.Probed:
    """Have a short-lived process import the handler.

    Raises:
        HandlerImportError: it cannot be imported or used, or importing it takes too long.
    """
    spec = control.ProbeSpec(order.handler, order.log_level, order.log_encoding)
    child = spawn("kqmp.roles.probe", spec, env=child_environment())
    try:
        answer = _answer(child)
    finally:
        _end(child)
    match answer:
        case control.Probed():
            return answer
        case control.Failed(_, text):
            raise HandlerImportError(text)
        case None:
            msg = (
                f"handler {order.target}: importing it took more than {PROBE_S:.0f} s; what it was"
                " doing stands above. Load what is slow in setup(context), which has no such limit"
            )
            raise HandlerImportError(msg)
        case int(code):
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            msg = f"handler {order.target}: importing it ended the process ({how})"
            raise HandlerImportError(msg)


def _answer(child: Child) -> control.Probed | control.Failed | int | None:
    """Return the probe's word, its exit code if it ended without one, None if time is up."""
    deadline = time.monotonic() + PROBE_S
    while (left := deadline - time.monotonic()) > 0:
        for message in child.channel.wait(min(left, 0.5)):
            if isinstance(message, control.Probed | control.Failed):
                return message
        if child.channel.closed:
            _wait(child, PROBE_END_S)
        code = child.exit_code()
        if code is not None:
            return code
    return None


def _wait(child: Child, timeout_s: float) -> None:
    poller = select.poll()
    poller.register(child.pidfd, select.POLLIN)
    poller.poll(timeout_s * 1000)


def _end(child: Child) -> None:
    _wait(child, PROBE_END_S if child.channel.closed else 0.2)
    child.kill()
    child.reap()


def _plan(order: Order, probed: control.Probed) -> Plan:
    """Put together what the coordinator needs.

    Raises:
        ConfigError: there is no configuration, or there are two.
    """
    conf = order.conf
    if conf is None and not probed.conf:
        raise ConfigError(*order.missing)
    if probed.conf:
        if conf is not None:
            msg = f"handler {order.target} is a Queue with its own configuration: leave the file out"
            raise ConfigError(msg)
        conf = KqConf.from_wire(probed.conf).replace(**order.changes)
    assert conf is not None
    return Plan(
        conf=conf,
        handler=probed.handler,
        handler_name=probed.name,
        columns=probed.columns,
        section=order.section,
        document=order.document,
        log_level=order.log_level,
        log_encoding=order.log_encoding,
    )
