"""TOML text -> tree. `tomllib` keeps no lines, so places are key paths."""

from __future__ import annotations

import itertools
import re
import tomllib

from kqmp.configfile.tree import Entry, Item, Listing, Place, Scalar, Table
from kqmp.errors import ConfigError

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_toml(text: str, file: str) -> Item:
    """Parse TOML.

    Raises:
        ConfigError: it cannot be read; with line and column.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_located(str(error), text, file)) from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply") from None
    except ValueError:
        raise ConfigError(f"{file}: holds a number or date that does not exist") from None
    return _Builder(file).build(document, (), "")


class _Builder:
    def __init__(self, file: str) -> None:
        self._file = file
        self._numbers = itertools.count(1)

    def build(self, value: object, above: tuple[str, ...], key: str) -> Item:
        """Build the value of `key` inside the tables `above`."""
        place = self._place(above)
        path = (*above, key) if key else above
        if isinstance(value, dict):
            entries = [
                Entry(name, self._place(path), self.build(part, path, name))
                for name, part in value.items()
            ]
            return Table(tuple(entries), place)
        if isinstance(value, list):
            return Listing(tuple(self.build(part, above, key) for part in value), place)
        text = str(value).lower() if isinstance(value, bool) else _text(value)
        return Scalar(value, text, place)

    def _place(self, above: tuple[str, ...]) -> Place:
        path = "".join(f"{name}." for name in above)
        return Place((next(self._numbers), 0), f"{self._file}: {path}")


def _text(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # an integer of more than 4300 digits, written in hexadecimal
        return "a number too large"


def _located(message: str, text: str, file: str) -> str:
    """Move the line and column of tomllib's text to its front."""
    match = _AT.search(message)
    if match is None:
        return f"{file}: {message}"
    line = match[1] or str(text.count("\n") + 1)
    column = match[2] or str(len(text) - text.rfind("\n"))
    return f"{file}:{line}:{column}: {message[: match.start()]}"
