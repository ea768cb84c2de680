"""Read what a handler's annotations ask for, on every Python from 3.11 to 3.14.

Annotations may be strings (`from __future__ import annotations`), may name what is imported for
type checkers only, and from 3.14 on are worked out lazily: what cannot be resolved is ignored, one
annotation at a time, so that a handler never fails to start over a type hint.
"""

import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, ForwardRef, Union, get_args, get_origin

from kqmp.message import Message


class Hint(Enum):
    """What an annotation says about the argument."""

    #: `str`, also `str | None`.
    TEXT = auto()
    #: `bytes`, also `bytes | None`.
    BYTES = auto()
    #: `kqmp.Message`.
    MESSAGE = auto()
    #: A builtin type that a handler never gets: each message would fail.
    UNSUPPORTED = auto()
    #: Nothing, or nothing that is known here: the argument is passed as it is.
    OTHER = auto()


_KNOWN: dict[object, Hint] = {
    str: Hint.TEXT,
    bytes: Hint.BYTES,
    Message: Hint.MESSAGE,
    **dict.fromkeys((int, float, bool, dict, list, tuple, set), Hint.UNSUPPORTED),
}


def signature_of(call: Callable[..., object]) -> inspect.Signature:
    """Return the signature of `call`, with annotations that may be unresolved.

    Raises:
        TypeError, ValueError: It has none, as many callables written in C.
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(call, annotation_format=Format.FORWARDREF)
    else:  # noqa: RET505 - mypy takes one branch or the other, by the version
        return inspect.signature(call)


def hints_of(
    call: Callable[..., object], parameters: Iterable[inspect.Parameter]
) -> dict[str, Hint]:
    """Return a hint for each parameter, in their order."""
    names = _globals_of(call)
    return {p.name: _hint_or_other(p.annotation, names) for p in parameters}


def _globals_of(call: Callable[..., object]) -> dict[str, Any]:
    """Return the names that string annotations of `call` are looked up in."""
    function: Any = call
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    function = inspect.unwrap(function)
    return getattr(getattr(function, "__func__", function), "__globals__", {})


def _hint_or_other(annotation: object, names: dict[str, Any]) -> Hint:
    try:
        return _hint(annotation, names)
    except Exception:  # noqa: BLE001 - an annotation may be any object, and stops no handler
        return Hint.OTHER


def _hint(annotation: object, names: dict[str, Any]) -> Hint:
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return _hint_of_text(annotation, names)
    # NewType, Annotated, and `type X = ...` (3.12) stand for another type.
    for alias in ("__supertype__", "__value__"):
        if hasattr(annotation, alias):
            return _hint(getattr(annotation, alias), names)
    if hasattr(annotation, "__metadata__"):
        return _hint(get_args(annotation)[0], names)
    origin = get_origin(annotation)
    if origin in {Union, types.UnionType}:
        return _hint_of_union(get_args(annotation), names)
    return _KNOWN.get(origin or annotation, Hint.OTHER)


def _hint_of_text(text: str, names: dict[str, Any]) -> Hint:
    try:
        # SAFETY: the text is an annotation in a module that was just executed.
        resolved = eval(text, dict(names))  # noqa: S307
    except Exception:  # noqa: BLE001 - text may name anything that is not there
        # `if TYPE_CHECKING: from kqmp import Message` leaves the name only.
        return Hint.MESSAGE if re.search(r"\bMessage\b", text) else Hint.OTHER
    return _hint(resolved, names)


def _hint_of_union(members: tuple[object, ...], names: dict[str, Any]) -> Hint:
    """A union is what all its members but None say, and bytes where they differ."""
    hints = {_hint(member, names) for member in members if member is not type(None)}
    if len(hints) == 1:
        return hints.pop()
    return Hint.MESSAGE if Hint.MESSAGE in hints else Hint.OTHER
