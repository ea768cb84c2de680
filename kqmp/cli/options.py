"""The flags by which a consumer is named, for all commands that take one, and what they say."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from kqmp.config.keys import KEY, KEY_BY_KQ
from kqmp.configfile import (
    TOP_LEVEL,
    Consumer,
    Flags,
    Loaded,
    load,
    load_all,
    load_each,
    load_from_flags,
)
from kqmp.configfile.names import unknown
from kqmp.errors import ConfigError

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Flags of their own, by the keys' names in Python.
SHORTCUTS = {
    "brokers": "HOST:PORT,...",
    "group": "NAME",
    "topic": "NAME",
    "conns": "N",
    "processors": "N",
}


class Given(NamedTuple):
    """What stands on the command line, read by nobody yet."""

    file: str | None
    section: str | None
    sets: tuple[str, ...]
    properties: tuple[str, ...]
    shortcuts: Mapping[str, str]


#: Adds -X to a click command.
properties_option = click.option(
    "-X",
    "properties",
    multiple=True,
    metavar="PROP=VALUE",
    help="A raw librdkafka property, as under Kafka: in FILE. May be repeated.",
)


def sets_option(example: str) -> Callable[[_Command], _Command]:
    """Return what adds --set to a click command; `example` stands in its help."""
    return click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"Set a key of the section, such as --set {example}. May be repeated.",
    )


def consumer_options(command: _Command) -> _Command:
    """Add TARGET and the flags of `Given` to a click command; `take` picks them up again."""
    for name, metavar in reversed(SHORTCUTS.items()):
        key = KEY[name]
        text = f"Short for --set {key.kq}=...: {key.meaning}."
        command = click.option(f"--{name}", metavar=metavar, help=text)(command)
    for decorate in (
        properties_option,
        sets_option("Offset=first"),
        click.option(
            "--section",
            metavar="KEY",
            help=(
                f"Top-level key of FILE under which the consumer stands; {TOP_LEVEL!r} is the top"
                " level. Without it and TARGET: every section with a Group; with TARGET: the only"
                " section that looks like a consumer."
            ),
        ),
        click.option("-f", "--file", metavar="FILE", help="A .yaml, .yml, .json or .toml file."),
        click.argument("target", required=False, metavar="[TARGET]"),
    ):
        command = decorate(command)
    return command


def take(options: dict[str, Any]) -> Given:
    """Take the flags of `Given` out of what click hands to a command."""
    return taken(options, {name: options.pop(name) for name in SHORTCUTS})


def taken(options: dict[str, Any], shortcuts: Mapping[str, str | None]) -> Given:
    """Return the flags that all commands share, taken out of `options`, and what shortcuts say."""
    return Given(
        file=options.pop("file"),
        section=options.pop("section"),
        sets=options.pop("sets"),
        properties=options.pop("properties"),
        shortcuts={name: text for name, text in shortcuts.items() if text is not None},
    )


def require_file_of_section(given: Given) -> None:
    """Refuse --section without -f.

    Raises:
        ConfigError: it is so.
    """
    if given.file is None and given.section is not None:
        raise ConfigError(f"--section {given.section}: there is no file; add -f FILE")


def read_all(given: Given) -> list[Loaded]:
    """Read file and flags: all consumers of the file, unless --section names one.

    Raises:
        ConfigError: with all problems at once.
    """
    if given.file is None or given.section is not None:
        return [read(given)]
    return load_all(given.file, _flags(given))


def read_each(given: Given) -> list[Consumer]:
    """Read each of several consumers of the file; empty if there is one, or --section names one.

    Raises:
        ConfigError: the file cannot be read.
    """
    if given.file is None or given.section is not None:
        return []
    return load_each(given.file, _flags(given))


def _flags(given: Given) -> Flags:
    return Flags(pairs(given.sets, "--set"), pairs(given.properties, "-X"), given.shortcuts)


def read(given: Given) -> Loaded:
    """Read file and flags.

    Raises:
        ConfigError: with all problems at once.
    """
    overrides, kafka = pairs(given.sets, "--set"), pairs(given.properties, "-X")
    require_file_of_section(given)
    if given.file is None:
        return load_from_flags(overrides, kafka, given.shortcuts)
    return load(
        given.file,
        given.section,
        overrides=overrides,
        kafka_overrides=kafka,
        shortcuts=given.shortcuts,
    )


def changes(given: Given) -> dict[str, Any]:
    """Return what the flags set, by the names in Python, for the configuration of a `Queue`.

    What is set of a table is a map of its keys, in lower case.

    Raises:
        ConfigError: a key is unknown.
    """
    found: dict[str, Any] = {}
    wrong = []
    for spelled, value in pairs(given.sets, "--set").items():
        name, _, part = spelled.lower().partition(".")
        key = KEY_BY_KQ.get(name) or KEY.get(name)
        if key is None or bool(part) != (key.kind == "table"):
            wrong.append(f"--set {spelled}: {unknown(spelled)}")
        elif part:
            found.setdefault(key.name, {})[part] = value
        else:
            found[key.name] = value
    if wrong:
        raise ConfigError(*wrong)
    kafka = pairs(given.properties, "-X")
    return {**found, **given.shortcuts, **({"kafka": kafka} if kafka else {})}


def pairs(items: tuple[str, ...], flag: str) -> dict[str, str]:
    """Split `KEY=VALUE` items; a later one of the same key wins."""
    pairs = {}
    wrong = []
    for item in items:
        key, equals, value = item.partition("=")
        if equals and key.strip():
            pairs[key.strip()] = value
        else:
            # Not shown whole: what lacks its key may be a password.
            wrong.append(f"{flag} {key if equals else '...'}: write it as KEY=VALUE")
    if wrong:
        raise ConfigError(*wrong)
    return pairs
