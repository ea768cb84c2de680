"""Keep a reader that goes away from failing messages.

A handler that prints to `| head -1`, or to a terminal whose window was closed, would raise on every
message from then on, and with ForceCommit true each would be passed over. The coordinator stops the
engine when it notices; until then what is printed goes nowhere and the work is done all the same.
"""

import errno
import io
import sys
from typing import Any, Final, TextIO

#: The reader of a pipe is gone; the terminal is gone.
_GONE: Final = (errno.EPIPE, errno.EIO)


class _Forgiving(io.FileIO):
    """A descriptor that takes everything once nobody reads it any more."""

    def write(self, data: Any, /) -> int:
        """Write; what finds no reader counts as written."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Put streams that survive their readers in the place of `sys.stdout` and `sys.stderr`.

    Caller: a processor, before it imports the handler. Encoding and buffering stay as Python chose
    them, PYTHONUNBUFFERED and PYTHONIOENCODING included.
    """
    sys.stdout = _outliving(sys.stdout)
    sys.stderr = _outliving(sys.stderr)


def _outliving(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        # None, where the descriptor was closed at the start.
        return stream
    stream.flush()
    raw = _Forgiving(stream.fileno(), "w", closefd=False)
    # As `python -u` has it: nothing between the text and the descriptor.
    binary: Any = raw if stream.write_through else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        binary,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
