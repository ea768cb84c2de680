"""Check and convert configuration values: from what a user gave to what `KqConf` holds.

Pure but for `Processors: auto`, which counts the usable cores. All problems are found at once. No
text made here shows a password, nor the content of a list or map, which may hold one.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from kqmp.config.cores import usable_cores
from kqmp.config.keys import CONSUMER, KEY, Key, KeyTable, Kind
from kqmp.config.properties import (
    KafkaProperties,
    is_utf8,
    property_problems,
    property_text,
)
from kqmp.config.secret import Secret
from kqmp.config.service import TABLES
from kqmp.config.units import parse_duration_ms, parse_size

#: How much longer than DrainTimeout a fetcher may stay away from `poll`: it waits a little longer
#: than the coordinator in a rebalance, and then commits.
POLL_MARGIN_MS = 10_000
POLL_INTERVAL = "max.poll.interval.ms"
#: librdkafka's upper bound of `queued.min.messages`.
READ_AHEAD_MESSAGES_HIGH = 10_000_000

_SHOWN_LENGTH = 60
_URL = re.compile(r"https?://[^\s/?#@]+([/?#]\S*)?", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the values given."""

    #: Python names of the keys concerned, the one to blame first.
    keys: tuple[str, ...]
    #: What is wrong and what is allowed, to stand after the key's name and a colon.
    text: str
    #: The librdkafka property concerned, for `kafka`.
    item: str = ""


def python_name(key: Key) -> str:
    """Spell a key for who wrote it as an argument."""
    return key.name


def line_of(problem: Problem) -> str:
    """Write a problem for who wrote the keys as arguments."""
    parts = (problem.keys[0], problem.item, problem.text)
    return ": ".join(part for part in parts if part)


def shown(value: object) -> str:
    """Show a value in an error: text and numbers, shortened; of a list or a map only its type."""
    if isinstance(value, str):
        return _shortened(repr(value))
    if value is None or isinstance(value, bool | float | timedelta):
        return str(value)
    if isinstance(value, int):
        return _shortened(str(value)) if value.bit_length() < 4096 else "a number too large"
    if isinstance(value, list | tuple):
        return "a list"
    return "a map" if isinstance(value, Mapping) else f"a value of type {type(value).__name__}"


def validate(
    given: Mapping[str, object], spell: Callable[[Key], str], table: KeyTable = CONSUMER
) -> tuple[dict[str, object], list[Problem]]:
    """Check values by their Python names; what is not given takes its default.

    Args:
        given: values as a user may write them, by the keys' names; others are not looked at.
        spell: how the user writes a key, for texts that name a second one.
        table: the keys of a consumer, or those of a pusher.

    Returns:
        All values as `KqConf` or `PusherConf` holds them (meaningless if there are problems), and
        the problems in the order of the table.
    """
    values: dict[str, object] = {}
    problems: list[Problem] = []
    for key in table.keys:
        value = given.get(key.name, key.field_default)
        if key.kind == "table":
            values[key.name], wrong_fields = _table(key, value)
            problems += [Problem((key.name,), text, item) for item, text in wrong_fields]
            continue
        if key.kind == "properties" and isinstance(value, Mapping):
            problems += [
                Problem((key.name,), text, item)
                for item, text in property_problems(value, key.client)
            ]
        try:
            values[key.name] = _converted(key, value)
        except ValueError as error:
            problems.append(Problem((key.name,), str(error)))
    wrong = {name for problem in problems for name in problem.keys}
    for problem in _contradictions(values, wrong, spell):
        if wrong.isdisjoint(problem.keys):
            problems.append(problem)
    if not problems:
        _fill_in(values)
    return values, problems


def _fill_in(values: dict[str, object]) -> None:
    """Replace the defaults that depend on other keys."""
    values["name"] = values["name"] or values.get("group") or values["topic"]
    if "ordering" in values:
        values["ordering"] = values["ordering"] or default_ordering(values["commit_in_order"])


def default_ordering(commit_in_order: object) -> str:
    """What Ordering is where it is not given."""
    return "partition" if commit_in_order else "key"


def _table(key: Key, value: object) -> tuple[object, list[tuple[str, str]]]:
    """Convert a table; return it (void if there are problems) and (field, text) of each problem."""
    made = TABLES[key.name]
    if value is None:
        return key.default, []
    if isinstance(value, made):
        value = msgspec.structs.asdict(value)
    if not isinstance(value, Mapping):
        return None, [("", f"{shown(value)} is not allowed; use {key.allowed}")]
    known = {name: field for field in key.fields for name in (field.kq.lower(), field.name)}
    ignored = {name.lower() for name in key.ignored}
    fields: dict[str, Any] = {field.name: field.field_default for field in key.fields}
    problems = []
    for name, item in value.items():
        field = known.get(name.lower()) if isinstance(name, str) else None
        if field is not None:
            try:
                fields[field.name] = _converted(field, item)
            except ValueError as error:
                problems.append((field.kq, str(error)))
        elif not isinstance(name, str) or name.lower() not in ignored:
            spelled = name if isinstance(name, str) else shown(name)
            problems.append((spelled, f"unknown key; use {key.allowed}"))
    return None if problems else made(**fields), problems


def _converted(key: Key, value: object) -> object:
    """Convert one value or raise ValueError with a text for `Problem`."""
    if key.required and (value is None or value in ("", (), [])):
        raise ValueError(f"missing; use {key.allowed}")
    try:
        return _CONVERT[key.kind](key, value)
    except (ValueError, TypeError):
        is_hidden = key.kind == "secret" or (key.kind == "url" and "@" in str(value))
        what = "the value (not shown)" if is_hidden else shown(value)
        # "from None": the causes' texts are not ours and might show a secret.
        raise ValueError(f"{what} is not allowed; use {key.allowed}") from None


def _text(_: Key, value: object) -> str:
    if not isinstance(value, str) or not is_utf8(value):
        raise ValueError
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueError
    return value.strip()


def _name_of_topic(key: Key, value: object) -> str:
    longest = 249 if key.kind == "topic" else 240
    text = _text(key, value)
    if text in (".", "..") or not re.fullmatch(rf"[A-Za-z0-9._-]{{0,{longest}}}", text):
        raise ValueError
    return text


def _secret(_: Key, value: object) -> Secret:
    text = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(text, str) or not is_utf8(text) or "\0" in text:
        raise ValueError
    return Secret(text)


def _integer(key: Key, value: object) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError
    return _within(key, value)


def _processors(key: Key, value: object) -> int:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return min(usable_cores()[0], key.high)
    return _integer(key, value)


def _duration(key: Key, value: object) -> timedelta:
    return timedelta(milliseconds=_within(key, parse_duration_ms(value)))


def _size(key: Key, value: object) -> int:
    size = _within(key, parse_size(value))
    if key.name == "ring_bytes":
        size += -size % mmap.PAGESIZE
    return size


def _within(key: Key, number: int) -> int:
    if not key.low <= number <= key.high:
        raise ValueError
    return number


def _flag(_: Key, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise ValueError


def _choice(key: Key, value: object) -> str | None:
    if value is None and key.default is None:
        return None
    if isinstance(value, str) and value.strip().lower() in key.choices:
        return value.strip().lower()
    raise ValueError


def _brokers(key: Key, value: object) -> tuple[str, ...]:
    # A comma separates, as in bootstrap.servers: ${BROKERS} and --set can only give text. The
    # syntax of hosts is not looked at: 127.0.1:9092 is legal.
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise TypeError
    brokers = [part.strip() for item in items for part in _text(key, item).split(",")]
    if not all(brokers):
        raise ValueError
    return tuple(brokers)


def _properties(key: Key, value: object) -> KafkaProperties:
    if not isinstance(value, Mapping):
        raise TypeError
    return KafkaProperties(
        (name.strip(), property_text(text))
        for name, text in value.items()
        if isinstance(name, str) and not any(property_problems({name: text}, key.client))
    )


def _url(key: Key, value: object) -> str:
    text = _text(key, value)
    if text and not _URL.fullmatch(text):
        raise ValueError
    return text


def _path(key: Key, value: object) -> str:
    text = _text(key, value)
    if not text.startswith("/") or any(char in text for char in "?# "):
        raise ValueError
    return text


_CONVERT: dict[Kind, Callable[[Key, object], object]] = {
    "text": _text,
    "topic": _name_of_topic,
    "identifier": _name_of_topic,
    "secret": _secret,
    "integer": _integer,
    "processors": _processors,
    "duration": _duration,
    "size": _size,
    "flag": _flag,
    "choice": _choice,
    "brokers": _brokers,
    "properties": _properties,
    "url": _url,
    "path": _path,
}


def _contradictions(
    values: Mapping[str, object], wrong: set[str], spell: Callable[[Key], str]
) -> Iterable[Problem]:
    """Problems between keys; those that concern a key in `wrong` mean nothing."""

    def number(name: str) -> int:
        value = values.get(name)
        return value if isinstance(value, int) else 0

    def name_of(name: str) -> str:
        return spell(KEY[name])

    if number("min_bytes") > number("max_bytes") and "max_bytes" not in wrong:
        yield Problem(
            ("min_bytes", "max_bytes"),
            f"{KEY['min_bytes'].format(values['min_bytes'])} is more than {name_of('max_bytes')}"
            f" {KEY['max_bytes'].format(values['max_bytes'])}; make it at most that",
        )
    if values.get("username") and not values.get("password"):
        yield Problem(
            ("username", "password"),
            f"given without {name_of('password')}; give both or neither",
        )
    if values.get("password") and not values.get("username"):
        yield Problem(
            ("password", "username"),
            f"given without {name_of('username')}; give both or neither",
        )
    read_ahead = number("consumers") * number("queue_capacity")
    if read_ahead > READ_AHEAD_MESSAGES_HIGH:
        yield Problem(
            ("consumers", "queue_capacity"),
            f"{values['consumers']} times {name_of('queue_capacity')} {values['queue_capacity']}"
            f" is {read_ahead} messages to read ahead; make it at most {READ_AHEAD_MESSAGES_HIGH}",
        )
    if values.get("commit_in_order") and values.get("ordering") not in (None, "partition"):
        yield Problem(
            ("ordering", "commit_in_order"),
            f"{values['ordering']} contradicts {name_of('commit_in_order')} true, which means"
            " partition; leave one of them out",
        )
    yield from _poll_contradictions(values, name_of)
    yield from _security_contradictions(values, name_of)


def _poll_contradictions(
    values: Mapping[str, object], name_of: Callable[[str], str]
) -> Iterable[Problem]:
    """A poll interval in which a revoked partition cannot be drained."""
    properties, drain_timeout = values.get("kafka"), values.get("drain_timeout")
    if not isinstance(properties, Mapping) or not isinstance(drain_timeout, timedelta):
        return
    least_ms = drain_timeout // timedelta(milliseconds=1) + POLL_MARGIN_MS
    given = str(properties.get(POLL_INTERVAL, ""))
    if given.isdecimal() and int(given) < least_ms:
        yield Problem(
            ("kafka", "drain_timeout"),
            f"{given!r} is refused: a revoked partition is drained ({name_of('drain_timeout')}"
            f" {KEY['drain_timeout'].format(drain_timeout)}) before the fetcher polls again;"
            f" use {least_ms} or more",
            POLL_INTERVAL,
        )


def _security_contradictions(
    values: Mapping[str, object], name_of: Callable[[str], str]
) -> Iterable[Problem]:
    """Raw properties that say otherwise than Username, Password and CaFile."""
    properties = values.get("kafka")
    if not isinstance(properties, KafkaProperties):
        return
    if values.get("username"):
        for item in ("sasl.username", "sasl.password"):
            if item in properties:
                text = f"given beside {name_of('username')}; leave one of them out"
                yield Problem(("kafka", "username"), text, item)
    protocol = properties.get("security.protocol", "").strip().lower()
    if values.get("ca_file") and protocol in ("plaintext", "sasl_plaintext"):
        text = f"{protocol!r} switches off the TLS that {name_of('ca_file')} asks for"
        yield Problem(("kafka", "ca_file"), f"{text}; leave it out", "security.protocol")


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 3]}..."
