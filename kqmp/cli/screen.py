"""Lines and live progress for a command that takes a while, on a terminal or without one."""

import contextlib
import os
import time
from types import TracebackType
from typing import IO, Final

import click

from kqmp.obs.status import LiveLine

#: Time between two updates of the live line, and between two lines where there is none.
LIVE_S: Final = 0.1
PLAIN_S: Final = 2.0


class Screen:
    """Writes lines to `out`, and progress: on the status line of a terminal, else as lines too.

    A context manager: gives the terminal's last row back.
    """

    def __init__(self, out: IO[str] | None) -> None:
        """Look what `out` is; None, as `sys.stdout` is where it was closed, shows nothing."""
        self._out = out
        self._live = LiveLine(_descriptor(out), os.environ)
        self._shown_s = 0.0

    def line(self, text: str = "") -> None:
        """Write a line that stays."""
        if self._out is not None:
            click.echo(text, file=self._out)

    def progress(self, text: str) -> None:
        """Show how far something is; most calls show nothing."""
        now_s = time.monotonic()
        if now_s - self._shown_s < (LIVE_S if self._live.is_possible else PLAIN_S):
            return
        self._shown_s = now_s
        if self._live.is_possible:
            self._live.show(text)
        else:
            self.line(text)

    def end_progress(self) -> None:
        """Take the status line away; without one the next progress waits its time."""
        self._live.hide()
        self._shown_s = time.monotonic()

    def __enter__(self) -> "Screen":
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._live.hide()


def _descriptor(out: IO[str] | None) -> int:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return -1 if out is None else out.fileno()
    return -1
