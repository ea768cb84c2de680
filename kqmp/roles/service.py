"""One engine as the work of a whole process: probe the handler, run the coordinator, report.

`kqmp run` is such a process, and so is the coordinator that a `Queue` starts. Nothing here imports
the handler or librdkafka.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import msgspec
from setproctitle import setproctitle

from kqmp.config import KqConf
from kqmp.config.service import TABLES
from kqmp.errors import ConfigError, ExitCode, HandlerImportError
from kqmp.handler.refs import HandlerRef
from kqmp.obs import logs, pages
from kqmp.obs.output import OutputWatch
from kqmp.obs.status import LiveLine
from kqmp.ring.words import require_supported_machine
from kqmp.roles import banner, control
from kqmp.roles.channel import Channel
from kqmp.roles.coordinator import Coordinator, Stage
from kqmp.roles.exports import Exports
from kqmp.roles.reporter import Reporter
from kqmp.roles.spawn import FOR_THE_COORDINATOR, Child, Stderr, child_environment, spawn
from kqmp.roles.tree import Plan

#: How long the probe may take: it says by itself where it hangs a second before.
PROBE_S: Final = 60.0
#: A probe that has answered, or closed its socket, gets this long to end by itself.
PROBE_END_S: Final = 1.0
#: How often it is looked whether anybody still reads our output.
OUTPUT_S: Final = 0.5

log = logging.getLogger("kqmp.coordinator")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is asked to run."""

    ref: HandlerRef
    #: None: the handler must turn out to be a `Queue`, which brings its own.
    conf: KqConf | None
    #: Whether `conf` was read from a file, which a `Queue` contradicts.
    has_file: bool = False
    #: What is wrong with the configuration if `conf` is None and the handler is no `Queue`.
    missing: tuple[str, ...] = ()
    #: Fields to change in the configuration of a `Queue`; `kafka` is added to it.
    changes: dict[str, object] = {}
    #: JSON of the section and of the whole parsed file.
    section: bytes = b"{}"
    document: bytes = b"{}"
    #: Lines of the banner that came up while the configuration was read.
    notes: tuple[str, ...] = ()
    #: What the user said of the log; "" leaves it to the key Log.
    log_level: str = ""
    log_encoding: Literal["plain", "json", ""] = ""
    #: How often the program that started this is sent metrics; 0 = never.
    metrics_interval_ms: int = 0
    #: Whether who started this serves its pages, and so is sent snapshots.
    relays: bool = False
    #: The section, where several run under one parent.
    label: str = ""


def unique(names: Sequence[str]) -> list[str]:
    """Return labels for engines of these names, each another one: a second "a" is "a-2"."""
    labels: list[str] = []
    for name in names:
        label, number = name, 1
        while label in labels:
            number += 1
            label = f"{name}-{number}"
        labels.append(label)
    return labels


def spec_of(order: Order) -> control.EngineSpec:
    """Return the order for a coordinator under a parent. It has a configuration and a label."""
    assert order.conf is not None
    assert order.label
    return control.EngineSpec(
        handler=msgspec.msgpack.encode(order.ref),
        conf=order.conf.to_wire(),
        # Several status lines would tangle.
        live=False,
        logs_fd=-1,
        log_level=_level(order, order.conf),
        log_encoding=_encoding(order, order.conf),
        label=order.label,
        section=order.section,
        document=order.document,
        notes=order.notes,
        relays=True,
    )


def run(
    order: Order,
    parent: Channel | None = None,
    *,
    live: bool = False,
    stderr: Stderr | None = None,
    several: "Callable[[list[Order]], tuple[ExitCode, str]] | None" = None,
) -> tuple[ExitCode, str]:
    """Run an engine until it is stopped or ends. Call it from the main thread.

    Args:
        order: what to run.
        parent: socket of the program that started this process; None if a user did.
        live: draw a status line if stderr is a terminal.
        stderr: gives each child its stderr; None = they inherit ours.
        several: runs the engines of a `ServiceGroup` if the handler turns out to be one.

    Returns:
        The exit code and, if it is not clean, the reason, which was logged.

    Raises:
        KqmpError: nothing could be started, and nothing of it was logged.
    """
    require_supported_machine()
    name = order.label or ("" if order.conf is None else order.conf.name)
    setproctitle(f"kqmp: {control.role_name('coordinator', name)}")
    try:
        with _stopped_early():
            probed = probe(order, parent, stderr)
            if probed.group and several is not None:
                # It has signal handlers of its own.
                return several(members(order, probed))
            plan = plan_of(order, probed)
            setproctitle(f"kqmp: coordinator {order.label or plan.name}")
            _log_as(order, plan)
            notes = (*order.notes, *pages.notes(plan.conf))
            for line in banner.lines(plan.conf, plan.handler_name, notes):
                log.info("%s", line)
            status = LiveLine(2 if live else -1, os.environ)
            exports = Exports(plan.conf, parent, order.metrics_interval_ms, relays=order.relays)
            output = OutputWatch(() if parent else (1, 2))
            report = _Report(Reporter(plan, status, parent), exports, output)
            coordinator = Coordinator(plan, parent, report, stderr)
    except _Stopped as stopped:
        return _early_end(stopped)
    try:
        code = coordinator.run()
    finally:
        status.hide()
        exports.close()
    return code, coordinator.reason


class _Report:
    """The coordinator's `report`: what the user sees, and whether anybody still looks."""

    def __init__(self, reporter: Reporter, exports: Exports, output: OutputWatch) -> None:
        self._reporter = reporter
        self._exports = exports
        self._output = output
        self._looked_s = 0.0

    def __call__(self, coordinator: Coordinator, now_s: float) -> None:
        self._reporter(coordinator, now_s)
        self._exports(coordinator, now_s)
        if now_s - self._looked_s >= OUTPUT_S:
            self._looked_s = now_s
            if coordinator.stage is Stage.RUNNING and self._output.is_gone():
                log.info("nobody reads the output any more: draining")
                coordinator.stop()


class _Stopped(BaseException):
    """We are told to stop before the coordinator runs."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _early_end(stopped: _Stopped) -> tuple[ExitCode, str]:
    # Nothing was taken, so that nothing is left to finish.
    if stopped.number == signal.SIGINT:
        return ExitCode.INTERRUPTED, "interrupted before the start"
    return ExitCode.CLEAN, ""


@contextmanager
def _stopped_early() -> Iterator[None]:
    """Have a signal that means stop raise `_Stopped`, also one that waits blocked."""

    def raise_it(number: int, _frame: object) -> None:
        raise _Stopped(number)

    before = {number: signal.signal(number, raise_it) for number in FOR_THE_COORDINATOR}
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_COORDINATOR)
        yield
    finally:
        # One that comes now finds the coordinator's handlers, or ends us before there is one.
        for number, handler in before.items():
            signal.signal(number, handler)


def probe(
    order: Order, parent: Channel | None = None, stderr: Stderr | None = None
) -> control.Probed:
    """Have a short-lived process import the handler.

    Caller: `run`, and `kqmp check`, which starts nothing else. From the main thread.

    Raises:
        HandlerImportError: it cannot be imported or used, or importing it takes too long.
    """
    packed = msgspec.msgpack.encode(order.ref)
    level, encoding = _level(order, order.conf), _encoding(order, order.conf)
    spec = control.ProbeSpec(packed, PROBE_S, level, encoding, order.label)
    child = spawn("kqmp.roles.probe", spec, env=child_environment(), stderr=stderr)
    try:
        answer = _answer(child, parent)
        _wait(PROBE_END_S, child.pidfd)
    finally:
        child.kill()
        child.reap()
    name = order.ref.name
    match answer:
        case control.Probed():
            return answer
        case control.Failed(_, text):
            raise HandlerImportError(text)
        case None:
            msg = (
                f"handler {name}: importing it took more than {PROBE_S:.0f} s; what it was doing"
                " then stands above. Load what is slow in setup(context), which has no such limit"
            )
            raise HandlerImportError(msg)
        case int(code):
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            msg = f"handler {name}: importing it ended the process that did so ({how})"
            raise HandlerImportError(msg)


def _answer(child: Child, parent: Channel | None) -> control.Probed | control.Failed | int | None:
    """Return the probe's word, its exit code if it ended without one, None if time is up."""
    deadline = time.monotonic() + PROBE_S
    while (left := deadline - time.monotonic()) > 0:
        _wait(min(left, 0.5), child.channel.fileno(), *([parent.fileno()] if parent else []))
        if parent is not None:
            _heed(parent)
        for message in child.channel.receive():
            if isinstance(message, control.Probed | control.Failed):
                return message
        if child.channel.closed:
            _wait(PROBE_END_S, child.pidfd)
            code = child.exit_code()
            return -int(signal.SIGKILL) if code is None else code
    return None


def _heed(parent: Channel) -> None:
    """Stop if the program says so, or is gone."""
    for message in parent.receive():
        if isinstance(message, control.Interrupt):
            raise _Stopped(signal.SIGINT)
        if isinstance(message, control.Stop):
            raise _Stopped(signal.SIGTERM)
    if parent.closed:
        raise _Stopped(signal.SIGHUP)


def _wait(timeout_s: float, *fds: int) -> None:
    """Wait until one of `fds` can be read, at most so long."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    poller.poll(timeout_s * 1000)


def plan_of(order: Order, probed: control.Probed) -> Plan:
    """Put together what the coordinator needs.

    Raises:
        ConfigError: there is no configuration, or there are two.
    """
    conf = order.conf
    if probed.group:
        raise ConfigError(f"{probed.name} is a ServiceGroup, not a handler")
    if probed.conf and order.has_file:
        msg = f"{order.ref.name} is a Queue, which has its own configuration: leave -f FILE out"
        raise ConfigError(msg)
    if probed.conf:
        conf = _changed(KqConf.from_wire(probed.conf), order.changes)
    if conf is None:
        raise ConfigError(*order.missing)
    return Plan(
        conf=conf,
        handler=probed.handler,
        handler_name=probed.name,
        columns=probed.columns,
        section=order.section,
        document=order.document,
        log_level=_level(order, conf),
        log_encoding=_encoding(order, conf),
        label=order.label,
    )


def _level(order: Order, conf: KqConf | None) -> str:
    """Return the level of `logging` that all processes log from."""
    return order.log_level or logs.level_name("info" if conf is None else conf.log.level or "info")


def _encoding(order: Order, conf: KqConf | None) -> Literal["plain", "json"]:
    return order.log_encoding or (None if conf is None else conf.log.encoding) or "plain"


def _log_as(order: Order, plan: Plan) -> None:
    """Log as the key Log says, where the user did not."""
    if not (order.log_level and order.log_encoding):
        role = control.role_name("coordinator", order.label)
        logs.setup(role, level=plan.log_level, encoding=plan.log_encoding)


def members(order: Order, probed: control.Probed) -> list[Order]:
    """Return the orders for the queues of a `ServiceGroup`.

    Raises:
        ConfigError: there is another configuration, or what flags change does not fit.
    """
    if order.has_file:
        msg = f"{probed.name} is a ServiceGroup, whose queues have configurations of their own:"
        raise ConfigError(f"{msg} leave -f FILE out")
    confs = [_changed(KqConf.from_wire(one.conf), order.changes) for one in probed.group]
    return [
        msgspec.structs.replace(
            order,
            ref=msgspec.msgpack.decode(one.handler, type=HandlerRef),
            conf=conf,
            label=label,
            missing=(),
            changes={},
        )
        for one, conf, label in zip(
            probed.group, confs, unique([conf.name for conf in confs]), strict=True
        )
    ]


def _changed(conf: KqConf, changes: dict[str, object]) -> KqConf:
    kafka = changes.get("kafka")
    if isinstance(kafka, dict):
        changes = {**changes, "kafka": {**conf.kafka, **kafka}}
    for name in TABLES.keys() & changes.keys():
        given, now = changes[name], getattr(conf, name)
        if isinstance(given, dict) and now is not None:
            changes = {**changes, name: {**msgspec.structs.asdict(now), **given}}
    return conf.replace(**changes)
