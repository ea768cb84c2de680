"""From a file and flags to a checked `PusherConf`, as `kqmp.configfile.load` does for a consumer.

Runs in `kqmp push` and `PusherConf.load`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kqmp.config.checks import validate
from kqmp.config.keys import KEY_BY_KQ, SERVICE
from kqmp.config.pusher_conf import PusherConf
from kqmp.config.pusher_keys import PUSHER
from kqmp.configfile.gather import FLAGS_ALONE, Gathered
from kqmp.configfile.load import add_flags, raise_problems, read_document
from kqmp.configfile.sections import TOP_LEVEL, Section, named, sections
from kqmp.configfile.tree import Entry, Table
from kqmp.errors import ConfigError

_NOTHING: Mapping[str, str] = {}
#: What both kinds of section have, in lower case.
_SHARED: Final = PUSHER.by_kq.keys() & KEY_BY_KQ.keys()
#: What tells a consumer's section.
_CONSUMER_ONLY: Final = KEY_BY_KQ.keys() - _SHARED - SERVICE
#: Of a consumer's `Kafka`, what leads to the brokers and is not about consuming.
_ACCESS_PREFIXES: Final = ("security.", "sasl.", "ssl.", "socket.", "broker.", "client.")


@dataclass(frozen=True, slots=True)
class LoadedPusher:
    """What a file and flags say."""

    conf: PusherConf
    #: The section's key as the file spells it; empty for the top level, and without a file.
    section: str
    #: Whether that section is a consumer's, of which only the way to its topic was taken.
    is_borrowed: bool = False


def load_pusher(  # noqa: PLR0913 - by name only, but for the first two
    path: str | os.PathLike[str],
    section: str | None = None,
    *,
    overrides: Mapping[str, str] = _NOTHING,
    kafka_overrides: Mapping[str, str] = _NOTHING,
    shortcuts: Mapping[str, str] = _NOTHING,
    env: Mapping[str, str] = os.environ,
    borrow: bool = False,
) -> LoadedPusher:
    """Read a pusher's section of a YAML, JSON or TOML file; flags win over it.

    Args:
        path: the file.
        section: its key in any case; "." is the top level; None looks for it.
        overrides: `--set` pairs.
        kafka_overrides: `-X` pairs, librdkafka properties.
        shortcuts: flags of their own (`--topic`), by the keys' names in Python.
        env: what `${VAR}` refers to.
        borrow: take brokers, topic and credentials of a consumer's section where `section` names
            one, or the file has one and no pusher's.

    Raises:
        ConfigError: with all problems at once, in the order of the file, then of the flags.
    """
    file = str(path)
    document = read_document(file)
    found = find_pusher(document, section, file, borrow=borrow)
    is_borrowed = borrow and _is_consumer(found.table)
    gathered = Gathered(missing_place=found.place, table=PUSHER)
    if is_borrowed:
        gathered.add_section(_way_to_topic(found), env)
    else:
        _complain_of_consumer_keys(gathered, found)
        gathered.add_section(_without_consumer_keys(found), env)
    add_flags(gathered, overrides, kafka_overrides, shortcuts)
    gathered.values.setdefault("name", found.name or Path(file).stem)
    return LoadedPusher(_checked(gathered), found.name, is_borrowed)


def load_pusher_from_flags(
    overrides: Mapping[str, str] = _NOTHING,
    kafka_overrides: Mapping[str, str] = _NOTHING,
    shortcuts: Mapping[str, str] = _NOTHING,
) -> LoadedPusher:
    """Make a configuration of flags alone; arguments and errors as for `load_pusher`."""
    gathered = Gathered(missing_place=FLAGS_ALONE, table=PUSHER)
    add_flags(gathered, overrides, kafka_overrides, shortcuts)
    return LoadedPusher(_checked(gathered), "")


def find_pusher(document: Table, wanted: str | None, file: str, *, borrow: bool = False) -> Section:
    """Find the section of that name, or the only one that looks like a pusher.

    A pusher has Brokers or Topic, and no key that only a consumer has.

    Args:
        document: the whole file.
        wanted: the section's key in any case, `TOP_LEVEL`, or None to look for it; where none
            looks like a pusher it is the top level.
        file: for errors.
        borrow: a consumer's section will do where there is no pusher's.

    Raises:
        ConfigError: there is no such section, or more than one looks like a pusher.
    """
    if wanted is not None:
        return named(document, wanted, file)
    top = Section("", document, document.place)
    candidates = [top, *sections(document)]
    found = [section for section in candidates if _is_whole(section.table)]
    found = found or [section for section in candidates if _is_pusher(section.table)]
    what = "pusher"
    if not found and borrow:
        found = [section for section in candidates if _is_consumer(section.table)]
        what = "consumer, and none like a pusher"
    if len(found) > 1:
        names = ", ".join(section.name or f"{TOP_LEVEL} (the top level)" for section in found)
        raise ConfigError(f"{file}: {names} all look like a {what}; choose one with --section")
    if not found and any(_is_consumer(section.table) for section in candidates):
        raise ConfigError(
            f"{file}: no section looks like a pusher (Brokers and Topic, and no key that only a"
            " consumer has); add one, or name one with --section"
        )
    return found[0] if found else top


def _names(table: Table) -> set[str]:
    return {entry.key.lower() for entry in table.entries if isinstance(entry.key, str)}


def _is_consumer(table: Table) -> bool:
    names = _names(table)
    return bool(names & {"brokers", "topic"} and names & _CONSUMER_ONLY)


def _is_pusher(table: Table) -> bool:
    names = _names(table)
    return bool(names & {"brokers", "topic"}) and not names & _CONSUMER_ONLY


def _is_whole(table: Table) -> bool:
    return _is_pusher(table) and {"brokers", "topic"} <= _names(table)


def _is_consumer_only(entry: Entry) -> bool:
    return isinstance(entry.key, str) and entry.key.lower() in _CONSUMER_ONLY


def _complain_of_consumer_keys(gathered: Gathered, section: Section) -> None:
    for entry in section.table.entries:
        if _is_consumer_only(entry):
            text = "belongs to a consumer, not to a pusher; leave it out, or use another section"
            gathered.complain(entry.place, f"{entry.key}: {text}")


def _without_consumer_keys(section: Section) -> Section:
    entries = tuple(entry for entry in section.table.entries if not _is_consumer_only(entry))
    return Section(section.name, Table(entries, section.table.place), section.place)


def _way_to_topic(section: Section) -> Section:
    """Leave of a consumer's section what a pusher to the same topic needs."""
    entries = []
    for entry in section.table.entries:
        if not isinstance(entry.key, str) or entry.key.lower() not in _SHARED:
            continue
        if entry.key.lower() == "kafka" and isinstance(entry.item, Table):
            kept = tuple(part for part in entry.item.entries if _is_access(part.key))
            entries.append(Entry(entry.key, entry.place, Table(kept, entry.item.place)))
        else:
            entries.append(entry)
    return Section(section.name, Table(tuple(entries), section.table.place), section.place)


def _is_access(name: object) -> bool:
    # TOML reads dotted names as tables: then the first part stands alone.
    return isinstance(name, str) and f"{name}.".startswith(_ACCESS_PREFIXES)


def _checked(gathered: Gathered) -> PusherConf:
    values, problems = validate(gathered.values, gathered.spell, PUSHER)
    raise_problems(gathered, problems)
    fields: dict[str, Any] = values
    return PusherConf(**fields)
