"""Lines of files and pipes, read in large blocks and as they come, until a signal says stop."""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Final

from kqmp.errors import ConfigError

#: One read. A pipe gives what it has.
BLOCK_BYTES: Final = 1 << 20
#: A longer line is no text; it would fill the memory before it could be refused.
LINE_BYTES_MAX: Final = 64 << 20

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequests:
    """Counts the signals that ask for an end, and wakes who waits for input. A context manager.

    Belongs to the main thread. Nothing is raised out of a signal, so that no message is half
    pushed: whoever works looks at `count` now and then.
    """

    def __init__(self) -> None:
        """Change nothing yet."""
        self.count = 0
        #: The first signal that came; 0 before.
        self.signal = 0
        self._saved: dict[int, Any] = {}
        self._receiver: socket.socket
        self._sender: socket.socket

    def __enter__(self) -> "StopRequests":
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._saved[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._saved.items():
            signal.signal(number, handler)
        self._receiver.close()
        self._sender.close()

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self.signal = self.signal or number
        with contextlib.suppress(BlockingIOError):
            self._sender.send(b"!")

    def wait_for_input(self, fd: int, timeout_s: float) -> bool:
        """Wait until there is something to read, or its end; false after the time or a signal."""
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.register(self._receiver, select.POLLIN)
        # A signal that comes just before this has written to the socket.
        found = dict(poller.poll(timeout_s * 1000))
        return not self.count and fd in found


def line_blocks(fd: int, name: str, stop: StopRequests, idle_s: float) -> Iterator[list[bytes]]:
    r"""Yield the lines of a descriptor without their \n, block by block; [] while there are none.

    The last line need not have an end. Ends after a signal: what was read so far is yielded, an
    unfinished line is not.

    Args:
        fd: a file, a pipe or a terminal.
        name: for errors.
        stop: looked at before each read.
        idle_s: how often [] is yielded while nothing comes.

    Raises:
        ConfigError: it cannot be read, or a line is longer than `LINE_BYTES_MAX`.
    """
    rest: list[bytes] = []
    rest_bytes = 0
    while not stop.count:
        if not stop.wait_for_input(fd, idle_s):
            yield []
            continue
        data = _read(fd, name)
        if not data:
            break
        lines = data.split(b"\n")
        if len(lines) > 1:
            if rest:
                lines[0] = b"".join([*rest, lines[0]])
            rest, rest_bytes = [], 0
            last = lines.pop()
            yield lines
            data = last
        if data:
            rest.append(data)
            rest_bytes += len(data)
        if rest_bytes > LINE_BYTES_MAX:
            raise ConfigError(
                f"{name}: a line is longer than {LINE_BYTES_MAX >> 20} MiB: is it text? With"
                " --whole each file is one message"
            )
    if rest and not stop.count:
        yield [b"".join(rest)]


def whole(fd: int, name: str, stop: StopRequests) -> bytes | None:
    """Read all there is; None after a signal.

    Raises:
        ConfigError: it cannot be read, or is larger than any message.
    """
    parts: list[bytes] = []
    size = 0
    while not stop.count:
        if not stop.wait_for_input(fd, 1.0):
            continue
        data = _read(fd, name)
        if not data:
            return b"".join(parts)
        parts.append(data)
        size += len(data)
        if size > LINE_BYTES_MAX:
            raise ConfigError(f"{name}: larger than {LINE_BYTES_MAX >> 20} MiB")
    return None


def _read(fd: int, name: str) -> bytes:
    try:
        return os.read(fd, BLOCK_BYTES)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
