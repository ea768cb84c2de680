"""All consumers of one file: what `kqmp run -f FILE` runs under one parent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kqmp.configfile.load import Flags, Loaded, load_section, read_document
from kqmp.configfile.sections import (
    TOP_LEVEL,
    Section,
    find_consumers,
    find_section,
    without_group,
)
from kqmp.configfile.tree import Table
from kqmp.errors import ConfigError

_NO_FLAGS = Flags()


def load_all(
    path: str | os.PathLike[str], flags: Flags = _NO_FLAGS, env: Mapping[str, str] = os.environ
) -> list[Loaded]:
    """Read every consumer section of a file: each that has a Group, in the order of the file.

    Where there is only one it is that, and where there is none this is `load`. Of several each must
    name its Handler, since no TARGET can. The flags hold for every section.

    Args:
        path: as for `load`.
        flags: as for `load`.
        env: as for `load`.

    Raises:
        ConfigError: with the problems of all sections at once, and those they have together.
    """
    file = str(path)
    document = read_document(file)
    consumers = _each(document, file, flags, env)
    if not consumers:
        one = next(iter(find_consumers(document)), None) or find_section(document, None, file)
        found = load_section(document, one, file, flags, env)
        found.notes.extend(_not_run(document, one.name, file))
        return [found]
    problems = [problem for consumer in consumers for problem in consumer.problems]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return [consumer.loaded for consumer in consumers if consumer.loaded is not None]


@dataclass(frozen=True, slots=True)
class Consumer:
    """One of several consumers of a file, whatever is wrong with it."""

    #: Its section; `TOP_LEVEL` for the top level.
    name: str
    #: None if it cannot be read.
    loaded: Loaded | None
    problems: tuple[str, ...]


def load_each(
    path: str | os.PathLike[str], flags: Flags = _NO_FLAGS, env: Mapping[str, str] = os.environ
) -> list[Consumer]:
    """Read each of several consumers by itself, for `kqmp check`; arguments as for `load_all`.

    Returns:
        What stands in the file, in its order; empty if that is not several.

    Raises:
        ConfigError: the file cannot be read.
    """
    file = str(path)
    return _each(read_document(file), file, flags, env)


def _each(document: Table, file: str, flags: Flags, env: Mapping[str, str]) -> list[Consumer]:
    sections = find_consumers(document)
    if len(sections) < 2:
        return []
    consumers: list[Consumer] = []
    found: list[Loaded] = []
    for section in sections:
        name = section.name or TOP_LEVEL
        try:
            loaded = load_section(document, section, file, flags, env)
        except ConfigError as error:
            consumers.append(Consumer(name, None, error.problems))
            continue
        consumers.append(Consumer(name, loaded, tuple(_problems(section, loaded, found, file))))
        found.append(loaded)
    if found:
        found[0].notes.extend(_not_run(document, "", file))
    return consumers


def _not_run(document: Table, run: str, file: str) -> list[str]:
    lacking = [name for name in without_group(document) if name != run]
    return [f"{file}: {name} has no Group: it is not run" for name in lacking]


def _problems(section: Section, loaded: Loaded, others: list[Loaded], file: str) -> Iterator[str]:
    """What is wrong with one of several consumers, beside those before it."""
    conf = loaded.conf
    name = section.name or TOP_LEVEL
    # In TOML the place is the section's path already.
    where = (
        section.place.prefix if section.place.order[1] == 0 else f"{section.place.prefix}{name}: "
    )
    if not conf.handler:
        yield (
            f"{where}Handler: missing; name it here, such as mqs:consume, or run only this section:"
            f" kqmp run TARGET -f {file} --section {name}"
        )
    for other in others:
        same = (other.conf.group, other.conf.topic) == (conf.group, conf.topic)
        # With no broker in common they may be two clusters.
        if same and set(other.conf.brokers) & set(conf.brokers):
            yield (
                f"{where}Group: {conf.group!r} and Topic {conf.topic!r} are those of"
                f" {other.section or TOP_LEVEL} too, and each message would reach only one of the"
                " two; give each a Group of its own, or raise Conns in one section"
            )
