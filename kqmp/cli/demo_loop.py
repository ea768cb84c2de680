"""The plain loop of `kqmp demo`, in a process of its own as the engine's processors are."""

import sys

from kqmp.cli.demo_handler import Handler
from kqmp.kafka.mock import exit_with_parent
from kqmp.kafka.plain import poll_loop


def main() -> None:
    """Entry of the process; its arguments are BOOTSTRAP TOPIC GROUP COUNT."""
    exit_with_parent()
    bootstrap, topic, group, count = sys.argv[1:]
    handler = Handler()
    handler.setup()
    poll_loop(bootstrap, topic, group, handler.consume, int(count))
