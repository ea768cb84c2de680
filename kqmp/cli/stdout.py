"""Standard output for commands whose output goes on into other programs.

Unbuffered, so that nothing is left to be written, and to fail, when the process ends. Python
ignores SIGPIPE, and so must we: librdkafka's connections would otherwise end the process too.
"""

import errno
import os
import select
import sys

import click

from kqmp.obs.output import OutputWatch


class ReaderGone(Exception):
    """Nobody reads the output any more, as after `| head`."""


class Stdout:
    """Standard output, in bytes."""

    def __init__(self, fd: int = 1) -> None:
        """Look what `fd` is; if it is closed, open it on nothing.

        Else the first connection to a broker would be that descriptor.
        """
        _reserve(fd)
        self._fd = fd
        self._watch = OutputWatch((fd,))
        #: Whether a person reads it, and not a program.
        self.is_terminal = os.isatty(fd)
        self.has_color = self.is_terminal and not os.environ.get("NO_COLOR")

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            ReaderGone: there is no reader any more.
            SystemExit: it cannot be written (a full disk); said on stderr, exit code 1.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody else made it so, through a descriptor we share
                select.select([], [self._fd], [])
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.EIO):
                    raise ReaderGone from None
                click.echo(f"error: cannot write the output: {error.strerror}", err=True)
                sys.exit(1)

    def lines(self, lines: list[str]) -> None:
        """Write lines of text, each with its end."""
        self.write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))

    def check(self) -> None:
        """Notice that the reader is gone while there is nothing to write.

        Raises:
            ReaderGone: it is.
        """
        if self._watch.is_gone():
            raise ReaderGone


def _reserve(fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        if nothing != fd:
            os.dup2(nothing, fd)
            os.close(nothing)
