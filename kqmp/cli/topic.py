"""`kqmp topic create` and `kqmp topic show`."""

from typing import Any

import click
import msgspec

from kqmp.cli import endpoint as flags
from kqmp.cli.options import pairs
from kqmp.cli.stdout import Stdout
from kqmp.cli.table import aligned, tabbed
from kqmp.configfile import Endpoint
from kqmp.errors import ConfigError
from kqmp.kafka import topics
from kqmp.kafka.findings import counted
from kqmp.kafka.topics import BROKERS_CHOICE, Topic

_HELP_FLAGS = {"help_option_names": ["-h", "--help"]}
_CREATE_HELP = """Create a topic, and wait until it can be used.

NAME may also come from --topic or from the section of FILE. How many partitions and copies it gets
if that is not said is the brokers' choice (num.partitions, default.replication.factor).
"""
_CREATE_EPILOG = f"""\b
Examples:
  kqmp topic create orders --brokers localhost:9092 --partitions 12 --replication 3
  kqmp topic create -f etc/mq.yaml --config retention.ms=86400000 --if-missing

{flags.EXIT_CODES}"""
_SHOW_HELP = """Show a topic: partitions, leaders, replicas, offsets, and the settings of its own.

NAME may also come from --topic or from the section of FILE. Without any, or with --all, the list of
topics; names that begin with __ are Kafka's own, and are listed only with --all.

Messages are counted by offsets: a compacted topic, or one with transactions, holds fewer.

On a terminal it is a table. Into a pipe go lines with tabs in between: of the list NAME PARTITIONS
REPLICATION MESSAGES; of one topic `partition` NUMBER LEADER REPLICAS IN-SYNC LOW HIGH MESSAGES,
then `config` NAME VALUE. What is not known is a dash.
"""
_SHOW_EPILOG = f"""\b
Examples:
  kqmp topic show --brokers localhost:9092
  kqmp topic show orders --brokers localhost:9092
  kqmp topic show -f etc/mq.yaml --json | jq .config

{flags.EXIT_CODES}"""


@click.group(context_settings=_HELP_FLAGS)
def topic() -> None:
    """Create topics and look at them."""


@topic.command(help=_CREATE_HELP, epilog=_CREATE_EPILOG, context_settings=_HELP_FLAGS)
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--partitions", type=click.IntRange(min=1), metavar="N", help="How many partitions.")
@click.option(
    "--replication", type=click.IntRange(min=1), metavar="N", help="Copies of each partition."
)
@click.option(
    "--config",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the topic, such as retention.ms=86400000. May be repeated.",
)
@click.option("--if-missing", is_flag=True, help="A topic that exists already is no error.")
@flags.endpoint_options("brokers", "topic")
def create(
    name: str | None,
    partitions: int | None,
    replication: int | None,
    config: tuple[str, ...],
    if_missing: bool,  # noqa: FBT001 - a flag of the command line
    **options: Any,
) -> None:
    """Create it; the text for users is `_CREATE_HELP`."""
    with flags.ending():
        settings = pairs(config, "--config")
        where = flags.read(flags.take(options, topic=name))
        if not where.topic:
            raise ConfigError("no topic: name it, such as kqmp topic create orders")
        out = Stdout()
        try:
            made = topics.create_topic(
                where.conf,
                where.topic,
                partitions or BROKERS_CHOICE,
                replication or BROKERS_CHOICE,
                settings,
            )
        except topics.TopicExists:
            if not if_missing:
                raise
            out.lines([f"topic {where.topic} exists already"])
        else:
            out.lines([f"created {headline(made)}"])


@topic.command(help=_SHOW_HELP, epilog=_SHOW_EPILOG, context_settings=_HELP_FLAGS)
@click.argument("name", required=False, metavar="[NAME]")
@click.option("-a", "--all", "all_topics", is_flag=True, help="List all topics, Kafka's own too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, one a topic.")
@flags.endpoint_options("brokers", "topic")
def show(name: str | None, all_topics: bool, as_json: bool, **options: Any) -> None:  # noqa: FBT001
    """Show it; the text for users is `_SHOW_HELP`."""
    with flags.ending():
        if name is not None and all_topics:
            raise ConfigError(f"topic show {name} --all: leave one of the two out")
        where = flags.read(flags.take(options, topic=name))
        out = Stdout()
        found = _found(where, all_topics=all_topics)
        if as_json:
            out.write(msgspec.json.Encoder().encode_lines([jsonable(one) for one in found]))
        elif where.topic and not all_topics:
            out.lines(described(found[0]) if out.is_terminal else told(found[0]))
        else:
            rows = [(one.name, len(one.partitions), one.replication, one.messages) for one in found]
            header = ("TOPIC", "PARTITIONS", "REPLICATION", "MESSAGES")
            out.lines(aligned(header, rows) if out.is_terminal else tabbed(rows))


def _found(where: Endpoint, *, all_topics: bool) -> list[Topic]:
    if where.topic and not all_topics:
        return [topics.show_topic(where.conf, where.topic)]
    listed = topics.list_topics(where.conf)
    return [one for one in listed if all_topics or not one.name.startswith("__")]


def headline(one: Topic) -> str:
    """Say how large a topic is."""
    return f"{one.name}: {counted(len(one.partitions), 'partition')}, replication {one.replication}"


def described(one: Topic) -> list[str]:
    """Describe a topic for people."""
    header = ("PARTITION", "LEADER", "REPLICAS", "IN SYNC", "LOW", "HIGH", "MESSAGES")
    out_of_sync = sum(len(part.in_sync) < len(part.replicas) for part in one.partitions)
    headless = sum(part.leader is None for part in one.partitions)
    notes = [f"{out_of_sync} not fully in sync"] if out_of_sync else []
    notes += [f"{headless} without a leader"] if headless else []
    own = one.config or {}
    settings = "settings of its own:" if own else "no settings of its own"
    if one.config is None:
        settings = "its settings are not shown to this user"
    return [
        ", ".join([headline(one), f"{one.messages:,} messages", *notes]),
        settings,
        *(f"  {name} = {value}" for name, value in own.items()),
        "",
        *aligned(header, _rows(one)),
    ]


def told(one: Topic) -> list[str]:
    """Write a topic for programs."""
    rows: list[tuple[object, ...]] = [("partition", *row) for row in _rows(one)]
    return tabbed([*rows, *(("config", name, value) for name, value in (one.config or {}).items())])


def _rows(one: Topic) -> list[tuple[object, ...]]:
    return [(*part, part.messages) for part in one.partitions]


def jsonable(one: Topic) -> dict[str, object]:
    """Return a topic in JSON's types."""
    return {
        "topic": one.name,
        "replication": one.replication,
        "messages": one.messages,
        "partitions": [{**part._asdict(), "messages": part.messages} for part in one.partitions],
        "config": one.config,
    }
