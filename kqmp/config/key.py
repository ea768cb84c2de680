"""What a configuration key is: a name, a kind, a default, limits, a meaning. Pure data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from kqmp.config.service import Table
from kqmp.config.units import DURATION_RULE, SIZE_RULE, format_duration_ms, format_size

Kind = Literal[
    "text",
    "topic",
    "identifier",
    "secret",
    "integer",
    "processors",
    "duration",
    "size",
    "flag",
    "choice",
    "brokers",
    "properties",
    "url",
    "path",
    "table",
]

_TYPES: dict[Kind, str] = {
    "text": "text",
    "topic": "text",
    "identifier": "text",
    "secret": "text",
    "integer": "whole number",
    "processors": "whole number or auto",
    "duration": "duration",
    "size": "size",
    "flag": "true or false",
    "choice": "one of",
    "brokers": "list of host:port",
    "properties": "map",
    "url": "text",
    "path": "text",
    "table": "map",
}
_UNITS: dict[Kind, str] = {"duration": "h, m, s, ms", "size": "bytes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One configuration key."""

    #: kq's name, PascalCase: as it stands in files and after `--set`.
    kq: str
    kind: Kind
    #: What it means, a phrase for the documentation.
    meaning: str
    #: The value where none is given: milliseconds for durations, bytes for sizes.
    default: object = ""
    #: The default as the documentation shows it, where it is no constant.
    default_note: str = ""
    #: Where numbers, durations (ms) and sizes (bytes) must lie, both ends included.
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    required: bool = False
    #: What is allowed, where `kind` alone does not say it: a noun phrase that follows "use".
    rule: str = ""
    #: Which of librdkafka's clients the properties are for, where `kind` is that.
    client: Literal["consumer", "producer"] = "consumer"
    #: The keys of a table, and those that are legal in go-zero and have no effect here.
    fields: tuple[Key, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name in Python: kq's, in snake_case."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.kq).lower()

    @property
    def type(self) -> str:
        """The type, for the documentation."""
        return f"{_TYPES[self.kind]} {', '.join(self.choices)}".rstrip()

    @property
    def unit(self) -> str:
        """The units a value may be written in, for the documentation; empty where it has none."""
        return _UNITS.get(self.kind, "")

    @property
    def default_text(self) -> str:
        """The default as the documentation shows it."""
        if self.required:
            return "required"
        if self.default_note:
            return self.default_note
        return self.format(self.default)

    @property
    def field_default(self) -> object:
        """The default in the type `KqConf` holds: a `timedelta` for durations."""
        if self.kind == "duration" and isinstance(self.default, int):
            return timedelta(milliseconds=self.default)
        return self.default

    @property
    def allowed(self) -> str:
        """What may be given: a noun phrase that follows "use"."""
        if self.kind == "choice":
            text = f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
            return f"{text} ({self.rule})" if self.rule else text
        between = f"from {self.format(self.low)} to {self.format(self.high)}"
        rules: dict[Kind, str] = {
            "flag": "true or false",
            "integer": f"a whole number {between}",
            "processors": f"a whole number {between}, or auto (the usable cores)",
            "duration": f"{DURATION_RULE}, {between}",
            "size": f"{SIZE_RULE}, {between}",
            "url": "a URL that begins with http:// or https://, without a user in it",
            "path": "a path that begins with /",
            "table": f"a map of {', '.join(field.kq for field in self.fields)}",
        }
        return rules.get(self.kind) or self.rule or "text"

    def format(self, value: object) -> str:
        """Write a checked value (not a password) as it could stand in a file."""
        if self.kind == "duration":
            if isinstance(value, timedelta):
                value = value // timedelta(milliseconds=1)
            return format_duration_ms(value) if isinstance(value, int) else str(value)
        if self.kind == "size":
            return format_size(value) if isinstance(value, int) else str(value)
        if self.kind == "flag":
            return str(value).lower()
        if isinstance(value, Table):
            given = [(field, getattr(value, field.name)) for field in self.fields]
            shown = [f"{f.kq} {f.format(v)}" for f, v in given if v not in (None, "")]
            return f"{{{', '.join(shown)}}}"
        if isinstance(value, tuple | list):
            return ",".join(map(str, value))
        return str(value)


class KeyTable:
    """The keys of one kind of section, to be found by either of their names."""

    def __init__(self, keys: Iterable[Key]) -> None:
        """Take the keys in the order of the documentation."""
        self.keys = tuple(keys)
        #: By the name in Python.
        self.by_name = {key.name: key for key in self.keys}
        #: By kq's name in lower case: file keys and `--set` are case-insensitive.
        self.by_kq = {key.kq.lower(): key for key in self.keys}
