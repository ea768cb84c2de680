"""The flags by which a cluster is named, for commands that run no engine, and how they end.

The same flags and sections as those of `kqmp run`: see `kqmp.cli.options`.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from kqmp.cli.failing import fail
from kqmp.cli.options import (
    Given,
    pairs,
    properties_option,
    require_file_of_section,
    sets_option,
    taken,
)
from kqmp.cli.stdout import ReaderGone
from kqmp.config.keys import CONSUMER, KeyTable
from kqmp.configfile import TOP_LEVEL, Endpoint, load_endpoint
from kqmp.errors import KqmpError

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SHORTCUTS = {"brokers": "HOST:PORT,...", "topic": "NAME", "group": "NAME"}
#: As in kcat.
_SHORT = {"brokers": "-b", "topic": "-t"}

EXIT_CODES = """\b
Exit codes:
    0  done, or nobody reads the output any more
    1  the output cannot be written, as on a full disk
    2  the file, a flag or a librdkafka property is wrong
    5  no broker answered or it refused us, or what was named does not exist
  130  ended by Ctrl-C
"""


def endpoint_options(*shortcuts: str, table: KeyTable = CONSUMER) -> Callable[[_Command], _Command]:
    """Add the flags that `take` picks up again; of the shortcuts only those named.

    Args:
        shortcuts: names of keys in Python.
        table: what they mean.
    """

    def add(command: _Command) -> _Command:
        for name in reversed(shortcuts):
            key = table.by_name[name]
            text = f"Short for --set {key.kq}=...: {key.meaning}."
            short = (_SHORT[name],) if name in _SHORT else ()
            command = click.option(*short, f"--{name}", metavar=_SHORTCUTS[name], help=text)(
                command
            )
        for decorate in (
            properties_option,
            sets_option("Username=me"),
            click.option(
                "--section",
                metavar="KEY",
                help=(
                    "Top-level key of FILE under which a consumer or a pusher stands;"
                    f" {TOP_LEVEL!r} is the top level."
                ),
            ),
            click.option(
                "-f",
                "--file",
                metavar="FILE",
                help="A .yaml, .yml, .json or .toml file: where the brokers are, how to log in.",
            ),
        ):
            command = decorate(command)
        return command

    return add


def take(options: dict[str, Any], **named: str | None) -> Given:
    """Take the flags of `endpoint_options` out of what click hands to a command.

    Args:
        options: what click hands over.
        named: what stands on the command line without a flag, by the keys' names in Python; None
            where it was left out. It wins over its flag.
    """
    shortcuts = {name: options.pop(name, None) for name in _SHORTCUTS}
    shortcuts |= {name: text for name, text in named.items() if text is not None}
    return taken(options, shortcuts)


def read(given: Given) -> Endpoint:
    """Read file and flags.

    Raises:
        ConfigError: with all problems at once.
    """
    require_file_of_section(given)
    return load_endpoint(
        given.file,
        given.section,
        overrides=pairs(given.sets, "--set"),
        kafka_overrides=pairs(given.properties, "-X"),
        shortcuts=given.shortcuts,
    )


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Run the body of a command; turn what ends it into an exit code and at most a line a problem.

    A reader that is gone (`| head`) is a good end: it has what it wanted.
    """
    try:
        yield
    except ReaderGone:
        sys.exit(0)
    except KqmpError as error:
        fail(error)
