"""What one engine is like at one moment: everything worth exporting, as plain data.

The coordinator takes a `Snapshot` at most once a second, from shared memory and its own tables;
threads that serve or post it, and the parent of several engines, only read it. Pure.
"""

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from kqmp.obs import stats

#: `Partition.end` while the fetcher has not heard it yet.
UNKNOWN: Final = -1

#: A snapshot older than this was not renewed: the coordinator's loop does not turn.
STALE_S: Final = 10.0
#: A process that is not up for so long is worth an alarm: it dies again and again, or never starts.
DOWN_S: Final = 30.0
#: So long commits may be refused in a row; a rebalance takes less, a lost cluster more.
REFUSED_S: Final = 60.0
#: Without a finished message for so long, while some are in flight, the engine stands still ...
STALL_S: Final = 60.0
#: ... unless its messages take that long: ten times their average time is allowed ...
STALL_AVERAGES: Final = 10
#: ... and so much before the first one was finished.
STALL_FIRST_S: Final = 300.0


class Processor(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One lane and the processor in it. Counters only rise, across its successors too."""

    fetcher: int
    index: int
    #: Seconds since it was last up; 0 while it is.
    down_s: float
    #: Processes that took the place of a dead one.
    restarts: int
    #: Messages finished, whatever came of them.
    consumed: int
    #: Of these, what raised and was passed over.
    failed: int
    #: Of these, what killed its processors and was passed over.
    set_aside: int
    #: Handler calls beyond the first one for a message.
    retried: int
    #: Handler calls that were timed (a sample), the sum of their times, and how many took how long,
    #: by `kqmp.obs.histogram.bucket`.
    timed: int
    timed_ns: int
    histogram: list[int]


class Fetcher(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One fetcher. Counters only rise, across its successors too."""

    index: int
    #: Seconds since it was last up; 0 while it is.
    down_s: float
    restarts: int
    #: Messages taken from librdkafka, their value bytes, and those dropped on arrival, as they
    #: belong to a partition that is not read any more.
    fetched: int
    fetched_bytes: int
    dropped: int
    #: How often the fetching of a partition was paused.
    pauses: int
    #: Messages that wait in its bays now.
    held: int
    #: Assignments that the group gave it.
    assignments: int


class Partition(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One partition that this engine reads now. All positions are the next offset."""

    partition: int
    fetcher: int
    #: Everything below is finished.
    position: int
    #: As confirmed by the broker.
    committed_position: int
    #: Everything below was fetched.
    fetched_position: int
    #: End of the log as of the last fetch; `UNKNOWN` before it.
    end: int

    @property
    def in_flight(self) -> int:
        """Offsets fetched and not finished, or finished above an unfinished one."""
        return self.fetched_position - self.position

    @property
    def lag(self) -> int | None:
        """Offsets above the committed position; None while the end is not known."""
        return None if self.end < 0 else max(0, self.end - self.committed_position)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """An engine at one moment."""

    #: Name in the stat lines, and the section where several run under one parent, else "".
    name: str
    section: str
    topic: str
    group: str
    #: Monotonic clock of this machine (one for all processes).
    at_s: float
    #: It takes messages: it neither stops nor ends.
    running: bool
    #: Handlers are set up, brokers have answered.
    started: bool
    #: The group has given it an assignment, maybe an empty one.
    assigned: bool
    #: Answers of the brokers to commits.
    commits: int
    commits_refused: int
    #: Since when commits are refused in a row, in seconds; 0 after one that was taken.
    refused_s: float
    #: How long nothing was finished while something was in flight, in seconds.
    stalled_s: float
    processors: list[Processor]
    fetchers: list[Fetcher]
    partitions: list[Partition]

    @property
    def lag(self) -> int:
        """Offsets above the committed positions, as far as known."""
        return sum(partition.lag or 0 for partition in self.partitions)

    def sample(self) -> stats.Sample:
        """Return the counters of all processors together."""
        return stats.total(
            self.at_s,
            [
                stats.Lane(p.consumed, 0, p.failed, p.set_aside, p.retried, p.timed, p.timed_ns,
                           p.histogram)
                for p in self.processors
            ],
        )  # fmt: skip


def pack(snapshot: Snapshot) -> bytes:
    """Return what `unpack` reads: a few KB, since most of a histogram is empty."""
    return zlib.compress(msgspec.msgpack.encode(snapshot), level=1)


def unpack(data: bytes) -> Snapshot:
    """Read what `pack` of the same version of kqmp made."""
    return msgspec.msgpack.decode(zlib.decompress(data), type=Snapshot)


def health(snapshot: Snapshot | None, now_s: float) -> str:
    """Say why an engine is not well; "" while it is assigned and moves.

    An engine with nothing to do is well, and so is a member of the group that gets no partition.

    Args:
        snapshot: the latest one; None before the first.
        now_s: monotonic.
    """
    if snapshot is None:
        return "starting"
    age_s = now_s - snapshot.at_s
    if age_s > STALE_S:
        return f"the coordinator has not turned its loop for {age_s:.0f} s"
    if not snapshot.running:
        return "stopping"
    if not snapshot.started:
        return "starting: handlers are set up, brokers are asked"
    if not snapshot.assigned:
        return f"group {snapshot.group} has assigned nothing yet"
    return _process_down(snapshot) or _refused(snapshot) or _stalled(snapshot)


def _process_down(snapshot: Snapshot) -> str:
    down = [(f.down_s, f"fetcher {f.index}") for f in snapshot.fetchers]
    down += [(p.down_s, f"processor {p.fetcher}.{p.index}") for p in snapshot.processors]
    longest_s, title = max(down, default=(0.0, ""))
    return f"{title} has not been up for {longest_s:.0f} s" if longest_s > DOWN_S else ""


def _refused(snapshot: Snapshot) -> str:
    waiting = sum(p.position > p.committed_position for p in snapshot.partitions)
    if snapshot.refused_s <= REFUSED_S or not waiting:
        return ""
    return f"commits are refused for {snapshot.refused_s:.0f} s"


def _stalled(snapshot: Snapshot) -> str:
    if snapshot.stalled_s <= _patience_s(snapshot.processors):
        return ""
    count = sum(partition.in_flight for partition in snapshot.partitions)
    return f"no message was finished for {snapshot.stalled_s:.0f} s, {count:,} are in flight"


def _patience_s(processors: Sequence[Processor]) -> float:
    """Return how long nothing need be finished, by how long the handlers take."""
    timed = sum(p.timed for p in processors)
    if not timed:
        return STALL_FIRST_S
    average_s = sum(p.timed_ns for p in processors) / timed / 1e9
    return max(STALL_S, STALL_AVERAGES * average_s)
