"""A probe: imports TARGET once, so that the coordinator never has to, and says what it is.

TARGET is a handler, or it is a `Queue`, or a function without parameters that returns one. A
short-lived process finds out, since importing runs the user's code: it hands back names and plain
configuration, and ends.
"""

import faulthandler
import inspect
import logging
import os
import sys
from typing import Final, NoReturn

import msgspec

from kqmp.errors import ExitCode, HandlerImportError
from kqmp.handler import HandlerRef, mark_processor, resolve, wrap
from kqmp.handler.loading import trace_of
from kqmp.obs import logs
from kqmp.roles import control
from kqmp.roles.spawn import become_child, first_message

#: Name of the method by which a `Queue`, which this layer does not know, shows what it holds:
#: it returns (`HandlerRef`, `KqConf.to_wire()`).
QUEUE_METHOD: Final = "__kqmp_queue__"

log = logging.getLogger("kqmp.probe")


def look(ref: HandlerRef) -> control.Probed:
    """Import what `ref` names and tell what it is.

    Raises:
        HandlerImportError: it cannot be imported or is neither a handler nor a `Queue`.
    """
    obj = resolve(ref)
    conf = b""
    queue = _queue(obj)
    if queue is None and _takes_nothing(obj):
        queue = _queue(_made(ref, obj))
    if queue is not None:
        ref, conf = queue
        obj = resolve(ref)
    handler = wrap(obj, ref)
    return control.Probed(
        handler=msgspec.msgpack.encode(ref),
        name=ref.name,
        columns=sorted(handler.columns),
        conf=conf,
    )


def _queue(obj: object) -> tuple[HandlerRef, bytes] | None:
    """Return what a `Queue` holds, None for anything else (the class `Queue` itself included)."""
    show = None if isinstance(obj, type) else getattr(obj, QUEUE_METHOD, None)
    if show is None:
        return None
    ref, conf = show()
    assert isinstance(ref, HandlerRef)
    return ref, conf


def _takes_nothing(obj: object) -> bool:
    return inspect.isroutine(obj) and _has_no_parameters(obj)


def _has_no_parameters(obj: object) -> bool:
    try:
        return not inspect.signature(obj).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _made(ref: HandlerRef, function: object) -> object:
    """Call a function without parameters.

    Returns:
        What it returned, if that is a `Queue`; else the function, which `wrap` refuses as a handler
        without arguments.
    """
    assert callable(function)
    try:
        made = function()
    except HandlerImportError:
        raise
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}"
        text = f"handler {ref.name}: calling {ref.attribute}() failed: {what}{trace_of(error)}"
        raise HandlerImportError(text) from error
    return function if _queue(made) is None else made


def _leave(code: int) -> NoReturn:
    """End at once: threads and exit hooks of the user's modules have no say in a probe."""
    sys.stdout.flush()
    os._exit(code)


def main() -> None:
    """Entry of the process: `python -m kqmp.roles.probe CONTROL_FD PARENT_PID`."""
    channel = become_child(sys.argv, "kqmp: probe")
    spec = first_message(channel)
    assert isinstance(spec, control.ProbeSpec)
    logs.setup(spec.role, level=spec.log_level, encoding=spec.log_encoding)
    # Before the coordinator's patience ends: what hangs shows where.
    faulthandler.dump_traceback_later(max(0.1, spec.limit_s - 1))
    mark_processor()
    try:
        channel.send(look(msgspec.msgpack.decode(spec.handler, type=HandlerRef)))
    except HandlerImportError as error:
        channel.send(control.Failed(int(ExitCode.HANDLER_IMPORT), str(error)))
        _leave(int(ExitCode.HANDLER_IMPORT))
    _leave(0)


if __name__ == "__main__":
    main()
