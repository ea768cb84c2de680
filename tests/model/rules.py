"""The rules of the protocol, each with a way to switch it off.

The model must fail with each of them off: a rule that can be left out without anybody noticing is
not guarded, or is none. Most are one sentence of ARCHITECTURE.md, "The life of a partition"; those
marked *found* are mistakes that this model has found in kqmp itself.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from kqmp.core import slots
from kqmp.core.inflight import NOTHING_HELD, Inflight
from kqmp.core.life import Claim, Opened, Partitions, State
from kqmp.ring.lane import LaneControl
from kqmp.ring.log import Touched, encode_record
from kqmp.roles import (
    assignment,
    control,
    coordinator,
    dispatch,
    fetcher,
    positions,
    processor,
    tree,
)
from kqmp.roles.tree import FetcherSlot, LaneSlot, Tree

Patch = tuple[Any, str, Any]


class Rule(NamedTuple):
    """One rule, and what takes its place when it is off."""

    #: Invariant of the design that it serves.
    invariant: int
    patches: tuple[Patch, ...]
    #: What the schedules should be rich in, and seeds under which they showed it.
    profile: str = ""
    seeds: tuple[int, ...] = ()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Switch it off."""
        before = [(owner, name, owner.__dict__[name]) for owner, name, _ in self.patches]
        try:
            for owner, name, value in self.patches:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)


# Closing.


def _close_then_read(self: Any, now_s: float, look: Any = positions.Positions.look) -> bool:
    overdue = set(self.partitions.overdue(now_s))
    for partition, epoch, _ in self.partitions.draining():
        states = self._epoch_slots[epoch].lane_states()
        self._close(partition, epoch, states, force=partition in overdue)
    return bool(look(self, now_s))


def _close_the_dead_at_once(self: Any, member: int, now_s: float) -> None:
    self.partitions.died(member, now_s)
    for partition, epoch, owner in self.partitions.draining():
        if owner == member:
            slot = self._epoch_slots.pop(epoch)
            position = slot.inflight.position(epoch, slot.lane_states())
            slot.inflight.forget(epoch)
            self._deliver(self.partitions.closed(partition, position))


def _force_without_reaping(self: Any, lane: LaneSlot, epoch: int, slot: FetcherSlot) -> None:
    lane.skip[epoch] = slot.reader.end_numbers()[lane.index]
    self._tree.kill(lane)


def _open_while_draining(self: Any, life: Any, open_next: Any = Partitions._open_next) -> Any:
    if life.state is State.DRAINING:
        life.state = State.CLOSED
    return open_next(self, life)


def _commit_any_answer(
    self: Partitions, partition: int, position: int, closed: Any = Partitions.closed
) -> Any:
    self._lives[partition].is_final = True
    return closed(self, partition, position)


# Positions.


def _no_reset(self: Partitions, claim: Claim, do_claim: Any = Partitions.claim) -> Opened | None:
    life = self._lives.get(claim.partition)
    if life is not None:
        life.committed = min(life.committed, claim.committed)
    opened: Opened | None = do_claim(self, claim._replace(reset=False))
    return opened


def _note_without_held(
    self: Inflight, epoch: int, fetched: int, held_low: int, note: Any = Inflight.note
) -> None:
    note(self, epoch, fetched, NOTHING_HELD)


def _publish_fetched_first(
    self: Any, columns: Any, parts: Any, size: int, place: Any = dispatch.Dispatcher.place
) -> None:
    place(self, columns, parts, size)
    record = [
        Touched(o.epoch, o.topic_id, o.partition, o.fetched_position, NOTHING_HELD, [])
        for o in dict.fromkeys(opening for opening, _ in parts)
    ]
    ends = [value for lane in self._lanes for value in (lane.end, lane.end_number)]
    self.log.publish(encode_record(record), ends)


# Lanes.


def _choose_without_bays(
    self: Any, columns: Any, parts: Any, count: int, choose: Any = dispatch.Dispatcher._choose
) -> Any:
    counts = [bay.count for bay in self._bays]
    for bay in self._bays:
        bay.count = 0
    try:
        return choose(self, columns, parts, count)
    finally:
        for bay, held in zip(self._bays, counts, strict=True):
            bay.count = held


def _every_slot_is_idle(
    self: Any, lane_count: int, _: Any, init: Any = slots.KeyLanes.__init__
) -> None:
    init(self, lane_count, lambda lane: 1 << 60)


def _acknowledge_first(self: Any, calls: Any, number: int) -> None:
    cursor = self._lane.cursor_word
    for taken in range(number, 1 << 60):
        cursor[0] = taken + 1
        try:
            next(calls)
        except StopIteration:
            cursor[0] = taken
            return


def _handle_whole_frames(self: Any, frame: Any) -> None:
    self._run(frame, 0, frame.count)


# The fetcher.


def _commit_whatever(self: Any, items: list[tuple[int, int, int]]) -> None:
    if self._assignment.unanswered:
        self._next_commit = items
        return
    self._assignment.unanswered = {p: (epoch, position) for p, epoch, position in items}
    self._member.commit_later({p: position for p, _, position in items})


def _lose_nothing(self: Any, partitions: list[int]) -> None:
    for partition in partitions:
        self._claimed.pop(partition, None)
    self._channel.tell(control.Released(self._grant, partitions, answered=False, lost=True))


def _open_any_grant(self: Any, message: control.Opens) -> None:
    for partition, epoch, position in message.items:
        self.openings[partition] = assignment.Opening(epoch, partition, position)
    self.member.read_from({p: position for p, _, position in message.items})


def _confirm_while_unanswered(
    self: Any, partitions: list[int], revoked: Any = assignment.Assignment.revoked
) -> None:
    self.unanswered, before = {}, self.unanswered
    try:
        revoked(self, partitions)
    finally:
        self.unanswered = before


def _choose_without_commit(self: Any, partitions: list[int]) -> tuple[dict[int, int], int]:
    bounds = self.member.bounds(partitions) if partitions else {}
    first = self._conf.offset == "first"
    return {p: ends.low if first else ends.high for p, ends in bounds.items()}, 0


def _await_nothing(self: Any, waiting: set[int]) -> dict[int, tuple[int, int]]:
    return {}


def _await_any(self: Any, waiting: set[int]) -> dict[int, tuple[int, int]]:
    """As it was: any answer under the grant counts."""
    final: dict[int, tuple[int, int]] = {}
    deadline = assignment.time.monotonic() + self._conf.drain_timeout_ms / 1000 + 1.0
    while waiting and assignment.time.monotonic() < deadline and not self._channel.closed:
        for message in self._channel.wait(0.05):
            if isinstance(message, control.Closes) and message.grant == self._grant:
                for partition, epoch, position in message.items:
                    waiting.discard(partition)
                    if position >= 0:
                        final[partition] = (epoch, position)
            else:
                self.deferred.append(message)
    return final


def _out_of_range_anyway(
    self: Any, partition: int, offset: int, out: Any = assignment.Assignment.out_of_range
) -> None:
    self.openings.setdefault(partition, assignment.Opening(0, partition, offset))
    out(self, partition, offset)


def _claim_while_unanswered(self: Any, claim: Any = assignment.Assignment.claim) -> None:
    self.unanswered, before = {}, self.unanswered
    try:
        claim(self)
    finally:
        self.unanswered = before


def _leave_with_all(self: Any, items: list[tuple[int, int, int]]) -> None:
    final = {p: position for p, _, position in items if p in self._assignment.openings}
    deadline = fetcher.time.monotonic() + fetcher.FINAL_COMMIT_S
    while final and fetcher.time.monotonic() < deadline:
        try:
            self._member.commit_now(final)
        except fetcher.KafkaException:
            self._member.fetch(1, 0.1)
        else:
            break
    self._assignment.closing = True
    self._member.close()


def _span_from_own(
    self: Any, message: control.Opens, do_open: Any = assignment.Assignment.open
) -> None:
    do_open(self, message)
    for partition, _, position in message.items:
        if partition in self.openings:
            self.openings[partition].committed_position = position


def _blame(change: dict[str, bool], blamed: Any = tree.blamed_message) -> Callable[..., int]:
    return lambda **seen: int(blamed(**{**seen, **change}))


def _blame_before_ready(fetcher_slot: FetcherSlot, slot: LaneSlot, blame: Any = Tree._blame) -> Any:
    slot.ready_s = slot.ready_s or time.monotonic()
    return blame(fetcher_slot, slot)


_A, _D, _F, _P = (
    assignment.Assignment,
    dispatch.Dispatcher,
    fetcher.Fetcher,
    positions.Positions,
)

RULES: Final[dict[str, Rule]] = {
    "a close is decided after the log was read to its end": Rule(
        1, ((_P, "look", _close_then_read),), "", (4, 16, 36)
    ),
    "what a dead fetcher dispatched drains before its partition is closed": Rule(
        2, ((_P, "died", _close_the_dead_at_once),), "", (66, 76, 100)
    ),
    "a forced close waits for the death of the processors": Rule(
        2, ((_P, "_force", _force_without_reaping),), "forced", (99, 299, 361)
    ),
    "after a forced close successors skip the epoch": Rule(
        2, ((LaneControl, "skip", lambda self, epochs: None),), "forced", (17, 30, 35)
    ),
    "no successor starts before a forced close is decided": Rule(
        2, ((Tree, "_closing_by_force", staticmethod(lambda *_: False)),), "forced", (93, 35, 196)
    ),
    "a claim waits until the partition is closed": Rule(
        2, ((Partitions, "_open_next", _open_while_draining),), "", (14, 23, 50)
    ),
    "what drains since before this assignment is not committed (found)": Rule(
        6, ((Partitions, "closed", _commit_any_answer),), "taken", (11, 128, 1331)
    ),
    "a position set back by an operator counts": Rule(
        6, ((Partitions, "claim", _no_reset),), "reset", (9, 12, 16)
    ),
    "the position does not pass held messages": Rule(
        1, ((Inflight, "note", _note_without_held),), "", (0, 9, 23)
    ),
    "what was fetched is published with its frames": Rule(
        1, ((_D, "place", _publish_fetched_first),), "late", (51, 95, 110)
    ),
    "held messages are dropped when a partition is given up": Rule(
        2, ((_D, "drop", lambda self, openings: 0),), "", (65, 0, 9)
    ),
    "a pending record is published before a partition is given up": Rule(
        2, ((_A, "_flush", lambda self: None),), "full", (0, 14, 16)
    ),
    "a slot is in flight while a message of it is in a bay": Rule(
        2, ((_D, "_choose", _choose_without_bays),), "", (41, 62, 75)
    ),
    "a slot in flight stays on its lane": Rule(
        2, ((slots.KeyLanes, "__init__", _every_slot_is_idle),), "", (0, 1, 6)
    ),
    "the cursor is stored after the handler returned": Rule(
        1, ((processor.Processor, "_untimed", _acknowledge_first),), "", (0, 2)
    ),
    "a successor goes on at the cursor": Rule(
        3, ((processor.Processor, "_handle", _handle_whole_frames),), "", (0, 2, 9)
    ),
    "only what is open is committed": Rule(6, ((_F, "_commit", _commit_whatever),), "", (16, 0, 9)),
    "what is lost is committed no more": Rule(
        6, ((_A, "lost", _lose_nothing),), "late", (25, 0, 6)
    ),
    "an answer counts only under its grant": Rule(
        1, ((_A, "open", _open_any_grant),), "late", (30, 45, 53)
    ),
    "a final commit is no news while another is unanswered": Rule(
        6, ((_A, "revoked", _confirm_while_unanswered),), "late", (97, 123, 285)
    ),
    "a chosen start is committed at once": Rule(
        1, ((_A, "_choose", _choose_without_commit),), "", (3, 4, 5)
    ),
    "a revoke waits for the close": Rule(3, ((_A, "_await_final", _await_nothing),), "", (0, 4, 8)),
    "a late answer to an earlier revoke is not committed (found)": Rule(
        6, ((_A, "_await_final", _await_any),), "full", (1539, 2576)
    ),
    "what a rebalance took is not chosen anew (found)": Rule(
        6, ((_A, "out_of_range", _out_of_range_anyway),), "reset", (205, 300, 667)
    ),
    "no position is read or chosen while a commit is unanswered (found)": Rule(
        6, ((_A, "claim", _claim_while_unanswered),), "reset", (549, 621, 760)
    ),
    "what a rebalance took is not committed on leaving (found)": Rule(
        6, ((_F, "_leave", _leave_with_all),), "stop", (1, 3, 777)
    ),
    "the span counts from what is committed (found)": Rule(
        3, ((_A, "open", _span_from_own),), "span", (50, 64, 368)
    ),
    "the span is bounded": Rule(
        4, ((_F, "_watch_spans", lambda self, openings: None),), "span", (1, 2, 6)
    ),
    "bays are bounded": Rule(
        4, ((_D, "fullness", property(lambda self: 0.0)),), "full", (737, 2365, 2439)
    ),
    "a full lane keeps nobody from polling": Rule(
        5, ((_D, "wait_s", lambda self: 10.0),), "", (0, 1, 2)
    ),
    "a stop waits until all is finished": Rule(
        3, ((coordinator.Coordinator, "_all_drained", lambda self: True),), "stop", (1, 3, 14)
    ),
    "who we kill blames no message": Rule(
        3, ((tree, "blamed_message", _blame({"ours": False})),), "taken", (79, 293, 378)
    ),
    "a death before it was ready blames no message (found)": Rule(
        3, ((Tree, "_blame", staticmethod(_blame_before_ready)),), "deadly", (10, 70, 77)
    ),
}
