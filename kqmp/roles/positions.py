"""What of which partition is done: the coordinator's books, and its answers to the fetchers.

Hears claims, releases and the answers to commits; reads the dispatch logs and the cursors in
passes; opens partitions, closes them when they have drained or by force, and says what to commit.
What may happen to a partition is decided by `kqmp.core.life`, what is finished by
`kqmp.core.inflight`; here it is carried out. Runs in the coordinator.
"""

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from kqmp.config import KqConf
from kqmp.core.batch import SPAN_MAX
from kqmp.core.inflight import LaneState
from kqmp.core.life import SESSION_TIMEOUT_MS, Claim, Closed, Opened, Partitions
from kqmp.ring.words import SKIP_LIMIT
from kqmp.roles import control
from kqmp.roles.tree import FetcherSlot, LaneSlot, Tree, monotonic_s

#: After a partition is lost another member has it: drain shortly.
LOST_DRAIN_S: Final = 1.0
#: With more log records than this in one pass the next one comes soon, before the log fills up.
RECORDS_MANY: Final = 4

log = logging.getLogger("kqmp.coordinator")


class Positions:
    """The partitions of one engine: who reads them, and up to where they are done."""

    def __init__(
        self, conf: KqConf, tree: Tree, tell: Callable[[FetcherSlot, control.Message], None]
    ) -> None:
        """Start with all partitions closed.

        Args:
            conf: for its times.
            tree: whose fetchers and lanes it reads.
            tell: sends a fetcher a message.
        """
        self.partitions = Partitions()
        #: Messages that exist already and will not be read (new group, Offset: last).
        self.unread = 0
        #: Final positions sent and not confirmed yet: (partition, epoch) -> position.
        self.unconfirmed: dict[tuple[int, int], int] = {}
        #: Answers of the brokers to commits, and since when (monotonic) all of them are refusals.
        self.commits = self.commits_refused = 0
        self.refused_since_s: float | None = None
        self._conf = conf
        self._tree = tree
        self._tell = tell
        self._epoch_slots: dict[int, FetcherSlot] = {}
        self._commit_s = 0.0
        self._commit_early = False

    def hear(self, slot: FetcherSlot, message: control.Message) -> None:
        """Take a fetcher's word."""
        match message:
            case control.Joined():
                self._tree.assigned_ever = True
                slot.assignments += 1
            case control.Claims(grant, items, reset, unread):
                self.unread += unread
                claims = [Claim(slot.member, grant, p, committed, reset) for p, committed in items]
                self._deliver([o for c in claims if (o := self.partitions.claim(c)) is not None])
            case control.Released():
                self._released(slot, message)
            case control.Committed(items, error):
                slot.commit_sent_s = None
                for partition, epoch, position in items:
                    self.partitions.committed(partition, epoch, position)
                    # An answer to an earlier commit may come after the final one was sent.
                    if position >= self.unconfirmed.get((partition, epoch), position):
                        self.unconfirmed.pop((partition, epoch), None)
                self._answered(len(items), error)
            case control.Lag(lag, partitions):
                slot.lag, slot.partitions = lag, partitions
            case control.Ends(items):
                slot.ends.update(items)
            case control.Drained():
                slot.drained = True
            case _:
                pass

    def _answered(self, taken: int, error: str) -> None:
        """Count the broker's answer to a commit; there is none if nothing was left to commit."""
        if taken:
            self.commits += 1
            self.refused_since_s = None
        if not error:
            return
        self.commits_refused += 1
        if self.refused_since_s is None:
            self.refused_since_s = monotonic_s()
        log.info("commit refused: %s (tried again)", error)

    def _released(self, slot: FetcherSlot, message: control.Released) -> None:
        now = monotonic_s()
        wait = LOST_DRAIN_S if message.lost else self._conf.drain_timeout_ms / 1000
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
        return next((slot for slot in self._tree.fetchers if slot.member == member), None)

    def died(self, member: int, now_s: float) -> None:
        """A fetcher is dead and its last words were heard: what it had drains."""
        timeout_ms = self._conf.kafka.get("session.timeout.ms", SESSION_TIMEOUT_MS)
        draining = self.partitions.died(member, now_s + int(timeout_ms) / 1000)
        if draining:
            log.warning("partitions %s drain: their fetcher is dead", sorted(draining))

    def look(self, now_s: float) -> bool:
        """Read the logs, then close what has drained; return whether to look again soon.

        What the fetchers said and who died must have been heard before: a partition is closed only
        on a pass begun after that.
        """
        count = 0
        for slot in self._tree.fetchers:
            for record in slot.reader.read():
                count += 1
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
            states = {slot.index: slot.lane_states() for slot in self._tree.fetchers}
            overdue = set(self.partitions.overdue(now_s))
            for partition, epoch, _ in draining:
                slot = self._epoch_slots[epoch]
                self._close(partition, epoch, states[slot.index], force=partition in overdue)
        return count > RECORDS_MANY or bool(draining)

    def _close(self, partition: int, epoch: int, states: list[LaneState], *, force: bool) -> None:
        """Close a draining partition if nothing of it is left in the lanes, or by force."""
        slot = self._epoch_slots[epoch]
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
        if len(lane.forced | lane.skip.keys()) >= SKIP_LIMIT:
            # With a full skip list it drains on instead: what is not skipped would be repeated.
            return
        if lane.child is None:
            lane.skip[epoch] = fetcher.reader.end_numbers()[lane.index]
        elif epoch not in lane.forced:
            log.warning("%s is killed: a partition of it must be closed now", lane.title)
            lane.forced.add(epoch)
            self._tree.kill(lane)

    def commit(self, now_s: float) -> None:
        """Tell each fetcher the positions that moved: on the interval, or as a span grows long."""
        due = now_s - self._commit_s >= self._conf.commit_interval_ms / 1000
        # Until it is short again: its fetcher may have paused, and then no record comes any more.
        self._commit_early = self._commit_early and self._is_span_long()
        if not due and not self._commit_early:
            return
        if due:
            self._commit_s = now_s
        is_behind = False
        for slot in self._tree.fetchers:
            if slot.child is None or slot.commit_sent_s is not None:
                is_behind = True
                continue
            for some in control.in_messages(self._moved(slot)):
                is_behind = True
                slot.commit_sent_s = now_s
                self._tell(slot, control.Commit(some))
        if not is_behind:
            # What was refused is not ours to commit any more.
            self.refused_since_s = None

    def _is_span_long(self) -> bool:
        """Whether some partition has more than half of what it may have under way."""
        return any(
            slot.inflight.fetched(epoch) - self.partitions.committed_position(partition)
            > SPAN_MAX // 2
            for slot in self._tree.fetchers
            for partition, epoch in self.partitions.openings(slot.member)
        )

    def finish(self) -> None:
        """Send all fetchers their final positions, after which they leave the group."""
        for slot in self._tree.fetchers:
            items = self._moved(slot)
            self.unconfirmed |= {(p, epoch): position for p, epoch, position in items}
            self._tell(slot, control.Finish(items))

    def all_finished(self) -> bool:
        """Whether no lane holds an unfinished message."""
        for slot in self._tree.fetchers:
            states = slot.lane_states()
            epochs = list(slot.inflight.epochs())
            if any(slot.inflight.unfinished_lanes(epoch, states) for epoch in epochs):
                return False
        return True

    def _moved(self, slot: FetcherSlot) -> list[tuple[int, int, int]]:
        """Return (partition, epoch, position) of what a fetcher has open and may commit."""
        states = slot.lane_states()
        items = []
        for partition, epoch in self.partitions.openings(slot.member):
            position = slot.inflight.position(epoch, states)
            if position > self.partitions.committed_position(partition):
                items.append((partition, epoch, position))
        return items

    def uncommitted(self) -> int:
        """Return how many offsets are finished and not committed, as far as this engine knows."""
        return sum(
            position - self.partitions.committed_position(partition)
            for slot in self._tree.fetchers
            for partition, _, position in self._moved(slot)
        )
