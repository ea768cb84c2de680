"""A coordinator that another process starts: a `Queue`, or the parent of several sections.

A socket ties it to the one that started it. The end of a program's socket, at the program's death
too, means drain and stop: it has no death signal, unlike its own children. Under a parent it is
such a child itself: the user who kills the parent wants an end of all.
"""

import logging
import signal
import sys

import msgspec

from kqmp.config import KqConf
from kqmp.errors import ExitCode, KqmpError
from kqmp.handler.refs import HandlerRef
from kqmp.obs import logs
from kqmp.roles import control, service
from kqmp.roles.channel import Channel, adopt
from kqmp.roles.pipes import StderrPipes
from kqmp.roles.spawn import FOR_THE_COORDINATOR, die_with, first_message

log = logging.getLogger("kqmp.coordinator")


def main() -> None:
    """Entry of the process; argv: control socket, pid of whoever started it."""
    for number in FOR_THE_COORDINATOR:
        # They are blocked until `service.run` has handlers, and never raise KeyboardInterrupt.
        signal.signal(number, signal.SIG_DFL)
    channel = Channel(adopt(int(sys.argv[1])))
    spec = first_message(channel)
    assert isinstance(spec, control.EngineSpec)
    if spec.label:
        die_with(int(sys.argv[2]))
    role = control.role_name("coordinator", spec.label)
    logs.setup(role, level=spec.log_level, encoding=spec.log_encoding)
    code, reason = _run(spec, channel)
    channel.send(control.Ended(int(code), reason))
    sys.exit(int(code))


def _run(spec: control.EngineSpec, channel: Channel) -> tuple[ExitCode, str]:
    order = service.Order(
        ref=msgspec.msgpack.decode(spec.handler, type=HandlerRef),
        conf=KqConf.from_wire(spec.conf),
        section=spec.section,
        document=spec.document,
        notes=spec.notes,
        log_level=spec.log_level,
        log_encoding=spec.log_encoding,
        label=spec.label,
        metrics_interval_ms=spec.metrics_interval_ms,
        relays=spec.relays,
    )
    stderr = StderrPipes(spec.logs_fd) if spec.logs_fd >= 0 else None
    try:
        return service.run(order, channel, live=spec.live, stderr=stderr)
    except KqmpError as error:
        if spec.label:
            log.error("%s", error)  # noqa: TRY400 - the text says it all
        # Else not logged: the program raises it.
        return error.exit_code, str(error)
    except Exception as error:
        log.exception("a bug in kqmp, please report it")
        return ExitCode.GAVE_UP, f"{type(error).__name__}: {error}"
