"""The coordinator: starts, watches and restarts the others, and decides what to commit.

It reads dispatch logs and cursors in passes of a few milliseconds, works positions out of them on
every commit interval, and tells each fetcher what to commit. It never imports the handler nor
librdkafka. It is the process the user sees and signals; killed, it takes all its children along
(their death signal) and leaves nothing, since all memory is anonymous.
"""

import enum
import logging
import selectors
import signal
import socket
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from kqmp.core.batch import SPAN_MAX
from kqmp.core.life import SESSION_TIMEOUT_MS, Claim, Closed, Opened, Partitions
from kqmp.core.supervision import GiveUp, Role
from kqmp.errors import ExitCode, KqmpError
from kqmp.roles import control
from kqmp.roles.spawn import Stderr
from kqmp.roles.tree import FetcherSlot, LaneSlot, Plan, Slot, Tree, monotonic_s

#: Time between passes while messages flow, and while nothing happens.
PASS_S: Final = 0.02
IDLE_PASS_S: Final = 0.2
#: After a partition is lost another member has it: drain shortly.
LOST_DRAIN_S: Final = 1.0
#: A fetcher that has not turned its loop for so long is frozen (a wall clock set back can do it).
FROZEN_S: Final = 300.0
#: Fetchers and processors get this long to leave after the last commit.
LEAVE_S: Final = 8.0

log = logging.getLogger("kqmp.coordinator")


class Stage(enum.Enum):
    """Where the engine is in its life."""

    RUNNING = "running"
    #: Told to stop: nothing new is taken, lanes drain.
    DRAINING = "draining"
    #: Final positions are sent; fetchers commit, leave the group and exit.
    LEAVING = "leaving"
    #: Processors close their handlers and exit.
    CLOSING = "closing"
    DONE = "done"


class Coordinator:
    """The loop of the coordinator. `run` returns the exit code of the engine."""

    def __init__(
        self,
        plan: Plan,
        parent: control.Channel | None = None,
        report: Callable[["Coordinator", float], None] | None = None,
        stderr: Stderr | None = None,
    ) -> None:
        """Create the shared memory.

        Args:
            plan: what to run.
            parent: socket of the program that started us; its end means drain and stop.
            report: called after each pass with the time, to show status; once more, with the
                stage `DONE`, when every child is gone and the shared memory still there.
            stderr: gives each child its stderr; None = they inherit ours.
        """
        self.plan = plan
        self.tree = Tree(plan, stderr)
        self.partitions = Partitions()
        self.stage = Stage.RUNNING
        self.exit_code = ExitCode.CLEAN
        self.reason = ""
        self.notes_unread = 0
        self._parent = parent
        self._report = report
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._epoch_slots: dict[int, FetcherSlot] = {}
        self._commit_s = 0.0
        self._deadline_s = 0.0
        self._interrupts = self._own_interrupts = 0
        self._busy = True
        self._commit_early = False
        #: Final positions sent and not confirmed yet: (partition, epoch) -> position.
        self._unconfirmed: dict[tuple[int, int], int] = {}

    # ---- life of the process

    def run(self) -> ExitCode:
        """Run the engine until it is stopped or gives up."""
        wake, undo = self._catch_signals()
        try:
            self._selector.register(wake, selectors.EVENT_READ, None)
            if self._parent is not None:
                self._selector.register(self._parent, selectors.EVENT_READ, self._parent)
            while self.stage is not Stage.DONE:
                self._turn(wake)
        except KqmpError as error:
            self._end(error.exit_code, str(error))
        finally:
            self.tree.kill_all()
            if self._report is not None:
                self._report(self, monotonic_s())
            self.tree.close()
            self._selector.close()
            undo()
        return self.exit_code

    def _catch_signals(self) -> tuple[socket.socket, Callable[[], None]]:
        """Have INT, TERM and HUP wake the loop; handlers only take note."""
        wake, end = socket.socketpair()
        wake.setblocking(False)
        end.setblocking(False)
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {n: signal.signal(n, lambda n, _: self._signals.append(n)) for n in numbers}
        old = signal.set_wakeup_fd(end.fileno(), warn_on_full_buffer=False)

        def undo() -> None:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            wake.close()
            end.close()

        return wake, undo

    def _turn(self, wake: socket.socket) -> None:
        now = monotonic_s()
        for slot in self.tree.start_due(now) if self._may_start() else []:
            assert slot.child is not None
            self._selector.register(slot.child.channel, selectors.EVENT_READ, slot)
            self._selector.register(slot.child.pidfd, selectors.EVENT_READ, slot)
        for key, _ in self._selector.select(PASS_S if self._busy else IDLE_PASS_S):
            if key.data is None:
                self._drain_wake(wake)
            elif isinstance(key.data, Slot):
                self._read(key.data)
            else:
                self._hear_parent()
        now = monotonic_s()
        self._act_on_signals(now)
        for slot in self.tree.slots():
            if slot.child is not None and (code := slot.child.exit_code()) is not None:
                self._bury(slot, code, now)
        self._pass(now)
        self._commit(now)
        self._advance(now)
        self._watch(now)
        if self._report is not None and self.stage is not Stage.DONE:
            self._report(self, now)

    def _may_start(self) -> bool:
        return self.stage in (Stage.RUNNING, Stage.DRAINING)

    @staticmethod
    def _drain_wake(wake: socket.socket) -> None:
        try:
            while wake.recv(64):
                pass
        except BlockingIOError:
            pass

    def _hear_parent(self) -> None:
        assert self._parent is not None
        for message in self._parent.receive():
            if isinstance(message, control.Interrupt):
                self._interrupted(message.count)
            elif isinstance(message, control.Stop):
                self.stop()
        if self._parent.closed:
            self._selector.unregister(self._parent)
            self.stop()

    def _act_on_signals(self, now_s: float) -> None:
        received, self._signals = self._signals, []
        for number in received:
            if number == signal.SIGINT:
                self._own_interrupts += 1
                self._interrupted(self._own_interrupts)
            elif self.stage is Stage.RUNNING:
                log.info("%s: draining", signal.Signals(number).name)
                self.stop(now_s)

    def _interrupted(self, count: int) -> None:
        """SIGINT came for the `count`-th time, to us or to the program that started us."""
        if count <= self._interrupts or self.stage is Stage.DONE:
            return
        self._interrupts = count
        if count > 1 or self.stage is not Stage.RUNNING:
            self._end(ExitCode.INTERRUPTED, "stopped at once by a further interrupt")
        else:
            log.info("SIGINT: draining; one more stops at once")
            self.stop()

    def stop(self, now_s: float | None = None) -> None:
        """Begin to drain and stop; idempotent."""
        if self.stage is not Stage.RUNNING:
            return
        self.stage = Stage.DRAINING
        now = monotonic_s() if now_s is None else now_s
        self._deadline_s = now + self.plan.conf.drain_timeout_ms / 1000
        for slot in self.tree.fetchers:
            slot.start_at_s = None
            self._tell(slot, control.Stop())

    def _end(self, code: ExitCode, reason: str) -> None:
        """End the engine at once."""
        self.exit_code, self.reason = code, reason
        self.stage = Stage.DONE
        log.error("%s", reason)

    # ---- children

    def _fetcher_of(self, slot: Slot) -> FetcherSlot:
        if isinstance(slot, FetcherSlot):
            return slot
        return next(f for f in self.tree.fetchers if slot in f.lanes)

    def _read(self, slot: Slot) -> None:
        """Read the messages of a child."""
        if slot.child is None:
            return
        for message in slot.child.channel.receive():
            match message:
                case control.Ready(topic_partitions):
                    self.tree.topic_partitions = topic_partitions or self.tree.topic_partitions
                    slot.ready_s = monotonic_s()
                    slot.was_ever_ready = True
                    self._start_fetching(self._fetcher_of(slot))
                case control.Failed():
                    slot.failed = message
                case _ if isinstance(slot, FetcherSlot):
                    self._hear_fetcher(slot, message)
                case _:
                    pass
        if slot.child.channel.closed:
            self._forget_events(slot.child.channel)

    def _forget_events(self, *sources: control.Channel | int) -> None:
        for source in sources:
            if source in self._selector.get_map():
                self._selector.unregister(source)

    def _start_fetching(self, fetcher: FetcherSlot) -> None:
        """Let a fetcher join the group once all its processors were ready."""
        ready = fetcher.ready_s is not None and all(lane.was_ever_ready for lane in fetcher.lanes)
        if ready and not fetcher.started and fetcher.child is not None:
            fetcher.started = True
            self._tell(fetcher, control.Start())

    def _bury(self, slot: Slot, code: int, now_s: float) -> None:
        """A child has ended: read its last words, plan what follows."""
        assert slot.child is not None
        self._read(slot)
        self._forget_events(slot.child.channel, slot.child.pidfd)
        slot.child.close()
        fetcher = self._fetcher_of(slot)
        if self.stage in (Stage.LEAVING, Stage.CLOSING) or (
            isinstance(slot, FetcherSlot) and self.stage is Stage.DRAINING
        ):
            slot.child = None
            slot.start_at_s = None
            return
        member = fetcher.member
        give_up = self.tree.buried(fetcher, slot, code, now_s)
        if isinstance(slot, FetcherSlot):
            timeout_ms = self.plan.conf.kafka.get("session.timeout.ms", SESSION_TIMEOUT_MS)
            for partition in self.partitions.died(member, now_s + int(timeout_ms) / 1000):
                log.warning("partition %d drains: its fetcher is dead", partition)
        if give_up is not None:
            self._give_up(slot, give_up)
        elif slot.failed is not None:
            log.error("%s: %s", slot.title, slot.failed.text)

    def _give_up(self, slot: Slot, decision: GiveUp) -> None:
        if slot.failed is not None:
            self._end(decision.exit_code, slot.failed.text)
        else:
            text = f"{slot.title} died {slot.ladder.failures} times in a row: giving up"
            self._end(decision.exit_code, text)

    def _watch(self, now_s: float) -> None:
        """Replace fetchers whose loop stands still."""
        for slot in self.tree.frozen(now_s, FROZEN_S):
            log.error("%s has not moved for %.0f s: replacing it", slot.title, FROZEN_S)
            self.tree.kill(slot)
            slot.heartbeat_s = now_s

    def _tell(self, slot: FetcherSlot, message: control.Message) -> None:
        """Send a fetcher a message; one that does not read is frozen and is replaced."""
        if slot.child is None or slot.child.channel.send(message):
            return
        if slot.child.exit_code() is None:
            log.error("%s does not read its orders: replacing it", slot.title)
            slot.child.kill()

    # ---- words of the fetchers

    def _hear_fetcher(self, slot: FetcherSlot, message: control.Message) -> None:
        match message:
            case control.Joined():
                self.tree.assigned_ever = True
            case control.Claims(grant, items, reset, unread):
                self.notes_unread += unread
                claims = [Claim(slot.member, grant, p, committed, reset) for p, committed in items]
                self._deliver([o for c in claims if (o := self.partitions.claim(c)) is not None])
            case control.Released():
                self._released(slot, message)
            case control.Committed(items, error):
                slot.commit_sent_s = None
                for partition, epoch, position in items:
                    self.partitions.committed(partition, epoch, position)
                    self._unconfirmed.pop((partition, epoch), None)
                if error:
                    log.info("commit refused: %s (tried again)", error)
            case control.Lag(lag, partitions):
                slot.lag, slot.partitions = lag, partitions
            case control.Drained():
                slot.drained = True
            case _:
                pass

    def _released(self, slot: FetcherSlot, message: control.Released) -> None:
        now = monotonic_s()
        wait = LOST_DRAIN_S if message.lost else self.plan.conf.drain_timeout_ms / 1000
        nothing = []
        for partition in message.partitions:
            drains = self.partitions.release(
                slot.member, partition, message.grant, now + wait, answered=message.answered
            )
            if not drains and message.answered:
                nothing.append((partition, 0, -1))
        for some in control.in_messages(nothing):
            self._tell(slot, control.Closes(message.grant, some))

    def _deliver(self, outputs: list[Opened] | list[Opened | Closed]) -> None:
        """Send openings and final positions to the members they are for."""
        opens: defaultdict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
        closes: defaultdict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
        for out in outputs:
            item = (out.partition, out.epoch, out.position)
            if isinstance(out, Closed):
                closes[out.member, out.grant].append(item)
                continue
            opens[out.member, out.grant].append(item)
            slot = self._slot_of(out.member)
            assert slot is not None, out
            self._epoch_slots[out.epoch] = slot
            slot.inflight.open(out.epoch, out.partition, out.position)
        for kind, groups in ((control.Opens, opens), (control.Closes, closes)):
            for (member, grant), items in groups.items():
                slot = self._slot_of(member)
                for some in control.in_messages(items):
                    if slot is not None:
                        self._tell(slot, kind(grant, some))

    def _slot_of(self, member: int) -> FetcherSlot | None:
        return next((slot for slot in self.tree.fetchers if slot.member == member), None)

    # ---- passes

    def _pass(self, now_s: float) -> None:
        """Read the logs, then close what has drained."""
        self._busy = self.stage is not Stage.RUNNING
        for slot in self.tree.fetchers:
            for record in slot.reader.read():
                self._busy = True
                # Runs follow each other by number on each lane, across partitions.
                runs = [
                    (run.lane, run.first, t.epoch, run.offsets) for t in record for run in t.runs
                ]
                for lane, first, epoch, offsets in sorted(runs):
                    slot.inflight.dispatched(epoch, lane, first, offsets)
                for touched in record:
                    slot.inflight.note(touched.epoch, touched.fetched, touched.held_low)
                    committed = self.partitions.committed_position(touched.partition)
                    if touched.fetched - committed > SPAN_MAX // 2:
                        self._commit_early = True
        draining = self.partitions.draining()
        if draining:
            self._busy = True
            overdue = set(self.partitions.overdue(now_s))
            for partition, epoch, _ in draining:
                self._close(partition, epoch, force=partition in overdue)

    def _close(self, partition: int, epoch: int, *, force: bool) -> None:
        """Close a draining partition if nothing of it is left in the lanes, or by force."""
        slot = self._epoch_slots[epoch]
        states = slot.lane_states()
        unfinished = slot.inflight.unfinished_lanes(epoch, states)
        if unfinished:
            if not force:
                return
            alive = [slot.lanes[i] for i in unfinished if epoch not in slot.lanes[i].skip]
            for lane in alive:
                self._force(lane, epoch, slot)
            if alive:
                return
        position = slot.inflight.position(epoch, states)
        slot.inflight.forget(epoch)
        del self._epoch_slots[epoch]
        self._deliver(self.partitions.closed(partition, position))

    def _force(self, lane: LaneSlot, epoch: int, fetcher: FetcherSlot) -> None:
        """Kill the processor that still has messages of an epoch, so that they end unfinished."""
        if lane.child is None:
            lane.skip[epoch] = fetcher.reader.end_numbers()[lane.index]
        elif epoch not in lane.forced:
            log.warning("%s is killed: a partition of it must be closed now", lane.title)
            lane.forced.add(epoch)
            self.tree.kill(lane)

    # ---- commits

    def _commit(self, now_s: float) -> None:
        """Tell each fetcher the positions that moved: on the interval, or as a span grows long."""
        if self.stage not in (Stage.RUNNING, Stage.DRAINING):
            return
        due = now_s - self._commit_s >= self.plan.conf.commit_interval_ms / 1000
        if not due and not self._commit_early:
            return
        if due:
            self._commit_s = now_s
        self._commit_early = False
        for slot in self.tree.fetchers:
            if slot.child is None or slot.commit_sent_s is not None:
                continue
            items = self._positions(slot, only_moved=True)
            for some in control.in_messages(items):
                slot.commit_sent_s = now_s
                self._tell(slot, control.Commit(some))

    def _positions(self, slot: FetcherSlot, *, only_moved: bool) -> list[tuple[int, int, int]]:
        """Return (partition, epoch, position) of what a fetcher has open."""
        states = slot.lane_states()
        items = []
        for partition, epoch in self.partitions.openings(slot.member):
            position = slot.inflight.position(epoch, states)
            if not only_moved or position > self.partitions.committed_position(partition):
                items.append((partition, epoch, position))
        return items

    def uncommitted(self) -> int:
        """Return how many offsets are finished and not committed, as far as this engine knows."""
        return sum(
            position - self.partitions.committed_position(partition)
            for slot in self.tree.fetchers
            for partition, _, position in self._positions(slot, only_moved=True)
        )

    # ---- stopping

    def _advance(self, now_s: float) -> None:
        """Go on to the next stage of a stop when the current one is done or its time is up."""
        if self.stage is Stage.DRAINING:
            if self._all_drained():
                self._leave(now_s)
            elif now_s >= self._deadline_s:
                self._leave_late(now_s)
        elif self.stage is Stage.LEAVING:
            alive = [slot for slot in self.tree.fetchers if slot.child is not None]
            if alive and now_s < self._deadline_s:
                return
            for slot in alive:
                log.error("%s did not leave the group in time: killed", slot.title)
            self._close_handlers(now_s)
        elif self.stage is Stage.CLOSING:
            alive_slots = [slot for slot in self.tree.slots() if slot.child is not None]
            if not alive_slots or now_s >= self._deadline_s:
                self.stage = Stage.DONE

    def _all_drained(self) -> bool:
        """Whether every fetcher has dispatched all it held and every lane is finished."""
        for slot in self.tree.fetchers:
            if slot.child is not None and slot.started and not slot.drained:
                return False
            states = slot.lane_states()
            if any(slot.inflight.unfinished_lanes(e, states) for e in list(slot.inflight.epochs())):
                return False
        return True

    def _leave_late(self, now_s: float) -> None:
        """DrainTimeout passed: what is in the handlers now will be repeated."""
        self.exit_code = ExitCode.DRAIN_DEADLINE
        self.reason = "DrainTimeout passed: what was unfinished will be repeated"
        log.error("%s", self.reason)
        for fetcher in self.tree.fetchers:
            for slot in fetcher.lanes:
                self.tree.kill(slot)
                if slot.child is not None:
                    self._forget_events(slot.child.channel, slot.child.pidfd)
                    slot.child.reap()
                    slot.child = None
        self._pass(now_s)
        self._leave(now_s)

    def _leave(self, now_s: float) -> None:
        """Send the final positions."""
        self.stage = Stage.LEAVING
        self._deadline_s = now_s + LEAVE_S
        for slot in self.tree.fetchers:
            items = self._positions(slot, only_moved=True)
            self._unconfirmed |= {(p, epoch): position for p, epoch, position in items}
            self._tell(slot, control.Finish(items))

    def _close_handlers(self, now_s: float) -> None:
        self.stage = Stage.CLOSING
        self._deadline_s = now_s + LEAVE_S
        if self._unconfirmed and self.exit_code is ExitCode.CLEAN:
            self.exit_code = ExitCode.DRAIN_DEADLINE
            count = len(self._unconfirmed)
            self.reason = f"{count} final positions were not committed: they repeat"
            log.error("%s", self.reason)
        for slot in self.tree.slots():
            if slot.child is not None and slot.role is Role.PROCESSOR:
                slot.child.channel.send(control.Stop())
            elif slot.child is not None:
                self.tree.kill(slot)
