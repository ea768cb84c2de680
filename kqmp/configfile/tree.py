"""A parsed file as a tree whose every part knows where it stands. Pure data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written, for errors."""

    #: Sorts problems: (line, column) of a file, both from 1.
    order: tuple[int, int]
    #: What stands before the key's name: `mq.yaml:9:3: `, or `mq.toml: Section.`, or `--set `.
    prefix: str


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: text, number, true/false, date or nothing."""

    value: object
    #: How it was written, for errors: `no` where the value is False.
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Listing:
    """A list."""

    items: tuple[Item, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Table:
    """A map, in the order of the file, without duplicate keys."""

    entries: tuple[Entry, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a map with its item."""

    key: object
    place: Place
    item: Item


Item = Scalar | Listing | Table


def plain(item: Item, convert: Callable[[str], str]) -> Any:
    """The tree as dicts, lists and scalars; `convert` is called with every text value."""
    if isinstance(item, Scalar):
        return convert(item.value) if isinstance(item.value, str) else item.value
    if isinstance(item, Listing):
        return [plain(part, convert) for part in item.items]
    return {entry.key: plain(entry.item, convert) for entry in item.entries}


def flattened(table: Table, above: str = "") -> Iterator[Entry]:
    """The entries of a table and of the tables inside it, with dotted keys.

    TOML reads the key `fetch.min.bytes` as three tables; librdkafka knows it as one name.
    """
    for entry in table.entries:
        key = f"{above}{entry.key}" if isinstance(entry.key, str) else entry.key
        if isinstance(entry.item, Table):
            yield from flattened(entry.item, f"{key}.")
        else:
            yield Entry(key, entry.place, entry.item)
