"""One live status line at the foot of a terminal, out of the way of everything else.

The last row of the terminal is taken out of the region that scrolls, as apt does it: whatever the
handlers, the log or anybody else writes scrolls above, and the line is drawn below. Each drawing
is one small write, which a terminal never tears. Where the output is no terminal nothing is ever
written. After a kill -9 the row stays reserved until `reset`, as nobody is left to free it.
"""

import contextlib
import os
from collections.abc import Mapping
from typing import Final

#: A smaller terminal gets no status line.
ROWS_LOW: Final = 4
COLUMNS_LOW: Final = 20

_SAVE, _RESTORE = "\x1b7", "\x1b8"
_DOWN, _UP = "\x1bD", "\x1b[1A"
_WHOLE_SCREEN = "\x1b[r"


class LiveLine:
    """The status line on one descriptor. Never raises because of the terminal."""

    def __init__(self, fd: int, env: Mapping[str, str]) -> None:
        """Look at the descriptor; nothing is written before `show`.

        Args:
            fd: where to draw, usually 2.
            env: TERM and NO_COLOR are read (https://no-color.org).
        """
        self._fd = fd
        self._is_bold = not env.get("NO_COLOR")
        #: (columns, rows) for which the last row is reserved now.
        self._reserved: tuple[int, int] | None = None
        self.is_possible = env.get("TERM", "") not in ("", "dumb") and _is_terminal(fd)

    def show(self, text: str) -> None:
        """Draw `text`, cut to the width of the terminal.

        Hidden instead while this process is in the background of its shell, or the terminal too
        small.
        """
        if not self.is_possible:
            return
        size = self._size()
        if size is None:
            self.hide()
            return
        columns, rows = size
        line = text[: columns - 1]
        if self._is_bold:
            line = f"\x1b[1m{line}\x1b[0m"
        self._write(f"{self._reserve(size)}{_SAVE}{_row(rows)}{line}{_RESTORE}")

    def hide(self) -> None:
        """Give the last row back. Idempotent; `show` takes it again."""
        if self._reserved is not None:
            _, rows = self._reserved
            self._reserved = None
            self._write(f"{_SAVE}{_WHOLE_SCREEN}{_row(rows)}{_RESTORE}")

    def _size(self) -> tuple[int, int] | None:
        """Return (columns, rows), None where no line may be drawn."""
        try:
            columns, rows = os.get_terminal_size(self._fd)
            is_ours = os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return None
        fits = rows >= ROWS_LOW and columns >= COLUMNS_LOW
        return (columns, rows) if fits and is_ours else None

    def _reserve(self, size: tuple[int, int]) -> str:
        """Return what takes the last row out of the scrolling region; empty if it is."""
        if size == self._reserved:
            return ""
        # After a change of size the old line stands somewhere in the text.
        clear = "" if self._reserved is None else _row(self._reserved[1])
        self._reserved = size
        reset = f"{_SAVE}{_WHOLE_SCREEN}{clear}{_RESTORE}"
        # Down and up again: if the cursor is in the last row, the text scrolls up first.
        return f"{reset}{_DOWN}{_SAVE}\x1b[1;{size[1] - 1}r{_RESTORE}{_UP}"

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode("utf-8", "replace"))


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _row(row: int) -> str:
    """Return what moves the cursor to the start of a row and empties it."""
    return f"\x1b[{row};1H\x1b[2K"
