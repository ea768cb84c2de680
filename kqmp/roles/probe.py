"""A probe: imports TARGET once, so that the coordinator never has to, and says what it is.

TARGET is a handler, or a `Queue`, or a `ServiceGroup` of queues, or a function without parameters
that returns one of these two. A short-lived process finds out, since importing runs the user's
code: it hands back names and plain configuration, and ends.
"""

import faulthandler
import inspect
import logging
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from kqmp.errors import ExitCode, HandlerImportError
from kqmp.handler import HandlerRef, mark_processor, resolve, wrap
from kqmp.handler.loading import trace_of
from kqmp.obs import logs
from kqmp.roles import control
from kqmp.roles.spawn import become_child, first_message, leave

#: Name of the method by which a `Queue`, which this layer does not know, shows what it holds:
#: it returns (`HandlerRef`, `KqConf.to_wire()`).
QUEUE_METHOD: Final = "__kqmp_queue__"
#: The same for a `ServiceGroup`: it returns the services in it.
GROUP_METHOD: Final = "__kqmp_group__"

log = logging.getLogger("kqmp.probe")


def look(ref: HandlerRef) -> control.Probed:
    """Import what `ref` names and tell what it is.

    Raises:
        HandlerImportError: it cannot be imported or is neither a handler nor a `Queue`, nor a
            `ServiceGroup` of queues alone.
    """
    obj = resolve(ref)
    if not _shows(obj, QUEUE_METHOD, GROUP_METHOD) and _takes_nothing(obj):
        obj = _made(ref, obj)
    if _shows(obj, GROUP_METHOD):
        return _look_at_group(ref, getattr(obj, GROUP_METHOD)())
    return _look_at_one(ref, obj)


def _look_at_group(ref: HandlerRef, services: Sequence[object]) -> control.Probed:
    for service in services:
        if not _shows(service, QUEUE_METHOD):
            msg = (
                f"handler {ref.name}: the ServiceGroup holds {service!r}, which runs only in a"
                " program, by start(); kqmp run runs queues: run the program, or leave it out here"
            )
            raise HandlerImportError(msg)
    found = [_look_at_one(ref, service) for service in services]
    if not found:
        raise HandlerImportError(f"handler {ref.name}: the ServiceGroup is empty; add(queue) first")
    return found[0] if len(found) == 1 else control.Probed(b"", ref.name, [], group=found)


def _look_at_one(ref: HandlerRef, obj: object) -> control.Probed:
    conf = b""
    if _shows(obj, QUEUE_METHOD):
        ref, conf = getattr(obj, QUEUE_METHOD)()
        assert isinstance(ref, HandlerRef)
        obj = resolve(ref)
    handler = wrap(obj, ref)
    return control.Probed(
        handler=msgspec.msgpack.encode(ref),
        name=ref.name,
        columns=sorted(handler.columns),
        conf=conf,
    )


def _shows(obj: object, *methods: str) -> bool:
    """Tell whether it is a `Queue`, or a group (not the class itself)."""
    return not isinstance(obj, type) and any(hasattr(obj, method) for method in methods)


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
        What it returned, if that is a `Queue` or a group; else the function, which `wrap` refuses
        as a handler without arguments.
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
    return made if _shows(made, QUEUE_METHOD, GROUP_METHOD) else function


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
        leave(int(ExitCode.HANDLER_IMPORT))
    leave(0)


if __name__ == "__main__":
    main()
