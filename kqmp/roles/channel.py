"""One end of a socketpair over which the coordinator and a child exchange control messages.

`SOCK_SEQPACKET` keeps message borders, so that a message is either there whole or not at all, also
when its sender dies.
"""

import contextlib
import select
import socket
import sys
import time
from typing import Final

from kqmp.roles.control import Message, decode, encode

_RECEIVE_BYTES: Final = 1 << 20
_BUFFER_BYTES: Final = 1 << 19
#: A reader that takes nothing for so long is frozen: it is replaced, or we end.
SEND_S: Final = 2.0


class Channel:
    """One end of a control socket. Not thread-safe; each process has one thread that uses it."""

    __slots__ = ("_socket", "closed")

    def __init__(self, end: socket.socket) -> None:
        """Take over `end`, one of a `pair()`."""
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        end.setblocking(False)
        self._socket = end
        #: Whether the other end is gone; whoever finds it so ends its work.
        self.closed = False

    def fileno(self) -> int:
        """Return the descriptor, for selectors."""
        return self._socket.fileno()

    def send(self, message: Message) -> bool:
        """Send one message, waiting up to `SEND_S` while the other end reads nothing.

        Returns:
            False if it was not sent: the other end is gone, or frozen.
        """
        data = encode(message)
        deadline = time.monotonic() + SEND_S
        while True:
            try:
                self._socket.send(data)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                poller = select.poll()
                poller.register(self._socket, select.POLLOUT)
                poller.poll(100)
            except ConnectionError:
                return False
            else:
                return True

    def offer(self, message: Message) -> None:
        """Send one message if there is room for it now; else it is left out."""
        with contextlib.suppress(OSError):
            self._socket.send(encode(message))

    def tell(self, message: Message) -> None:
        """Send the coordinator a message; without it this process has no purpose and ends.

        Caller: children. A claim or an answer that is lost would leave a partition hanging.

        Raises:
            SystemExit: the coordinator is gone or frozen.
        """
        if not self.send(message):
            sys.exit(1)

    def receive(self) -> list[Message]:
        """Return the messages that are there, without waiting; sets `closed` at the end."""
        messages: list[Message] = []
        while (message := self._receive_one()) is not None:
            messages.append(message)
        return messages

    def _receive_one(self) -> Message | None:
        if self.closed:
            return None
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return None
        message: Message = decode(data)
        return message

    def wait(self, timeout_s: float) -> list[Message]:
        """Return the messages that are there, waiting up to `timeout_s` for the first."""
        self._wait(timeout_s)
        return self.receive()

    def wait_one(self, timeout_s: float) -> Message | None:
        """Return one message, waiting up to `timeout_s` for it; those behind it stay."""
        self._wait(timeout_s)
        return self._receive_one()

    def _wait(self, timeout_s: float) -> None:
        if timeout_s > 0 and not self.closed:
            poller = select.poll()
            poller.register(self._socket, select.POLLIN)
            poller.poll(timeout_s * 1000)

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._socket.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new control socket, close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def adopt(fd: int) -> socket.socket:
    """Return the inherited control socket `fd`, close-on-exec from now on."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)
    end.set_inheritable(False)
    return end
