"""The click group `kqmp`, whose commands are imported when they are asked for."""

import importlib
from typing import Final

import click

import kqmp

#: Command -> (module, attribute, line for `kqmp --help`).
COMMANDS: Final = {
    "run": ("kqmp.cli.run", "run", "Consume a topic with a handler on every core."),
    "check": ("kqmp.cli.check", "check", "Check file, handler, brokers and topic; start nothing."),
    "push": ("kqmp.cli.push", "push", "Push lines to a topic, one message each."),
    "tail": ("kqmp.cli.tail", "tail", "Show the messages of a topic, in no group."),
    "lag": ("kqmp.cli.lag", "lag", "Show how far a group is behind, and when it is done."),
    "topic": ("kqmp.cli.topic", "topic", "Create topics and look at them."),
    "demo": ("kqmp.cli.demo", "demo", "See it work on a mock cluster; no broker needed."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`kqmp COMMAND --help` tells the rest.",
)
@click.version_option(kqmp.__version__, package_name="kqmp", message="%(prog)s %(version)s")
def cli() -> None:
    """A Kafka consumer engine whose handlers run on every core: go-queue's kq for Python."""
