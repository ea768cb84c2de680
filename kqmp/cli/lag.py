"""`kqmp lag`: how far a group is behind, and when it will have caught up."""

import os
import time
from collections import deque
from typing import Any, Final

import click
import msgspec

from kqmp.cli import endpoint as flags
from kqmp.cli.lagtable import Report, described, jsonable, told
from kqmp.cli.stdout import Stdout
from kqmp.cli.table import aligned, tabbed
from kqmp.config import KqConf
from kqmp.core.lag import Look
from kqmp.errors import BrokerError, ConfigError
from kqmp.kafka.groups import Group, list_groups

#: Time over which rates are taken, where it is not said: once, and with --watch.
OVER_S: Final = 2.0
WATCH_OVER_S: Final = 10.0
WATCH_S: Final = 2.0
_SECONDS_MAX: Final = 3600
#: Longest time without a look at the reader of our output.
_IDLE_S: Final = 0.25

_HELP = f"""Show how far a group is behind in each partition, how fast, and when it is done.

GROUP may also come from --group or from the section of FILE. It may be any group, of kqmp or of
another program. Nothing is joined or committed. Without a GROUP: the list of groups and states.

Rates need two looks, so it takes {OVER_S:.0f} seconds; --over 0 answers at once, without them. A
group commits now and then (kqmp each second), so a short time says little about its rate.

On a terminal it is a table, redrawn by --watch. Into a pipe go lines of TOPIC PARTITION COMMITTED
END LAG COMMITTED/S PRODUCED/S DRAIN-SECONDS MEMBER with tabs in between; --watch writes such a
block each time, with an empty line behind it. What is not known is a dash; a lag that does not
shrink drains `never`.
"""
_EPILOG = f"""\b
Examples:
  kqmp lag orders-service --brokers localhost:9092
  kqmp lag -f etc/mq.yaml --watch
  kqmp lag -f etc/mq.yaml --over 0 --json | jq .lag

{flags.EXIT_CODES}"""


class _Seconds(click.FloatRange):
    """The value of --watch: an argument that follows it by mistake gets a hint."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            text = f"{value!r}: use a number of seconds from {self.min} to {self.max}"
            hint = "write GROUP before --watch, or --watch=SECONDS"
            raise click.BadParameter(f"{text} ({hint})", ctx, param) from None


@click.command(help=_HELP, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("named", required=False, metavar="[GROUP]")
@click.option(
    "-w",
    "--watch",
    type=_Seconds(min=0.1, max=_SECONDS_MAX),
    is_flag=False,
    flag_value=WATCH_S,
    metavar="[SECONDS]",
    help=f"Look again each SECONDS ({WATCH_S:.0f} if not said), until Ctrl-C.",
)
@click.option(
    "--over",
    type=click.FloatRange(min=0, max=_SECONDS_MAX),
    metavar="SECONDS",
    help=(
        f"Time over which rates are taken: {OVER_S:.0f} if not said, with --watch"
        f" {WATCH_OVER_S:.0f}."
    ),
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a look, each on a line.")
@flags.endpoint_options("brokers", "group", "topic")
def lag(**options: Any) -> None:
    """Look at a group; the text for users is `_HELP`."""
    with flags.ending():
        given = flags.take(options, group=options.pop("named"))
        where = flags.read(given)
        if not where.group:
            if options["watch"] is not None:
                raise ConfigError("no group to watch: name it, such as kqmp lag orders-service -w")
            _list(where.conf, Stdout(), as_json=options["as_json"])
            return
        # The Topic of a section does not limit what is shown: a group may have more than one.
        topic = where.topic if "topic" in given.shortcuts else ""
        screen = _Screen(
            Stdout(), as_json=options["as_json"], is_watch=options["watch"] is not None
        )
        with Group(where.conf, where.group, topic) as group:
            if options["watch"] is None:
                over_s = OVER_S if options["over"] is None else options["over"]
                _once(group, screen, over_s)
            else:
                over_s = WATCH_OVER_S if options["over"] is None else options["over"]
                _watch(group, screen, options["watch"], over_s)


def _list(conf: KqConf, out: Stdout, *, as_json: bool) -> None:
    found = list_groups(conf)
    if as_json:
        rows = [{"group": one.name, "state": one.state} for one in found]
        out.write(msgspec.json.Encoder().encode_lines(rows))
    else:
        out.lines(aligned(("GROUP", "STATE"), found) if out.is_terminal else tabbed(found))


class _Screen:
    """Shows reports: drawn over each other on a watched terminal, one after another elsewhere."""

    def __init__(self, out: Stdout, *, as_json: bool, is_watch: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._is_watch = is_watch
        self._is_drawn = is_watch and out.is_terminal and not as_json
        self._is_clear = False

    def show(self, report: Report) -> None:
        if self._as_json:
            self._out.write(
                msgspec.json.encode(jsonable(report, time.time_ns() // 1_000_000)) + b"\n"
            )
        elif self._is_drawn:
            self._draw(described(report))
        elif self._out.is_terminal:
            self._out.lines(described(report))
        else:
            self._out.lines(told(report) + [""] * self._is_watch)

    def trouble(self, text: str) -> None:
        """Say why there is no new report."""
        click.echo(f"kqmp lag: {text}", err=True)

    def wait(self, group: Group, until_s: float) -> None:
        """Wait for a moment of the monotonic clock, as long as somebody reads."""
        while (left_s := until_s - time.monotonic()) > 0:
            self._out.check()
            group.idle(min(left_s, _IDLE_S))

    def _draw(self, lines: list[str]) -> None:
        size = os.get_terminal_size(1)
        cut = [line[: size.columns] for line in lines[: size.lines - 1]]
        clear = "" if self._is_clear else "\x1b[2J"
        self._is_clear = True
        body = "".join(f"{line}\x1b[K\n" for line in cut)
        self._out.write(f"{clear}\x1b[H{body}\x1b[J".encode())


def _once(group: Group, screen: _Screen, over_s: float) -> None:
    first = group.look()
    if not over_s:
        screen.show(Report(group.name, None, first))
        return
    screen.wait(group, first.at_s + over_s)
    screen.show(Report(group.name, first, group.look()))


def _watch(group: Group, screen: _Screen, every_s: float, over_s: float) -> None:
    looks: deque[Look] = deque([group.look()])
    while True:
        screen.show(Report(group.name, looks[0] if len(looks) > 1 else None, looks[-1]))
        next_s = looks[-1].at_s + every_s
        while True:
            screen.wait(group, next_s)
            try:
                looks.append(group.look())
                break
            except BrokerError as error:
                # Brokers restart; who watches wants to see what comes after.
                screen.trouble(str(error))
                next_s = time.monotonic() + every_s
        while len(looks) > 2 and looks[-1].at_s - looks[1].at_s >= over_s:
            looks.popleft()
