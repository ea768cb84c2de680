"""`kqmp tail`: read a topic from anywhere, in no group."""

import functools
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import click

from kqmp.cli import endpoint as flags
from kqmp.cli import lines
from kqmp.cli.starting import RULE, parse_start
from kqmp.cli.stdout import Stdout
from kqmp.errors import ConfigError
from kqmp.kafka.findings import counted
from kqmp.kafka.reading import BATCH_MESSAGES, Batch, Reader, Start

_HELP = f"""Show the messages of a topic, and go on as they come, like tail -f.

Joins no group and commits nothing, so it may look at any topic at any time. TOPIC may also come
from --topic or from the section of FILE, a consumer's or a pusher's.

On a terminal a line is for people; into a pipe go partition, offset, time (UTC), key, value and
headers, with tabs in between; null is a dash. In both, control characters and bytes that are not
UTF-8 are written as escapes. What is exact: --json (such bytes as {{"base64": ...}}) and --raw.

\b
-o is where to begin, in each partition:
  {RULE.replace(", ", chr(10) + "  ")}
"""
_EPILOG = f"""\b
Examples:
  kqmp tail orders --brokers localhost:9092
  kqmp tail -f etc/mq.yaml -o -10 -e
  kqmp tail -f etc/mq.yaml -o 2026-01-31T08:00 --json | jq .value
  kqmp tail -f etc/mq.yaml -o beginning -e --raw > values.txt

{flags.EXIT_CODES}"""
#: Longest time without a look at the reader of our output.
_IDLE_S: Final = 0.25


@click.command(help=_HELP, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("named", required=False, metavar="[TOPIC]")
@click.option(
    "-o", "--offset", default="end", show_default=True, metavar="WHERE", help="Where to begin."
)
@click.option(
    "-p",
    "--partition",
    "partitions",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="N",
    help="Read only this partition. May be repeated.",
)
@click.option(
    "-c", "--count", type=click.IntRange(min=1), metavar="N", help="End after N messages."
)
@click.option(
    "-e", "--exit", "stop_at_end", is_flag=True, help="End when all that is there by now was read."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--raw", is_flag=True, help="Only values, byte for byte, each with a line end.")
@click.option(
    "-K",
    "--key-separator",
    metavar="TEXT",
    help=r"With --raw: the key and TEXT before each value; \t is a tab.",
)
@flags.endpoint_options("brokers", "topic")
def tail(**options: Any) -> None:
    """Read until told to stop; the text for users is `_HELP`."""
    with flags.ending():
        given = flags.take(options, topic=options.pop("named"))
        start = parse_start(options["offset"], time.time_ns() // 1_000_000)
        where = flags.read(given)
        if not where.topic:
            raise ConfigError("no topic: name it as TOPIC, such as kqmp tail orders")
        out = Stdout()
        render = _render(where.topic, out, options)
        with Reader(
            where.conf,
            where.topic,
            start,
            partitions=options["partitions"],
            columns=("keys", "values") if options["raw"] else Batch._fields,
            stop_at_end=options["stop_at_end"],
        ) as reader:
            if sys.stderr is not None and sys.stderr.isatty() and not options["stop_at_end"]:
                click.echo(waiting(reader.topic, len(reader.partitions), start), err=True)
            _copy(reader, out, render, options["count"])


def waiting(topic: str, partitions: int, start: Start) -> str:
    """Say what a tail that follows waits for."""
    number = f"{start.number:,}"
    if start.kind == "time":
        time_ms = datetime.fromtimestamp(start.number / 1000, UTC)
        number = f"{time_ms:%Y-%m-%dT%H:%M:%SZ}"
    where = {
        "beginning": "from the beginning",
        "end": "from the end, so only what comes now",
        "back": f"the last {number} of each and what comes",
        "time": f"from {number} on",
        "offset": f"from offset {number} on",
    }[start.kind]
    return f"kqmp tail: {topic}, {counted(partitions, 'partition')}, {where}; Ctrl-C ends it"


def _render(topic: str, out: Stdout, options: dict[str, Any]) -> lines.Render:
    separator = options["key_separator"]
    if options["as_json"] and options["raw"]:
        raise ConfigError("--json and --raw: choose one")
    if separator is not None and not options["raw"]:
        raise ConfigError("--key-separator is for --raw: add it")
    if options["raw"]:
        text = None if separator is None else separator.replace("\\t", "\t").encode()
        return functools.partial(lines.raw_lines, key_separator=text)
    if options["as_json"]:
        return functools.partial(lines.json_lines, topic=topic)
    if out.is_terminal:
        return functools.partial(lines.for_people, has_color=out.has_color)
    return lines.columns


def _copy(reader: Reader, out: Stdout, render: lines.Render, count: int | None) -> None:
    """Write what is read, batch by batch, until `count` or the end is reached."""
    told: set[str] = set()
    left = count
    while not reader.is_finished and left != 0:
        most = BATCH_MESSAGES if left is None else min(left, BATCH_MESSAGES)
        batch: Batch | None = reader.read(_IDLE_S, most)
        if batch is None:
            out.check()
            _tell_trouble(reader, told)
            continue
        out.write(render(batch))
        told.clear()
        if left is not None:
            left -= len(batch.offsets)


def _tell_trouble(reader: Reader, told: set[str]) -> None:
    """Say each thing that is wrong with the connections once; librdkafka goes on trying.

    Args:
        reader: asked what is wrong.
        told: what was said since the last message came.
    """
    for text in reader.trouble():
        if text not in told:
            told.add(text)
            click.echo(f"kqmp tail: {text}", err=True)
