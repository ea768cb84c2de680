"""Entry of `kqmp`: quiet under an early Ctrl-C, then the click commands.

Imports next to nothing, so that the time in which Python would answer a Ctrl-C with a traceback is
as short as can be.
"""

import signal


def main() -> None:
    """Run the command line; does not return."""
    # Until a command has handlers of its own an interrupt just ends the process, which has no
    # children yet. click would print "Aborted!", Python a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kqmp.cli.commands import cli

    cli(prog_name="kqmp")
