"""The coordinator that a `Queue` starts: a process of its own, tied to its program by a socket.

It has no death signal, unlike its own children: the end of the socket, at the program's death too,
means drain and stop.
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
from kqmp.roles.pipes import StderrPipes
from kqmp.roles.spawn import FOR_THE_COORDINATOR, first_message


def main() -> None:
    """Entry of the process; argv: control socket, pid of the program."""
    for number in FOR_THE_COORDINATOR:
        # They are blocked until `service.run` has handlers, and never raise KeyboardInterrupt.
        signal.signal(number, signal.SIG_DFL)
    channel = control.Channel(control.adopt(int(sys.argv[1])))
    spec = first_message(channel)
    assert isinstance(spec, control.EngineSpec)
    logs.setup("coordinator", level=spec.log_level, encoding=spec.log_encoding)
    order = service.Order(
        ref=msgspec.msgpack.decode(spec.handler, type=HandlerRef),
        conf=KqConf.from_wire(spec.conf),
        log_level=spec.log_level,
        log_encoding=spec.log_encoding,
    )
    stderr = StderrPipes(spec.logs_fd) if spec.logs_fd >= 0 else None
    try:
        code, reason = service.run(order, channel, live=spec.live, stderr=stderr)
    except KqmpError as error:
        # Not logged: the program raises it.
        code, reason = error.exit_code, str(error)
    except Exception as error:
        logging.getLogger("kqmp.coordinator").exception("a bug in kqmp, please report it")
        code, reason = ExitCode.GAVE_UP, f"{type(error).__name__}: {error}"
    channel.send(control.Ended(int(code), reason))
    sys.exit(int(code))
