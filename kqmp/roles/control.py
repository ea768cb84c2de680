"""The control plane: typed messages between the coordinator and its children, over a socketpair.

`SOCK_SEQPACKET` keeps message borders, so that a message is either there whole or not at all, also
when its sender dies. Messages are msgpack (no pickle: nothing on this socket can run code). Data
never travels here; positions, claims and orders do, a few a second.
"""

import contextlib
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final, Literal, TypeVar, Union

import msgspec

_T = TypeVar("_T")

#: Most partitions in one message, so that each fits a socket buffer.
ITEMS_MAX: Final = 2000
_RECEIVE_BYTES: Final = 1 << 20
_BUFFER_BYTES: Final = 1 << 19
#: A reader that takes nothing for so long is frozen: it is replaced, or we end.
SEND_S: Final = 2.0


class Message(msgspec.Struct, frozen=True, gc=False):
    """Base of all control messages."""


def role_name(*parts: str) -> str:
    """Return how a process is called in `ps` and in logs: "processor 0.3", "fetcher Orders 0"."""
    return " ".join(filter(None, parts))


class ProcessorSpec(Message, frozen=True, gc=False, tag="processor_spec"):
    """First word to a processor. Descriptors are inherited under the numbers given here."""

    name: str
    fetcher: int
    index: int
    topic: str
    #: msgpack of a `HandlerRef`: a name, which only the processor resolves.
    handler: bytes
    lane_fd: int
    dispatch_fd: int
    bell_fd: int
    force_commit: bool
    max_attempts: int
    #: JSON of the section and of the whole parsed file, for the handler's context.
    section: bytes
    document: bytes
    log_level: str
    log_encoding: Literal["plain", "json"]
    label: str = ""

    @property
    def role(self) -> str:
        """Its name in `ps` and in logs."""
        return role_name("processor", self.label, f"{self.fetcher}.{self.index}")


class FetcherSpec(Message, frozen=True, gc=False, tag="fetcher_spec"):
    """First word to a fetcher."""

    name: str
    index: int
    #: Engine-wide number of this process.
    member: int
    conf: bytes
    #: Columns that the handler form wants: "timestamp", "headers".
    columns: list[str]
    dispatch_fd: int
    lane_fds: list[int]
    bell_fds: list[int]
    #: Whether this engine had an assignment before: then a broker outage never ends the fetcher.
    assigned_before: bool
    log_level: str
    log_encoding: Literal["plain", "json"]
    label: str = ""

    @property
    def role(self) -> str:
        """Its name in `ps` and in logs."""
        return role_name("fetcher", self.label, str(self.index))


class EngineSpec(Message, frozen=True, gc=False, tag="engine_spec"):
    """First word of a `Queue`, or of a parent, to the coordinator that it started."""

    #: msgpack of a `HandlerRef`.
    handler: bytes
    #: `KqConf.to_wire()`.
    conf: bytes
    #: Whether it may draw a status line, if its stderr is a terminal.
    live: bool
    #: Socket on which it hands over the read ends of its children's stderr, -1 = they inherit ours.
    logs_fd: int
    log_level: str
    log_encoding: Literal["plain", "json"]
    #: Tells the processes of several engines under one parent apart: the section's name. "" if a
    #: program started it, whose death drains; a parent's death ends it at once.
    label: str = ""
    #: As in `ProcessorSpec`.
    section: bytes = b"{}"
    document: bytes = b"{}"
    #: Lines of its banner.
    notes: tuple[str, ...] = ()
    #: How often the program is sent metrics; 0 = never.
    metrics_interval_ms: int = 0
    #: Whether who started it serves its pages, and so is sent snapshots.
    relays: bool = False


class ProbeSpec(Message, frozen=True, gc=False, tag="probe_spec"):
    """First word to a probe: what to import."""

    #: msgpack of a `HandlerRef`.
    handler: bytes
    #: How long it may take; shortly before, the probe says where it hangs.
    limit_s: float
    log_level: str
    log_encoding: Literal["plain", "json"] = "plain"
    label: str = ""

    @property
    def role(self) -> str:
        """Its name in `ps` and in logs."""
        return role_name("probe", self.label)


class Ready(Message, frozen=True, gc=False, tag="ready"):
    """Child -> coordinator: imported and set up (processor), connected (fetcher)."""

    #: Partitions of the topic (fetcher).
    topic_partitions: int = 0


class Failed(Message, frozen=True, gc=False, tag="failed"):
    """Child -> coordinator: it cannot go on; it exits with `exit_code` after this."""

    exit_code: int
    text: str


class Probed(Message, frozen=True, gc=False, tag="probed"):
    """Probe -> coordinator: what TARGET is. `conf` is set if it was (or returned) a Queue."""

    handler: bytes
    name: str
    columns: list[str]
    conf: bytes = b""
    #: The queues, if it was (or returned) a ServiceGroup: then nothing else but the name is set.
    group: list["Probed"] = []


class Start(Message, frozen=True, gc=False, tag="start"):
    """Coordinator -> fetcher: all processors are ready, join the group."""


class Claims(Message, frozen=True, gc=False, tag="claims"):
    """Fetcher -> coordinator: (partition, committed position) of newly assigned partitions."""

    grant: int
    items: list[tuple[int, int]]
    #: The old position lay outside the log: the new one counts, even backwards.
    reset: bool = False
    #: Messages that exist already and will not be read (new group, Offset: last).
    unread: int = 0


class Opens(Message, frozen=True, gc=False, tag="opens"):
    """Coordinator -> fetcher: (partition, epoch, position) to read from."""

    grant: int
    items: list[tuple[int, int, int]]


class Released(Message, frozen=True, gc=False, tag="released"):
    """Fetcher -> coordinator: it dispatches no more of these; held messages are dropped."""

    grant: int
    partitions: list[int]
    #: Whether the fetcher waits in its revoke callback for `Closes`.
    answered: bool
    lost: bool = False


class Closes(Message, frozen=True, gc=False, tag="closes"):
    """Coordinator -> fetcher: (partition, epoch, final position) of released partitions."""

    grant: int
    items: list[tuple[int, int, int]]


class Commit(Message, frozen=True, gc=False, tag="commit"):
    """Coordinator -> fetcher: (partition, epoch, position) to commit."""

    items: list[tuple[int, int, int]]


class Committed(Message, frozen=True, gc=False, tag="committed"):
    """Fetcher -> coordinator: the broker's answer to a commit. Items refused are left out."""

    items: list[tuple[int, int, int]]
    error: str = ""


class Lag(Message, frozen=True, gc=False, tag="lag"):
    """Fetcher -> coordinator, each second: messages above committed positions, partitions."""

    lag: int
    partitions: int


class Ends(Message, frozen=True, gc=False, tag="ends"):
    """Fetcher -> coordinator, each second: (partition, end of its log as of the last fetch)."""

    items: list[tuple[int, int]]


class Joined(Message, frozen=True, gc=False, tag="joined"):
    """Fetcher -> coordinator: the group gave it an assignment (maybe an empty one)."""

    partitions: int


class Stop(Message, frozen=True, gc=False, tag="stop"):
    """Coordinator -> child: take nothing new. A fetcher dispatches what it holds.

    Program -> coordinator: drain and stop.
    """

    #: Longest time to drain, if it is less than DrainTimeout; -1 = that decides.
    within_ms: int = -1


class Interrupt(Message, frozen=True, gc=False, tag="interrupt"):
    """Program -> coordinator: it has received SIGINT for the `count`-th time.

    A terminal sends that signal to both of them: the larger count counts, not the sum.
    """

    count: int


class Started(Message, frozen=True, gc=False, tag="started"):
    """Coordinator -> program: handlers are set up, brokers answered, the group is being joined."""


class Metered(Message, frozen=True, gc=False, tag="metered"):
    """Coordinator -> program, each interval: msgpack of a `kqmp.obs.metrics.Metrics`."""

    metrics: bytes


class Observed(Message, frozen=True, gc=False, tag="observed"):
    """Coordinator -> parent, each second: what `kqmp.obs.snapshot.pack` made."""

    snapshot: bytes


class Ended(Message, frozen=True, gc=False, tag="ended"):
    """Coordinator -> program, its last word: exit code, and why if it is not clean."""

    exit_code: int
    text: str


class Drained(Message, frozen=True, gc=False, tag="drained"):
    """Fetcher -> coordinator: after `Stop`, nothing is held back any more."""


class Finish(Message, frozen=True, gc=False, tag="finish"):
    """Coordinator -> fetcher: commit these final positions, leave the group and exit."""

    items: list[tuple[int, int, int]]


_KINDS: Final = Union[tuple(Message.__subclasses__())]  # noqa: UP007 - built
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_KINDS).decode


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
        data = _encode(message)
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
            self._socket.send(_encode(message))

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
        message: Message = _decode(data)
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


def in_messages(items: list[_T]) -> Iterator[list[_T]]:
    """Cut a list of partitions into pieces that fit one message each."""
    for start in range(0, len(items), ITEMS_MAX):
        yield items[start : start + ITEMS_MAX]


def adopt(fd: int) -> socket.socket:
    """Return the inherited control socket `fd`, close-on-exec from now on."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)
    end.set_inheritable(False)
    return end
