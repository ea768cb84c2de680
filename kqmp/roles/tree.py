"""The coordinator's children: their slots, shared memory, start, death and restart.

A slot outlives the processes in it: a lane keeps its memory, cursor and skip list across any number
of processors, a dispatch memory its log across any number of fetchers. What follows a death is
decided by `kqmp.core.supervision`; here it is carried out.
"""

import logging
import os
import resource
import time
from dataclasses import dataclass, field
from typing import Final, Literal

from kqmp.config import KqConf
from kqmp.config.memory import LOG_BYTES
from kqmp.core.inflight import Inflight, LaneState
from kqmp.core.supervision import Attempts, Death, GiveUp, Ladder, Role, blamed_message
from kqmp.errors import WorkerStartError
from kqmp.ring import bell, lane, log
from kqmp.ring import words as w
from kqmp.roles import control
from kqmp.roles.spawn import Child, Stderr, child_environment, spawn

#: Descriptors for everything else in the coordinator.
SPARE_DESCRIPTORS: Final = 128

logger = logging.getLogger("kqmp.coordinator")


@dataclass(frozen=True)
class Plan:
    """What an engine runs: the configuration and the handler's name."""

    conf: KqConf
    #: msgpack of a `HandlerRef`.
    handler: bytes
    handler_name: str
    #: Optional columns the handler form wants.
    columns: list[str]
    #: JSON of the section and of the whole parsed file.
    section: bytes = b"{}"
    document: bytes = b"{}"
    log_level: str = "INFO"
    log_encoding: Literal["plain", "json"] = "plain"
    #: The section, where several run under one parent.
    label: str = ""

    @property
    def name(self) -> str:
        """Name of the engine in `ps`, logs and stat lines."""
        return self.conf.name or self.conf.topic


@dataclass
class Slot:
    """A place for one child and what is remembered of the children that were in it."""

    role: Role
    title: str
    child: Child | None = None
    ladder: Ladder = field(default_factory=Ladder)
    #: Monotonic time at which the next child starts; None while one runs or none may.
    start_at_s: float | None = 0.0
    ready_s: float | None = None
    was_ever_ready: bool = False
    #: We killed it or told it to stop.
    ours: bool = False
    failed: control.Failed | None = None
    restarts: int = 0


@dataclass
class LaneSlot(Slot):
    """A lane and its processor."""

    index: int = 0
    fd: int = -1
    bell_fd: int = -1
    memory: lane.LaneControl = field(default=None)  # type: ignore[assignment]
    attempts: Attempts = field(default_factory=Attempts)
    #: Epochs closed by force -> the lane's end when that happened; messages of these are skipped.
    skip: dict[int, int] = field(default_factory=dict)
    #: Epochs whose close waits for the death of this lane's processor.
    forced: set[int] = field(default_factory=set)
    #: Messages that the handlers of this lane had returned for when the current child started.
    done_at_start: int = 0

    def done(self) -> int:
        """Return the messages that were handled or passed over, not set aside nor skipped."""
        counters = self.memory.counters()
        return self.memory.cursor - counters["set_aside"] - counters["skipped"]

    def state(self) -> LaneState:
        """Read cursor and open table, in this order."""
        cursor = self.memory.cursor
        return LaneState(cursor, self.memory.open_numbers(cursor))


@dataclass
class FetcherSlot(Slot):
    """A fetcher, its dispatch memory and its lanes."""

    index: int = 0
    dispatch_fd: int = -1
    reader: log.DispatchReader = field(default=None)  # type: ignore[assignment]
    inflight: Inflight = field(default=None)  # type: ignore[assignment]
    lanes: list[LaneSlot] = field(default_factory=list)
    #: Engine-wide number of the process in it.
    member: int = 0
    started: bool = False
    commit_sent_s: float | None = None
    dispatched_at_start: int = 0
    drained: bool = False
    lag: int = 0
    partitions: int = 0
    #: End of each partition's log, as last told; of those given up too.
    ends: dict[int, int] = field(default_factory=dict)
    #: How often the group gave it an assignment.
    assignments: int = 0
    heartbeat: int = 0
    heartbeat_s: float = 0.0

    def lane_states(self) -> list[LaneState]:
        """Read all its lanes."""
        return [slot.state() for slot in self.lanes]


class Tree:
    """All children of one engine."""

    def __init__(self, plan: Plan, stderr: Stderr | None = None) -> None:
        """Create the shared memory; no process yet.

        Args:
            plan: what to run.
            stderr: gives each child its stderr; None = they inherit ours.
        """
        self.plan = plan
        self._stderr = stderr
        self.assigned_ever = False
        #: Partitions of the topic, 0 = not known yet.
        self.topic_partitions = 0
        #: Why messages do not come by the fast path; "" where they do, or not known yet.
        self.slow_because = ""
        self._members = 0
        _need_descriptors(plan.conf.conns * (plan.conf.processors * 4 + 3))
        self.fetchers = [self._fetcher_slot(index) for index in range(plan.conf.conns)]

    def _fetcher_slot(self, index: int) -> FetcherSlot:
        conf = self.plan.conf
        dispatch_fd = log.create(conf.processors, LOG_BYTES)
        return FetcherSlot(
            Role.FETCHER,
            f"fetcher {index}",
            index=index,
            dispatch_fd=dispatch_fd,
            reader=log.DispatchReader(dispatch_fd),
            inflight=Inflight(conf.processors),
            lanes=[self._lane_slot(index, number) for number in range(conf.processors)],
        )

    def _lane_slot(self, fetcher: int, index: int) -> LaneSlot:
        fd = lane.create(self.plan.conf.ring_bytes)
        return LaneSlot(
            Role.PROCESSOR,
            f"processor {fetcher}.{index}",
            index=index,
            fd=fd,
            bell_fd=bell.create(),
            memory=lane.LaneControl(fd),
        )

    def slots(self) -> list[Slot]:
        """Return all slots, fetchers first."""
        return [*self.fetchers, *(lane for fetcher in self.fetchers for lane in fetcher.lanes)]

    def start_due(self, now_s: float) -> list[Slot]:
        """Start what is due and return the slots that have a new child.

        Raises:
            WorkerStartError: the system refuses another process.
        """
        started: list[Slot] = []
        for fetcher in self.fetchers:
            for lane_slot in fetcher.lanes:
                if _due(lane_slot, now_s) and not self._closing_by_force(fetcher, lane_slot):
                    self._start_processor(fetcher, lane_slot)
                    started.append(lane_slot)
            if _due(fetcher, now_s):
                self._start_fetcher(fetcher)
                started.append(fetcher)
        return started

    @staticmethod
    def _closing_by_force(fetcher: FetcherSlot, slot: LaneSlot) -> bool:
        """Whether a forced close still reads this lane's cursor: then nobody may move it."""
        return not set(slot.skip).isdisjoint(fetcher.inflight.epochs())

    def _start_processor(self, fetcher: FetcherSlot, slot: LaneSlot) -> None:
        plan = self.plan
        cursor = slot.memory.cursor
        slot.skip = {epoch: end for epoch, end in slot.skip.items() if cursor < end}
        slot.memory.skip(slot.skip)
        slot.memory.blame(slot.attempts.number, slot.attempts.count)
        spec = control.ProcessorSpec(
            name=plan.name,
            fetcher=fetcher.index,
            index=slot.index,
            topic=plan.conf.topic,
            handler=plan.handler,
            lane_fd=slot.fd,
            dispatch_fd=fetcher.dispatch_fd,
            bell_fd=slot.bell_fd,
            force_commit=plan.conf.force_commit,
            max_attempts=plan.conf.max_attempts,
            section=plan.section,
            document=plan.document,
            log_level=plan.log_level,
            log_encoding=plan.log_encoding,
            label=plan.label,
        )
        fds = [slot.fd, fetcher.dispatch_fd, slot.bell_fd]
        slot.done_at_start = slot.done()
        env = child_environment()
        self._started(slot, spawn("kqmp.roles.processor", spec, fds, env, self._stderr))

    def _start_fetcher(self, slot: FetcherSlot) -> None:
        plan = self.plan
        self._members += 1
        slot.member = self._members
        slot.started = slot.drained = False
        slot.commit_sent_s = None
        slot.dispatched_at_start = slot.reader.words[w.DISPATCHED]
        spec = control.FetcherSpec(
            name=plan.name,
            index=slot.index,
            member=slot.member,
            conf=plan.conf.to_wire(),
            columns=plan.columns,
            dispatch_fd=slot.dispatch_fd,
            lane_fds=[lane_slot.fd for lane_slot in slot.lanes],
            bell_fds=[lane_slot.bell_fd for lane_slot in slot.lanes],
            assigned_before=self.assigned_ever,
            log_level=plan.log_level,
            log_encoding=plan.log_encoding,
            label=plan.label,
        )
        fds = [slot.dispatch_fd, *spec.lane_fds, *spec.bell_fds]
        self._started(slot, spawn("kqmp.roles.fetcher", spec, fds, stderr=self._stderr))

    @staticmethod
    def _started(slot: Slot, child: Child) -> None:
        slot.restarts += slot.was_ever_ready
        slot.child = child
        slot.start_at_s = slot.ready_s = slot.failed = None
        slot.ours = False

    def kill(self, slot: Slot) -> None:
        """Kill the child in a slot by our own decision: it blames no message."""
        if slot.child is not None:
            slot.ours = True
            slot.child.kill()

    def buried(
        self, fetcher: FetcherSlot, slot: Slot, exit_code: int, now_s: float
    ) -> GiveUp | None:
        """Take note of a dead (and reaped) child and plan its successor.

        Returns:
            The decision to give up, or None.
        """
        attempts = 0
        if isinstance(slot, LaneSlot):
            blamed, attempts = self._blame(fetcher, slot)
            progressed = slot.done() > slot.done_at_start
            first_start = not slot.was_ever_ready
        else:
            blamed = -1
            progressed = fetcher.reader.words[w.DISPATCHED] > fetcher.dispatched_at_start
            first_start = not self.assigned_ever
        death = Death(
            role=slot.role,
            exit_code=exit_code,
            was_ready=slot.ready_s is not None,
            ready_for_s=0.0 if slot.ready_s is None else now_s - slot.ready_s,
            progressed=progressed,
            ours=slot.ours,
            first_start=first_start,
            blamed=blamed,
            attempts=attempts,
            max_attempts=self.plan.conf.max_attempts,
        )
        slot.child = None
        after = slot.ladder.after(death)
        if isinstance(after, GiveUp):
            return after
        slot.start_at_s = now_s + after.delay_s
        logger.warning(
            "%s ended (%s)%s, next one %s",
            slot.title,
            _how(exit_code),
            f" in message {blamed} of its lane" if blamed >= 0 else "",
            f"in {after.delay_s:.1f} s" if after.delay_s else "now",
        )
        return None

    @staticmethod
    def _blame(fetcher: FetcherSlot, slot: LaneSlot) -> tuple[int, int]:
        """Return the message in a dead processor's hands (-1: none) and its deaths so far."""
        end = fetcher.reader.end_numbers()[slot.index]
        slot.skip |= dict.fromkeys(slot.forced, end)
        slot.forced.clear()
        blamed = blamed_message(
            # Until it is ready the state word still is its predecessor's.
            in_frame=slot.ready_s is not None and slot.memory.in_frame,
            cursor=slot.memory.cursor,
            end_number=end,
            ours=slot.ours,
        )
        return blamed, slot.attempts.blame(blamed) if blamed >= 0 else 0

    def kill_all(self) -> None:
        """Kill and reap every child."""
        for slot in self.slots():
            self.kill(slot)
        for slot in self.slots():
            if slot.child is not None:
                slot.child.reap()
                slot.child = None
            slot.start_at_s = None

    def close(self) -> None:
        """Give all shared memory back; every child is gone."""
        for fetcher in self.fetchers:
            fetcher.reader.close()
            os.close(fetcher.dispatch_fd)
            for slot in fetcher.lanes:
                slot.memory.close()
                os.close(slot.fd)
                os.close(slot.bell_fd)

    def frozen(self, now_s: float, limit_s: float) -> list[FetcherSlot]:
        """Return the joined fetchers whose heartbeat has stood still for `limit_s`."""
        out = []
        for slot in self.fetchers:
            beat = slot.reader.words[w.FETCHER_HEARTBEAT]
            if slot.child is None or not slot.started or beat != slot.heartbeat:
                slot.heartbeat, slot.heartbeat_s = beat, now_s
            elif now_s - slot.heartbeat_s > limit_s:
                out.append(slot)
        return out


def _need_descriptors(count: int) -> None:
    """Have room for this many more descriptors: two a lane, two a child, one a dispatch memory.

    Raises:
        WorkerStartError: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        msg = (
            f"Conns x Processors needs {needed} descriptors, the limit is {hard}: raise it"
            " (`ulimit -Hn`) or lower Processors"
        )
        raise WorkerStartError(msg)
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _due(slot: Slot, now_s: float) -> bool:
    return slot.child is None and slot.start_at_s is not None and now_s >= slot.start_at_s


def _how(exit_code: int) -> str:
    """Say how a process ended."""
    if exit_code == -9:
        return "SIGKILL; perhaps out of memory"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def monotonic_s() -> float:
    """Return the clock that all deadlines of the coordinator are on."""
    return time.monotonic()
