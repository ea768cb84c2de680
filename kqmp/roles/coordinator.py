"""The coordinator: starts, watches and restarts the others, and decides what to commit.

It reads dispatch logs and cursors in passes of a few milliseconds, works positions out of them on
every commit interval, and tells each fetcher what to commit. It never imports the handler nor
librdkafka. It is the process the user sees and signals; killed, it takes all its children along
(their death signal) and leaves nothing, since all memory is anonymous.
"""

import enum
import logging
import math
import selectors
import signal
import socket
from collections.abc import Callable
from typing import Final

from kqmp.core.supervision import GiveUp, Role
from kqmp.errors import ExitCode, KqmpError
from kqmp.roles import control
from kqmp.roles.channel import Channel
from kqmp.roles.positions import Positions
from kqmp.roles.spawn import Stderr
from kqmp.roles.tree import FetcherSlot, Plan, Slot, Tree, monotonic_s

#: Time between passes while batches flow fast, partitions drain or the engine stops, and otherwise.
PASS_S: Final = 0.02
IDLE_PASS_S: Final = 0.1
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
        parent: Channel | None = None,
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
        self.positions = Positions(plan.conf, self.tree, self._tell)
        self.stage = Stage.RUNNING
        self.exit_code = ExitCode.CLEAN
        self.reason = ""
        self._parent = parent
        self._report = report
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._deadline_s = 0.0
        self._interrupts = self._own_interrupts = 0
        self._busy = True

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
        self._busy = self.positions.look(now) or self.stage is not Stage.RUNNING
        if self._may_start():
            self.positions.commit(now)
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
                self.stop(within_ms=message.within_ms)
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
        is_running = self.stage is Stage.RUNNING
        # A terminal interrupts the program or parent as well, whose Stop may be here first.
        if count > 1 or (self._parent is None and not is_running):
            self._end(ExitCode.INTERRUPTED, "stopped at once by a further interrupt")
        elif is_running:
            log.info("SIGINT: draining; one more stops at once")
            self.stop()

    def stop(self, now_s: float | None = None, within_ms: int = -1) -> None:
        """Begin to drain and stop; idempotent, but for a `within_ms` that is sooner over."""
        now = monotonic_s() if now_s is None else now_s
        limit_ms = self.plan.conf.drain_timeout_ms
        deadline_s = now + (limit_ms if within_ms < 0 else min(limit_ms, within_ms)) / 1000
        if self.stage is Stage.DRAINING:
            self._deadline_s = min(self._deadline_s, deadline_s)
        if self.stage is not Stage.RUNNING:
            return
        self.stage = Stage.DRAINING
        self._deadline_s = deadline_s
        for slot in self.tree.fetchers:
            slot.start_at_s = None
            self._tell(slot, control.Stop())

    def _end(self, code: ExitCode, reason: str) -> None:
        """End the engine at once; what else fails in the same pass changes nothing."""
        if self.stage is Stage.DONE:
            return
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
                case control.Ready(topic_partitions, slow_because):
                    if topic_partitions:
                        self.tree.topic_partitions = topic_partitions
                        self.tree.slow_because = slow_because
                    slot.ready_s = monotonic_s()
                    slot.was_ever_ready = True
                    self._start_fetching(self._fetcher_of(slot))
                case control.Failed():
                    slot.failed = message
                case _ if isinstance(slot, FetcherSlot):
                    self.positions.hear(slot, message)
                case _:
                    pass
        if slot.child.channel.closed:
            self._forget_events(slot.child.channel)

    def _forget_events(self, *sources: Channel | int) -> None:
        for source in sources:
            if source in self._selector.get_map():
                self._selector.unregister(source)

    def _start_fetching(self, fetcher: FetcherSlot) -> None:
        """Let a fetcher join the group once all its processors were ready."""
        ready = fetcher.ready_s is not None and all(lane.was_ever_ready for lane in fetcher.lanes)
        may_start = self.stage is Stage.RUNNING and fetcher.child is not None
        if ready and may_start and not fetcher.started:
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
            self.positions.died(member, now_s)
        if give_up is not None:
            self._give_up(slot, give_up)
        elif slot.failed is not None:
            log.error("%s: %s", slot.title, slot.failed.text)

    def _give_up(self, slot: Slot, decision: GiveUp) -> None:
        if slot.failed is not None:
            self._end(decision.exit_code, slot.failed.text)
        else:
            deaths = slot.ladder.failures or slot.ladder.blamed
            text = f"{slot.title} died {deaths} times in a row and achieved nothing: giving up"
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
            self.tree.kill(slot)

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
        return self.positions.all_finished()

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
        # Nobody works on: what drains is closed now (on the pass after it was forced), or a fetcher
        # in its revoke callback would wait on, be killed there, and commit nothing.
        for _ in range(2):
            self.positions.look(math.inf)
        self._leave(now_s)

    def _leave(self, now_s: float) -> None:
        """Send the final positions."""
        self.stage = Stage.LEAVING
        self._deadline_s = now_s + LEAVE_S
        self.positions.finish()

    def _close_handlers(self, now_s: float) -> None:
        self.stage = Stage.CLOSING
        self._deadline_s = now_s + LEAVE_S
        if self.positions.unconfirmed and self.exit_code is ExitCode.CLEAN:
            self.exit_code = ExitCode.DRAIN_DEADLINE
            count = len(self.positions.unconfirmed)
            self.reason = f"{count} final positions were not committed: they repeat"
            log.error("%s", self.reason)
        for slot in self.tree.slots():
            if slot.child is not None and slot.role is Role.PROCESSOR:
                slot.child.channel.send(control.Stop())
            elif slot.child is not None:
                self.tree.kill(slot)
