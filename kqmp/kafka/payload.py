"""What may be pushed, and what it becomes: values, headers, and what to say of all else. Pure."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

#: A message's key; None for a message without one.
Key: TypeAlias = str | bytes | None
#: (name, value) pairs as a message carries them, None for a message without headers.
Headers: TypeAlias = list[tuple[str, bytes | None]] | None
#: What may be given as headers.
GivenHeaders: TypeAlias = (
    Mapping[str, str | bytes | None] | Iterable[tuple[str, str | bytes | None]] | None
)

_encoder: Final = msgspec.json.Encoder()
_VALUE_RULE: Final = (
    "str, bytes, None, or what becomes JSON: a dict, a list, a dataclass, a msgspec Struct, an"
    " attrs or a pydantic object"
)


def encoded(value: Any) -> str | bytes | None:
    """Return what is written for a value: JSON of an object, text and bytes as they are.

    Raises:
        TypeError: it is of no type that can be pushed, or holds something that JSON has not.
    """
    if value is None or isinstance(value, str | bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, type):
        raise TypeError(f"value must be {_VALUE_RULE}, not the class {value.__name__}")
    if hasattr(value, "model_dump_json"):
        text: str = value.model_dump_json()
        return text
    if isinstance(value, dict | list | tuple | msgspec.Struct) or _has_fields(value):
        try:
            return _encoder.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(f"value cannot be written as JSON: {error}") from error
    raise TypeError(f"value must be {_VALUE_RULE}, not {type(value).__name__}")


def _has_fields(value: object) -> bool:
    return dataclasses.is_dataclass(value) or hasattr(type(value), "__attrs_attrs__")


def header_pairs(headers: GivenHeaders) -> Headers:
    """Return headers as a message carries them, in the order given.

    Raises:
        TypeError: a name is no str, or a value neither str, bytes nor None.
        UnicodeEncodeError: a text is not valid.
    """
    if headers is None:
        return None
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [_header(pair) for pair in pairs]


def _header(pair: Any) -> tuple[str, bytes | None]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError("headers must be a map, or pairs of a name and a value")
    name, value = pair
    if not isinstance(name, str):
        raise TypeError(f"headers: a name must be str, not {type(name).__name__}")
    name.encode()
    if isinstance(value, str):
        return name, value.encode()
    if value is None or isinstance(value, bytes):
        return name, value
    kind = type(value).__name__
    raise TypeError(f"headers: the value of {name!r} must be str, bytes or None, not {kind}")


def size_of(value: str | bytes | None, key: Key, headers: Headers) -> int:
    """Return the bytes of a message's key, value and headers."""
    parts = [value, key]
    for name, text in headers or ():
        parts += [name, text]
    return sum(len(part.encode() if isinstance(part, str) else part or b"") for part in parts)


def unpushable(error: Exception, value: object, key: object) -> str | None:
    """Say what is wrong with a value or key that librdkafka would not take; None if nothing is."""
    if isinstance(error, UnicodeEncodeError):
        is_key = isinstance(key, str) and not _is_text(key)
        what = "key" if is_key else "value" if isinstance(value, str) else "header"
        return (
            f"{what}: character {error.start} of the text is half of a surrogate pair, which UTF-8"
            " has not; push bytes, or text that was decoded with errors='strict'"
        )
    if isinstance(error, TypeError) and not isinstance(key, str | bytes | None):
        return f"key must be str, bytes or None, not {type(key).__name__}"
    return None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
