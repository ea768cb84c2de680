"""Find the part of a file that is the consumer. Pure.

kq's configuration stands under a key of the user's choice, beside whatever else the service has.
"""

from __future__ import annotations

from dataclasses import dataclass

from kqmp.config.keys import KEY_BY_KQ, SERVICE
from kqmp.configfile.tree import Entry, Place, Table
from kqmp.errors import ConfigError

#: The section name that means the top level itself.
TOP_LEVEL = "."

#: What go-zero's ServiceConf, which kq embeds, may have besides our keys: legal, without effect.
SERVICE_KEYS = ("Telemetry", "Shutdown", "Profiling")

_IDENTIFYING = {"brokers", "group", "topic"}
# kq's pusher has these too, so they do not tell a consumer.
_SHARED_WITH_PUSHER = {"name", "brokers", "topic", "username", "password", "cafile", "kafka"}


@dataclass(frozen=True, slots=True)
class Section:
    """The part of a file that holds the consumer."""

    #: Its key; empty for the top level.
    name: str
    table: Table
    #: Where it begins, for what is missing in it.
    place: Place


def find_section(document: Table, wanted: str | None, file: str) -> Section:
    """Find the section of that name, or the only one that looks like a consumer.

    Args:
        document: the whole file.
        wanted: the section's key in any case, `TOP_LEVEL`, or None to look for it; where none
            looks like a consumer it is the top level.
        file: for errors.

    Raises:
        ConfigError: there is no such section, or more than one looks like a consumer.
    """
    if wanted is not None:
        return named(document, wanted, file)
    top = Section("", document, document.place)
    found = [section for section in sections(document) if _is_consumer(section.table)]
    if not found and not _is_consumer(document):
        found = [section for section in sections(document) if _may_be_consumer(section.table)]
    if not found:
        return top
    names = [section.name for section in found]
    if _is_consumer(document):
        names.append(f"{TOP_LEVEL} (the top level)")
    if len(names) > 1:
        raise ConfigError(
            f"{file}: {', '.join(names)} all look like a consumer; choose one with --section"
        )
    return found[0]


def find_consumers(document: Table) -> list[Section]:
    """Return all sections with a Group, the top level included, in the order of the file.

    A Group alone makes no consumer: it may be somebody else's.
    """
    found = [section for section in sections(document) if _has_group(section.table)]
    return [Section("", document, document.place), *found] if _has_group(document) else found


def without_group(document: Table) -> list[str]:
    """Return the names of sections that look like a consumer, but for the Group they lack."""
    return [
        section.name
        for section in sections(document)
        if _is_consumer(section.table) and not _has_group(section.table)
    ]


def _has_group(table: Table) -> bool:
    names = _known_names(table)
    return "group" in names and bool(names & {"brokers", "topic"})


def named(document: Table, wanted: str, file: str) -> Section:
    """Return the section of that name, in any case; `TOP_LEVEL` is the top level.

    Raises:
        ConfigError: there is none, or it is no map.
    """
    if wanted == TOP_LEVEL:
        return Section("", document, document.place)
    entries = [entry for entry in document.entries if isinstance(entry.key, str)]
    same = [entry for entry in entries if entry.key == wanted]
    same = same or [entry for entry in entries if str(entry.key).lower() == wanted.lower()]
    if len(same) > 1:
        raise ConfigError(f"{file}: section {wanted!r} is there twice, in different case")
    if not same:
        names = ", ".join(section.name for section in sections(document)) or "no sections"
        raise ConfigError(f"{file}: there is no section {wanted!r}; the file has {names}")
    entry = same[0]
    if not isinstance(entry.item, Table):
        raise ConfigError(f"{entry.place.prefix}{entry.key}: a section must be a map of keys")
    return _section(entry, entry.item)


def sections(document: Table) -> list[Section]:
    """Return all sections of a file, in its order."""
    return [
        _section(entry, entry.item)
        for entry in document.entries
        if isinstance(entry.key, str) and isinstance(entry.item, Table)
    ]


def _section(entry: Entry, table: Table) -> Section:
    # What is missing in a TOML section is named by its path, as everything in it is.
    path = "" if entry.place.order[1] else f"{entry.key}."
    return Section(str(entry.key), table, Place(entry.place.order, f"{entry.place.prefix}{path}"))


def _is_consumer(table: Table) -> bool:
    names = _known_names(table)
    return bool(names & _IDENTIFYING and names - _SHARED_WITH_PUSHER)


def _may_be_consumer(table: Table) -> bool:
    """A consumer without its Group or a pusher: better than none, and its errors will tell."""
    return {"brokers", "topic"} <= _known_names(table)


def _known_names(table: Table) -> set[str]:
    names = {entry.key.lower() for entry in table.entries if isinstance(entry.key, str)}
    return names & KEY_BY_KQ.keys() - SERVICE
