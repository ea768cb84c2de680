"""The control plane: the typed messages between the coordinator and its children.

They travel over a `channel.Channel` as msgpack (no pickle: nothing there can run code). Data never
does; positions, claims and orders do, a few a second.
"""

from collections.abc import Iterator
from typing import Final, Literal, TypeVar, Union

import msgspec

_T = TypeVar("_T")

#: Most partitions in one message, so that each fits a socket buffer.
ITEMS_MAX: Final = 2000


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
    #: Why its messages do not come by the fast path, "" where they do (fetcher).
    slow_because: str = ""


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
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(_KINDS).decode


def in_messages(items: list[_T]) -> Iterator[list[_T]]:
    """Cut a list of partitions into pieces that fit one message each."""
    for start in range(0, len(items), ITEMS_MAX):
        yield items[start : start + ITEMS_MAX]
