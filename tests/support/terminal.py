"""A terminal for tests: one that is drawn on, and one that a process can be started in.

`Screen` understands what `kqmp.obs.status` and ordinary programs write, as ECMA-48 and xterm
define it: save and restore of the cursor, the scrolling region, index, cursor moves, erasing.
Anything else is an error, so that no sequence passes unseen.
"""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

_TOKEN = re.compile(
    r"\x1b(?P<single>[78D])"
    r"|\x1b\[(?P<numbers>[0-9;]*)(?P<command>[A-Za-z])"
    r"|(?P<control>[\r\n])"
    r"|(?P<text>[^\x1b\r\n\x00-\x1f])"
)

#: Makes the terminal on stdin the controlling one of a new session, then becomes the command.
_ENTER = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execv(sys.argv[1], sys.argv[1:])"
)


class Screen:
    """What a terminal shows, and what has scrolled off its top."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.columns = columns
        self.rows = rows
        self.lines = [""] * rows
        #: Lines that left the screen at its top, first to last.
        self.history: list[str] = []
        self.row = self.column = 0
        self._saved = (0, 0)
        self._top, self._bottom = 0, rows - 1

    def feed(self, text: str) -> None:
        """Take output as the terminal gets it (line ends as \\r\\n)."""
        place = 0
        while place < len(text):
            token = _TOKEN.match(text, place)
            assert token is not None, f"not understood: {text[place : place + 20]!r}"
            place = token.end()
            if token["single"]:
                self._single(token["single"])
            elif token["command"]:
                numbers = [int(n) for n in token["numbers"].split(";") if n]
                self._sequence(token["command"], numbers)
            elif token["control"] == "\r":
                self.column = 0
            elif token["control"] == "\n":
                self._index()
            else:
                self._put(token["text"])

    def grow(self, rows: int) -> None:
        """Give it more rows, at the bottom; the scrolling region is the whole screen again."""
        self.lines += [""] * (rows - self.rows)
        self.rows = rows
        self._top, self._bottom = 0, rows - 1

    def written(self) -> list[str]:
        """Return all lines that were ever written, down to the cursor's, less empty ones."""
        return [line.rstrip() for line in self.history + self.lines if line.strip()]

    def _single(self, what: str) -> None:
        if what == "7":
            self._saved = (self.row, self.column)
        elif what == "8":
            self.row, self.column = self._saved
        else:
            self._index()

    def _sequence(self, command: str, numbers: list[int]) -> None:
        if command == "A":
            self.row = max(self._top, self.row - (numbers or [1])[0])
        elif command == "H":
            row, column = [*numbers, 1, 1][:2]
            self.row, self.column = min(row, self.rows) - 1, column - 1
        elif command == "K":
            assert numbers == [2]
            self.lines[self.row] = ""
        elif command == "r":
            top, bottom = numbers or (1, self.rows)
            assert top < bottom <= self.rows
            self._top, self._bottom = top - 1, bottom - 1
            self.row = self.column = 0
        else:
            assert command == "m", f"CSI {numbers} {command}"

    def _index(self) -> None:
        if self.row == self._bottom:
            gone = self.lines.pop(self._top)
            self.lines.insert(self._bottom, "")
            if self._top == 0:
                self.history.append(gone)
        else:
            self.row = min(self.row + 1, self.rows - 1)

    def _put(self, char: str) -> None:
        if self.column == self.columns:
            self.column = 0
            self._index()
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
        self.column += 1


class Session:
    """A process in a terminal of its own, as a user's shell would start it."""

    def __init__(
        self, command: list[str], cwd: Path, env: dict[str, str], size: tuple[int, int] = (100, 30)
    ) -> None:
        columns, rows = size
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.output = b""
        self._hung_up = False
        with os.fdopen(slave, "rb+", buffering=0, closefd=True) as terminal:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _ENTER, *command],
                cwd=cwd,
                env={**os.environ, "TERM": "xterm-256color", **env},
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
            )

    def type(self, text: str) -> None:
        """Press keys; \\x03 is Ctrl-C."""
        os.write(self._master, text.encode())

    def read(self, timeout_s: float) -> bool:
        """Take what is shown now, waiting up to `timeout_s` for it; False at the end."""
        if self._hung_up or not select.select([self._master], [], [], timeout_s)[0]:
            return not self._hung_up
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.output += data
        return bool(data)

    def read_until(self, wanted: str, timeout_s: float = 40.0) -> None:
        """Take output until `wanted` was shown."""
        deadline = time.monotonic() + timeout_s
        while wanted.encode() not in self.output:
            assert time.monotonic() < deadline, f"never shown: {wanted}\n{self.text}"
            assert self.read(0.2) or wanted.encode() in self.output, f"ended: {self.text}"

    def wait(self, timeout_s: float = 40.0) -> int:
        """Take output to the end of the process and return its exit code."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running:\n{self.text}"
            if not self.read(0.1):
                time.sleep(0.02)
        while select.select([self._master], [], [], 0)[0] and self.read(0):
            pass
        return self.process.wait()

    def hang_up(self) -> None:
        """Close the terminal's window."""
        self._hung_up = True
        os.close(self._master)

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace")

    def close(self) -> None:
        """End the whole session."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if not self._hung_up:
            self.hang_up()
