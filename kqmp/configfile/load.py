"""From a file and flags to a checked `KqConf`. Runs in `kqmp run`, `kqmp check` and `KqConf.load`.

Reads the file, the files it names with `${file:...}` and the environment, nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kqmp.config import KqConf
from kqmp.config.checks import Problem, validate
from kqmp.configfile.expand import ExpansionError, expand
from kqmp.configfile.gather import FLAGS_ALONE, Gathered
from kqmp.configfile.sections import Section, find_section
from kqmp.configfile.tomltree import read_toml
from kqmp.configfile.tree import Item, Place, Table, plain
from kqmp.configfile.yamltree import read_json, read_yaml
from kqmp.errors import ConfigError

#: A larger file is no configuration.
FILE_BYTES_HIGH = 1024 * 1024

_READERS: dict[str, Callable[[str, str], Item | None]] = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".json": read_json,
    ".toml": read_toml,
}
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file and flags say."""

    conf: KqConf
    #: The section's key as the file spells it; empty for the top level, and without a file.
    section: str
    #: The whole file, for the handler's context; its references followed where they can be. It may
    #: hold passwords: not shown by `repr`, and never to be logged.
    document: dict[Any, Any] = field(repr=False)
    #: Lines worth telling the user at the start.
    notes: list[str]


def load(
    path: str | os.PathLike[str],
    section: str | None = None,
    *,
    overrides: Mapping[str, str] = _NOTHING,
    kafka_overrides: Mapping[str, str] = _NOTHING,
    shortcuts: Mapping[str, str] = _NOTHING,
    env: Mapping[str, str] = os.environ,
) -> Loaded:
    """Read a YAML, JSON or TOML file, its kind told by its extension.

    `shortcuts` win over `overrides`, and these over the file. Relative paths inside the file are
    relative to the working directory.

    Args:
        path: the file.
        section: the key of the consumer's section, in any case; "." is the top level; None looks
            for it.
        overrides: `--set` pairs, keys in kq's or Python's spelling in any case.
        kafka_overrides: `-X` pairs, librdkafka properties.
        shortcuts: flags of their own (`--group`), by the keys' names in Python.
        env: what `${VAR}` refers to.

    Raises:
        ConfigError: with all problems at once, in the order of the file, then of the flags.
    """
    file = str(path)
    document = read_document(file)
    flags = Flags(overrides, kafka_overrides, shortcuts)
    return load_section(document, find_section(document, section, file), file, flags, env)


class Flags(NamedTuple):
    """What stands on the command line; arguments of `load`."""

    overrides: Mapping[str, str] = _NOTHING
    kafka_overrides: Mapping[str, str] = _NOTHING
    shortcuts: Mapping[str, str] = _NOTHING


def load_section(
    document: Table, found: Section, file: str, flags: Flags, env: Mapping[str, str]
) -> Loaded:
    """Make a configuration of one section of a file that was read; arguments as for `load`.

    Raises:
        ConfigError: with all problems of the section at once.
    """
    gathered = Gathered(missing_place=found.place)
    gathered.add_section(found, env)
    add_flags(gathered, *flags)
    gathered.values.setdefault("name", found.name or Path(file).stem)
    conf = checked(gathered)
    notes = []
    if gathered.without_effect:
        notes.append(f"accepted, no effect: {', '.join(gathered.without_effect)}")
    return Loaded(conf, found.name, _expanded(document, env, file, notes), notes)


def load_from_flags(
    overrides: Mapping[str, str] = _NOTHING,
    kafka_overrides: Mapping[str, str] = _NOTHING,
    shortcuts: Mapping[str, str] = _NOTHING,
) -> Loaded:
    """Make a configuration of flags alone; arguments and errors as for `load`."""
    gathered = Gathered(missing_place=FLAGS_ALONE)
    add_flags(gathered, overrides, kafka_overrides, shortcuts)
    return Loaded(checked(gathered), "", {}, [])


def add_flags(
    gathered: Gathered,
    overrides: Mapping[str, str],
    kafka_overrides: Mapping[str, str],
    shortcuts: Mapping[str, str],
) -> None:
    """Lay flags over what a file says; arguments as for `load`."""
    gathered.add_flags(overrides)
    gathered.add_shortcuts(shortcuts)
    gathered.add_properties(kafka_overrides)


def checked(gathered: Gathered) -> KqConf:
    """Make a configuration of what was gathered.

    Raises:
        ConfigError: with all problems at once, in the order of the file, then of the flags.
    """
    values, problems = validate(gathered.values, gathered.spell)
    raise_problems(gathered, problems)
    fields: dict[str, Any] = values
    return KqConf(**fields)


def raise_problems(gathered: Gathered, problems: Iterable[Problem]) -> None:
    """Raise what is wrong with what was gathered, if anything is.

    Raises:
        ConfigError: with all problems at once, in the order of the file, then of the flags.
    """
    for problem in problems:
        gathered.add_problem(problem)
    if gathered.problems:
        # Sorted by place only: what stands at the same place stays in the order it was found.
        found = sorted(gathered.problems, key=lambda problem: problem.order)
        raise ConfigError(*dict.fromkeys(problem.line for problem in found))


def read_document(file: str) -> Table:
    """The file as a tree; an empty one has no keys.

    Raises:
        ConfigError: it cannot be read, or is no map.
    """
    reader = _READERS.get(Path(file).suffix.lower())
    if reader is None:
        kinds = "a name that ends in .yaml, .yml, .json or .toml"
        raise ConfigError(f"{file}: cannot tell what kind of file this is; use {kinds}")
    root = reader(_text(file), file)
    if root is None:
        return Table((), Place((1, 1), f"{file}:1:1: "))
    if not isinstance(root, Table):
        raise ConfigError(f"{root.place.prefix}the file must be a map of keys to values")
    return root


def _text(file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            data = stream.read(FILE_BYTES_HIGH + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(f"{file}: cannot be read: {why}") from None
    if len(data) > FILE_BYTES_HIGH:
        raise ConfigError(f"{file}: larger than {FILE_BYTES_HIGH} bytes")
    try:
        # Line ends as TOML and PyYAML count them; a byte order mark is no content.
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: not UTF-8 text") from None


def _expanded(
    document: Table, env: Mapping[str, str], file: str, notes: list[str]
) -> dict[Any, Any]:
    """The whole file with its references followed.

    Those that cannot be followed stand outside the section, or the loading would have failed: they
    may be meant for another program, so they are left as they are, with a note.
    """

    def follow(text: str) -> str:
        try:
            return expand(text, env)
        except ExpansionError as error:
            notes.append(f"{file}: outside the section, left as it is: {error}")
            return text

    whole: dict[Any, Any] = plain(document, follow)
    return whole
