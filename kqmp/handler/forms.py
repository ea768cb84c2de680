"""Learn how a handler wants to be called, once, at the start of a processor.

A handler is a function, a class or an object with `consume`, `setup` and `close`; it is called
as `(key, value)`, go-queue's form, or as `(message)`. Everything that would fail on each message
(a wrong number of parameters, a coroutine that nobody awaits) is refused here with one error, as
failures of single messages may be passed over.
"""

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from kqmp.errors import HandlerImportError
from kqmp.handler.hints import Hint, hints_of, signature_of
from kqmp.handler.loading import resolve, trace_of
from kqmp.handler.refs import COLUMNS, Form, HandlerInfo, HandlerRef
from kqmp.message import Message

_KEY_NAMES = frozenset({"key", "k", "val", "value", "v"})
_MESSAGE_NAMES = frozenset({"message", "msg", "record"})
_FORMS = "write it as (key, value) or (message)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a handler's `setup(context)` is told about the processor it runs in."""

    #: Number of the fetcher, from 0.
    fetcher: int
    #: Number of the processor under its fetcher, from 0.
    processor: int
    #: The consumer's section of the configuration file as parsed; {} without a file. May hold the
    #: password, so it is never printed.
    section: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: The whole configuration file as parsed; {} without a file.
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: Writes to the engine's log.
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("kqmp.handler"))

    @property
    def worker(self) -> str:
        """Name of the processor in logs and in `ps`: "0.3" is processor 3 of fetcher 0."""
        return f"{self.fetcher}.{self.processor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A handler that is ready to be called.

    Only `call` is for each message. An exception from it is a failure of that message; what is no
    `Exception` ends the processor.
    """

    #: For messages: `mqs:consume`.
    name: str
    #: `key_value`: call(key, value), each bytes, text where annotated `str`, or None.
    #: `message`: call(message) with a `kqmp.message.Message`.
    form: Form
    #: The user's own function, unless text is asked for: the plain form costs nothing extra.
    call: Callable[..., object]
    #: Some of `COLUMNS`; empty for `key_value`.
    columns: frozenset[str]
    on_setup: Callable[[Context], object] | None = None
    on_close: Callable[[], object] | None = None
    #: on_error(message, error): what raised, and its say in what becomes of the message.
    on_error: Callable[[Message, Exception], object] | None = None

    def setup(self, context: Context) -> None:
        """Call the handler's `setup`, if it has one. What it raises is passed on."""
        if self.on_setup is not None:
            self.on_setup(context)

    def close(self) -> None:
        """Call the handler's `close`, if it has one. What it raises is passed on."""
        if self.on_close is not None:
            self.on_close()

    def info(self) -> HandlerInfo:
        """Return the part that crosses processes."""
        return HandlerInfo(self.name, self.form, tuple(sorted(self.columns)))


def wrap(obj: object, ref: HandlerRef) -> Handler:
    """Learn the form of `obj`, a function, a class (an instance is made) or an object.

    Caller: processor or probe.

    Args:
        obj: What `resolve` returned.
        ref: Where it came from; only its name is used, in errors.

    Raises:
        HandlerImportError: It is not of a form that can be called. The text says why, and what
            to write instead.
    """
    name = ref.name
    if isinstance(obj, type):
        obj = _instance(name, obj)
    call, hooks = _entry(name, obj)
    _require_plain(name, call)
    parameters, hints = _parameters(name, call)
    form = _form(name, parameters, hints)
    on_error = _error_hook(name, hooks, ref.on_error)
    return Handler(
        name=name,
        form=form,
        call=call if form == "message" else _decoding(call, hints),
        columns=_columns(name, obj if hooks is None else hooks, form, on_error),
        on_setup=_setup(name, hooks),
        on_close=_hook(name, hooks, "close"),
        on_error=on_error,
    )


def _error(name: str, text: str) -> HandlerImportError:
    return HandlerImportError(f"handler {name}: {text}")


def _instance(name: str, cls: type) -> object:
    if not callable(getattr(cls, "consume", None)) and "__call__" not in dir(cls):
        raise _error(name, f"class {cls.__name__} has no method consume: {_consume_hint(cls)}")
    needed = [p.name for p in _parameters_of(cls) if _is_required(p)]
    if needed:
        raise _error(
            name,
            f"class {cls.__name__} needs arguments ({', '.join(needed)}), but processors make it"
            " without any: take what it needs in setup(context)",
        )
    try:
        made: object = cls()
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}"
        text = f"making an instance of {cls.__name__} failed: {what}{trace_of(error)}"
        raise _error(name, text) from error
    return made


def _consume_hint(obj: object) -> str:
    for attribute in dir(obj):
        if attribute.lower() in {"consume", "handle"}:
            return f"rename {attribute} to consume"
    return "add consume(self, key, value) or consume(self, message)"


def _entry(name: str, obj: object) -> tuple[Callable[..., object], object]:
    """Return what is called for a message, and the object that may carry setup and close."""
    if inspect.ismethod(obj) and obj.__name__ == "consume":
        # `module:thing.consume` means the thing, with its hooks.
        return obj, obj.__self__
    if inspect.isroutine(obj):
        # It has none, whatever attributes someone hung on it.
        return obj, None
    consume = getattr(obj, "consume", None)
    if consume is None and callable(obj):
        return obj, obj
    if consume is None:
        kind = type(obj).__qualname__
        raise _error(name, f"{kind} object has no method consume: {_consume_hint(obj)}")
    if not callable(consume):
        raise _error(name, f"its consume is not callable but {type(consume).__qualname__}")
    return consume, obj


def _require_plain(name: str, call: Callable[..., object]) -> None:
    # Not the unwrapped function: a decorator may well run a coroutine to its end.
    target = call if inspect.isroutine(call) else type(call).__call__
    for function in (call, target):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise _error(
                name,
                "async handlers come in a later release: write it as a plain def"
                " (asyncio.run inside it works)",
            )
        if inspect.isgeneratorfunction(function):
            raise _error(name, "it is a generator (it has a yield), so calling it would do nothing")


def _parameters(
    name: str, call: Callable[..., object]
) -> tuple[list[inspect.Parameter], dict[str, Hint]]:
    """Return the positional parameters (a `*rest` included), and what their annotations ask for."""
    try:
        signature = signature_of(call)
    except (TypeError, ValueError):
        raise _error(
            name,
            "its parameters cannot be known, as it is not written in Python: wrap it in a def"
            " consume(key, value)",
        ) from None
    parameters = list(signature.parameters.values())
    keyword_only = [
        p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and _is_required(p)
    ]
    if keyword_only:
        raise _error(
            name,
            f"it needs the keyword argument {keyword_only[0]}, but is called with key and value, or"
            " with a message, alone: give it a default",
        )
    positional = [p for p in parameters if p.kind not in _BY_NAME]
    hints = hints_of(call, positional)
    for parameter in positional:
        if hints[parameter.name] is Hint.UNSUPPORTED:
            raise _error(
                name,
                f"parameter {parameter.name} is annotated {_shown(parameter)}, but a handler gets"
                " bytes, or text where annotated str: convert it inside",
            )
    return positional, hints


_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)


def _shown(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }


def _form(name: str, parameters: list[inspect.Parameter], hints: dict[str, Hint]) -> Form:
    """Choose by the number of parameters; by their names where defaults leave it open."""
    if not parameters:
        raise _error(name, f"handler without arguments: {_FORMS}")
    first = parameters[0]
    if first.kind is inspect.Parameter.VAR_POSITIONAL:
        raise _error(
            name,
            f"its parameters are hidden behind *{first.name}: {_FORMS}, wrap it in a def of that"
            " form, or put functools.wraps on the decorator that hides them",
        )
    required = [p for p in parameters if _is_required(p)]
    listed = ", ".join(p.name for p in required)
    wants_message = hints[first.name] is Hint.MESSAGE or (
        first.name in _MESSAGE_NAMES and hints[first.name] is Hint.OTHER
    )
    if len(required) > 2:
        self_hint = " (pass the class, not its function)" if first.name == "self" else ""
        raise _error(name, f"it takes {len(required)} arguments ({listed}){self_hint}: {_FORMS}")
    if wants_message:
        if len(required) == 2:
            raise _error(name, f"({listed}) takes a message and something else: {_FORMS}")
        return "message"
    if len(required) == 2:
        return "key_value"
    return _form_by_name(name, parameters, hints)


def _form_by_name(name: str, parameters: list[inspect.Parameter], hints: dict[str, Hint]) -> Form:
    """Choose for at most one required parameter, whose first is not known to be a message."""
    first = parameters[0]
    is_field = first.name in _KEY_NAMES or hints[first.name] in {Hint.TEXT, Hint.BYTES}
    if len(parameters) == 1:
        if is_field:
            raise _error(name, f"({first.name}) takes one of key and value: {_FORMS}")
        return "message"
    if is_field:
        return "key_value"
    listed = ", ".join(p.name for p in parameters)
    raise _error(name, f"({listed}) may take a key and a value, or a message: {_FORMS}")


def _decoding(call: Callable[..., object], hints: dict[str, Hint]) -> Callable[..., object]:
    """Return `call`, behind a conversion to text where an annotation asks for it."""
    key, value = [*(hint is Hint.TEXT for hint in hints.values()), False][:2]

    def both(k: bytes | None, v: bytes | None) -> object:
        return call(None if k is None else k.decode(), None if v is None else v.decode())

    def key_only(k: bytes | None, v: bytes | None) -> object:
        return call(None if k is None else k.decode(), v)

    def value_only(k: bytes | None, v: bytes | None) -> object:
        return call(k, None if v is None else v.decode())

    match key, value:
        case True, True:
            return both
        case True, False:
            return key_only
        case False, True:
            return value_only
        case _:
            return call


def _columns(name: str, obj: object, form: Form, on_error: object) -> frozenset[str]:
    if form == "key_value" and on_error is None:
        # An attribute `columns` is then the user's own affair.
        return frozenset()
    wanted = getattr(obj, "columns", COLUMNS)
    names = (wanted,) if isinstance(wanted, str) else wanted
    try:
        chosen = frozenset(names)
    except TypeError:
        chosen = frozenset({names})
    if unknown := sorted(map(repr, chosen - COLUMNS)):
        allowed = " and ".join(repr(column) for column in sorted(COLUMNS))
        raise _error(name, f"columns: {', '.join(unknown)} is none of {allowed}")
    return chosen


def _error_hook(
    name: str, obj: object, ref: HandlerRef | None
) -> Callable[[Message, Exception], object] | None:
    """Return `on_error`: the function that a `Queue` was given, else the handler's method."""
    hook = getattr(obj, "on_error", None) if ref is None else resolve(ref)
    if hook is None:
        return None
    called = _callable_hook(name, hook, "on_error")
    try:
        signature_of(called).bind(None, None)
    except TypeError:
        listed = ", ".join(p.name for p in _parameters_of(called))
        text = f"its on_error takes ({listed}), but is called with (message, error)"
        raise _error(name, text) from None
    except ValueError:
        pass  # not written in Python: its parameters cannot be known
    return called


def _callable_hook(name: str, hook: object, attribute: str) -> Callable[..., object]:
    if not callable(hook):
        raise _error(name, f"its {attribute} is not callable but {type(hook).__qualname__}")
    if inspect.iscoroutinefunction(hook):
        raise _error(name, f"its {attribute} is async: write it as a plain def")
    return cast("Callable[..., object]", hook)


def _hook(name: str, obj: object, attribute: str) -> Callable[..., object] | None:
    found = getattr(obj, attribute, None)
    if found is None:
        return None
    hook = _callable_hook(name, found, attribute)
    required = [p.name for p in _parameters_of(hook) if _is_required(p)]
    if len(required) > (attribute == "setup"):
        allowed = "(context) or nothing" if attribute == "setup" else "nothing"
        listed = ", ".join(required)
        raise _error(name, f"its {attribute} takes ({listed}), but is called with {allowed}")
    return hook


def _parameters_of(hook: Callable[..., object]) -> list[inspect.Parameter]:
    """Return all parameters, none for what is not written in Python."""
    try:
        return list(signature_of(hook).parameters.values())
    except (TypeError, ValueError):
        return []


def _setup(name: str, obj: object) -> Callable[[Context], object] | None:
    hook = _hook(name, obj, "setup")
    if hook is None or any(p.kind not in _BY_NAME for p in _parameters_of(hook)):
        return hook
    return lambda _context: hook()
