"""Find the user's handler by name, in whatever process needs it, and learn how to call it.

A handler crosses processes as a name, never as a pickled object: `refs` writes and reads that
name, `loading` imports it in the process that runs it, `forms` learns its form. The coordinator
knows `refs` only.
"""

from kqmp.handler.forms import Context, Handler, wrap
from kqmp.handler.loading import inside_processor, mark_processor, refuse_in_processor, resolve
from kqmp.handler.outcome import DONE, RETRY, Outcome
from kqmp.handler.refs import (
    COLUMNS,
    MAIN_MODULE,
    Form,
    HandlerInfo,
    HandlerRef,
    parse_target,
    ref_of,
)

__all__ = [
    "COLUMNS",
    "DONE",
    "MAIN_MODULE",
    "RETRY",
    "Context",
    "Form",
    "Handler",
    "HandlerInfo",
    "HandlerRef",
    "Outcome",
    "inside_processor",
    "load",
    "mark_processor",
    "parse_target",
    "ref_of",
    "refuse_in_processor",
    "resolve",
    "wrap",
]


def load(ref: HandlerRef) -> Handler:
    """Import the handler that `ref` names and learn its form.

    Caller: a processor, once, at its start.

    Raises:
        HandlerImportError: It cannot be imported, or is not of a form that can be called.
    """
    return wrap(resolve(ref), ref)
