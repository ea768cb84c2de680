"""`kqmp run`: the coordinator as the process that the user sees."""

import json
import math
import sys
from typing import Any, Literal

import click
import msgspec

from kqmp.cli import options as flags
from kqmp.cli.failing import fail
from kqmp.configfile import Loaded
from kqmp.errors import ConfigError, ExitCode, HandlerImportError, KqmpError
from kqmp.handler import HandlerRef, parse_target
from kqmp.obs import logs
from kqmp.roles import exports, parent, service

_EXIT_CODES = "\n".join(
    f"  {int(code):>3}  {code.description}" for code in ExitCode if code != ExitCode.UNDELIVERED
)
_HELP = """Consume a topic with a handler on every core, until SIGTERM or Ctrl-C.

TARGET is the handler as module:name, looked up in the current directory first: a function
`consume(key, value)` or `consume(message)`, a class or an object with such a method `consume`. It
may also be a `Queue`, a `ServiceGroup` of queues, or a function without parameters that returns one
of these. Without TARGET the key Handler of the file names it.

A FILE with several consumers, sections with a Group, runs them all, each by its Handler and in
processes of its own: they stop as one, and one that fails ends all with its exit code. With TARGET
or --section it is one of them.

The file may be left out if the flags say all that is needed: --brokers, --group and --topic. Flags
win over the file.

SIGTERM or a first Ctrl-C takes nothing new, finishes what was taken, commits and leaves the group
(DrainTimeout bounds it). A second Ctrl-C stops at once: what was unfinished will be repeated.
"""
_EPILOG = f"""\b
Examples:
  kqmp run mqs:consume -f etc/mq.yaml
  kqmp run mqs:consume --brokers localhost:9092 --group thumbs --topic images
  kqmp run -f etc/all.yaml
  kqmp run mqs:consume -f etc/mq.yaml --set Offset=first -X fetch.error.backoff.ms=100

\b
Exit codes:
{_EXIT_CODES}
"""


@click.command(help=_HELP, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@flags.consumer_options
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="Log records below it are dropped, those of the handler too. Default: Log in FILE, or"
    " info.",
)
@click.option(
    "--log-format",
    type=click.Choice(["plain", "json"]),
    help="Log records on stderr: for people, or one JSON object a line. Default: Log in FILE, or"
    " plain.",
)
def run(
    target: str | None,
    log_level: str | None,
    log_format: Literal["plain", "json"] | None,
    **options: Any,
) -> None:
    """Run the engine in this process; the text for users is `_HELP`."""
    level = "" if log_level is None else log_level.upper()
    logs.setup("coordinator", level=level or "INFO", encoding=log_format or "plain")
    try:
        orders = _orders(target, flags.take(options), level, log_format or "")
        if len(orders) == 1:
            code, _ = service.run(orders[0], live=True, several=_run_all)
        else:
            code, _ = _run_all(orders)
    except KqmpError as error:
        fail(error, log_format or "plain")
    sys.exit(int(code))


def _run_all(orders: list[service.Order]) -> tuple[ExitCode, str]:
    """Run several sections; the parent logs as the first of them does."""
    specs = [service.spec_of(order) for order in orders]
    logs.setup("parent", level=specs[0].log_level, encoding=specs[0].log_encoding)
    confs = {order.label: order.conf for order in orders if order.conf is not None}
    return parent.run(specs, exports.PagesWatcher(confs))


def _orders(
    target: str | None,
    given: flags.Given,
    log_level: str,
    log_format: Literal["plain", "json", ""],
) -> list[service.Order]:
    """Put together what stands on the command line and in the file: one engine, or several.

    Raises:
        ConfigError: the file or a flag is wrong.
        HandlerImportError: TARGET or a Handler is not written as module:name.
    """
    try:
        found = flags.read_all(given) if target is None else [flags.read(given)]
    except ConfigError as error:
        if target is None or given.file is not None:
            raise
        # TARGET may be a Queue: it brings its configuration along, and the flags change that.
        order = service.Order(
            ref=parse_target(target),
            conf=None,
            missing=error.problems,
            changes=flags.changes(given),
            log_level=log_level,
            log_encoding=log_format,
        )
        return [order]
    labels = [""]
    if len(found) > 1:
        labels = service.unique([loaded.section or loaded.conf.name for loaded in found])
    return [
        msgspec.structs.replace(
            _order(target, given, loaded, label), log_level=log_level, log_encoding=log_format
        )
        for loaded, label in zip(found, labels, strict=True)
    ]


def _order(target: str | None, given: flags.Given, loaded: Loaded, label: str) -> service.Order:
    try:
        ref = _ref(target, loaded.conf.handler, given)
    except HandlerImportError as error:
        raise HandlerImportError(f"{label}: {error}" if label else str(error)) from None
    has_file = given.file is not None
    section = loaded.document.get(loaded.section, {}) if loaded.section else loaded.document
    return service.Order(
        ref=ref,
        conf=loaded.conf,
        has_file=has_file,
        changes={} if has_file else flags.changes(given),
        section=_json(section),
        document=_json(loaded.document),
        notes=tuple(loaded.notes),
        label=label,
    )


def _ref(target: str | None, handler: str, given: flags.Given) -> HandlerRef:
    if not target and not handler:
        where = f" or as Handler in {given.file}" if given.file else ""
        msg = f"no handler: name it as TARGET, such as mqs:consume,{where or ' after kqmp run'}"
        raise ConfigError(msg)
    return parse_target(target or handler)


def _json(parsed: object) -> bytes:
    """Write part of a parsed file for the handlers' context."""
    return json.dumps(_jsonable(parsed)).encode()


def _jsonable(value: object) -> object:
    """Return `value` in JSON's types: keys as text, dates and what is no number as text."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    is_plain = value is None or isinstance(value, str | bool | int)
    if is_plain or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
