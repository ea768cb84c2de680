"""One pipe for each process's stderr, read by the program that runs a `Queue`.

A pipe that several processes share tears long records apart, so each process gets its own. The
coordinator makes it, hands the read end to the program over a socket, and never reads it itself:
what a million log records cost is the program's to pay, and a program that is gone leaves pipes
without a reader, into which records vanish.
"""

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Final

#: A longer line is cut: so much may wait for its end.
LINE_MAX: Final = 1 << 20
_READ_BYTES: Final = 1 << 16


class StderrPipes:
    """The coordinator's side: makes a child's stderr; the type is `kqmp.roles.spawn.Stderr`."""

    def __init__(self, fd: int) -> None:
        """Take over the inherited socket `fd`."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)
        self._socket.set_inheritable(False)
        self._socket.setblocking(False)

    def __call__(self) -> int:
        """Return the write end of a new pipe, whose read end is on its way to the program."""
        read_fd, write_fd = os.pipe()
        try:
            socket.send_fds(self._socket, [b"."], [read_fd])
        except OSError:
            # The program is gone, or takes nothing: what is written will find no reader.
            pass
        finally:
            os.close(read_fd)
        return write_fd


class PipeReader:
    """The program's side: cuts what comes out of the pipes into lines. For one thread."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        """Create the socket; every line goes to `take`, without its end."""
        self._take = take
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        #: For the coordinator; close it when that has been started.
        self.theirs = theirs
        self._pending: dict[int, bytes] = {}

    def create(self) -> int:
        """Return the write end of a new pipe that is read from now on: the coordinator's own."""
        read_fd, write_fd = os.pipe()
        self._add(read_fd)
        return write_fd

    def _add(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._pending[fd] = b""

    def fds(self) -> list[int]:
        """Return what to wait for."""
        return [self._ours.fileno(), *self._pending]

    def read(self) -> None:
        """Take new pipes, and all that is in the pipes now, a bounded amount of each."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                data, fds, _, _ = socket.recv_fds(self._ours, 16, 8)
                for fd in fds:
                    self._add(fd)
                if not data:
                    break
        for fd in list(self._pending):
            self._read(fd)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        *lines, rest = (self._pending[fd] + data).split(b"\n")
        if len(rest) > LINE_MAX or not data:
            lines, rest = [*lines, rest], b""
        self._pending[fd] = rest
        if not data:
            del self._pending[fd]
            os.close(fd)
        for line in lines:
            if line:
                self._take(line)

    def drain(self, timeout_s: float) -> None:
        """Read until every writer is gone, at most so long after the last word."""
        while self._pending:
            poller = select.poll()
            for fd in self._pending:
                poller.register(fd, select.POLLIN)
            if not poller.poll(timeout_s * 1000):
                return
            self.read()

    def close(self) -> None:
        """Close everything; a line without an end is taken as it is."""
        for fd, rest in self._pending.items():
            os.close(fd)
            if rest:
                self._take(rest)
        self._pending.clear()
        self._ours.close()
        self.theirs.close()
