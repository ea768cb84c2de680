"""The fetcher's side of a partition's life: claims, openings, and what a rebalance asks of it.

`Assignment` is the member's `Listener`: its callbacks run inside `Member.fetch`, on the fetcher's
one thread. Each assignment gets a grant number; the coordinator's answers carry it and are dropped
when the grant no longer stands.
"""

import logging
import time
from typing import Final

from kqmp.config import KqConf
from kqmp.core.batch import Opening
from kqmp.kafka.member import KafkaException, Member
from kqmp.roles import control
from kqmp.roles.channel import Channel
from kqmp.roles.dispatch import Dispatcher

#: The revoke callback waits this much longer than the coordinator, whose word it waits for.
REVOKE_SLACK_S: Final = 5.0
#: How often the final commit of a revoke is tried, and the pause between.
FINAL_ATTEMPTS: Final = 3
FINAL_PAUSE_S: Final = 0.2
#: A record that waits for room in the log gets it within a pass of the coordinator, or never.
FLUSH_S: Final = 10.0

log = logging.getLogger("kqmp.fetcher")


class Assignment:
    """What the group gave this member, and which of it is open."""

    def __init__(self, conf: KqConf, channel: Channel, dispatcher: Dispatcher) -> None:
        """Start with nothing; set `member` before the first `fetch`."""
        self._conf = conf
        self._channel = channel
        self._dispatcher = dispatcher
        self.member: Member
        self.openings: dict[int, Opening] = {}
        #: Assigned partitions that could not be claimed yet, for want of an answer from Kafka, and
        #: whether their position is to be chosen anew.
        self.unclaimed: dict[int, bool] = {}
        #: Grant of each claim, and the group's position that it told.
        self._claimed: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._grant = 0
        #: Positions sent in an asynchronous commit and not answered, by partition.
        self.unanswered: dict[int, tuple[int, int]] = {}
        #: Control messages that came while a callback waited for others.
        self.deferred: list[control.Message] = []
        #: No claims any more: the engine stops.
        self.stopping = False
        self.closing = False

    def assigned(self, partitions: list[int]) -> None:
        """Claim newly assigned partitions (callback)."""
        self._grant += 1
        self._channel.tell(control.Joined(len(partitions) + len(self._claimed)))
        if not self.stopping:
            self.unclaimed.update(dict.fromkeys(partitions, False))
            self.claim()

    def claim(self) -> None:
        """Read or choose the positions of unclaimed partitions and tell the coordinator.

        What Kafka does not answer stays unclaimed; the fetcher tries again later. So does what has
        a commit of its earlier opening unanswered: the broker could take that one after the
        position was read, which would look as if somebody had set it back, or above a start chosen
        anew.
        """
        wanted = {p: anew for p, anew in self.unclaimed.items() if p not in self.unanswered}
        if not wanted:
            return
        try:
            known = self.member.committed(wanted)
            fresh = [p for p, anew in wanted.items() if anew or known[p] is None]
            chosen, unread = self._choose(fresh)
        except KafkaException as error:
            log.warning("no positions yet for %d partitions: %s", len(wanted), error)
            return
        # Where the start was chosen, what this engine did before counts no more: the topic may be
        # another one of the same name.
        found = [(p, known[p] or 0) for p in wanted if p not in chosen]
        for items, reset in ((found, False), (list(chosen.items()), True)):
            self._committed.update(items)
            for some in control.in_messages(items):
                self._channel.tell(control.Claims(self._grant, some, reset, unread))
                unread = 0
            for partition, _ in items:
                self._claimed[partition] = self._grant
                del self.unclaimed[partition]

    def _choose(self, partitions: list[int]) -> tuple[dict[int, int], int]:
        """Choose start positions by `Offset`, commit them, and count what will not be read."""
        if not partitions:
            return {}, 0
        bounds = self.member.bounds(partitions)
        first = self._conf.offset == "first"
        chosen = {p: ends.low if first else ends.high for p, ends in bounds.items()}
        self.member.commit_start(chosen)
        return chosen, 0 if first else sum(ends.high - ends.low for ends in bounds.values())

    def open(self, message: control.Opens) -> None:
        """Read from the positions that the coordinator gives, where the grant still stands.

        While the engine stops they are not read any more, but may have to be committed.
        """
        positions = {}
        for partition, epoch, position in message.items:
            if self._claimed.get(partition) == message.grant:
                opening = Opening(epoch, partition, position)
                # What this engine finished but could not commit counts as under way.
                opening.committed_position = min(position, self._committed[partition])
                self.openings[partition] = opening
                positions[partition] = position
        if positions and not self.stopping:
            self.member.read_from(positions)

    def revoked(self, partitions: list[int]) -> None:
        """Give partitions up: drain, commit their final positions, then let go (callback)."""
        if self.closing:
            return
        claimed = self._drop(partitions)
        for some in control.in_messages(claimed):
            self._channel.tell(control.Released(self._grant, some, answered=True))
        final = self._await_final(set(claimed))
        busy = set(self.unanswered) & set(final)
        taken = self._commit_final({p: position for p, (_, position) in final.items()})
        confirmed = [(p, final[p][0], pos) for p, pos in taken.items() if p not in busy]
        for items in control.in_messages(confirmed):
            self._channel.tell(control.Committed(items))

    def _commit_final(self, positions: dict[int, int]) -> dict[int, int]:
        """Commit final positions in the callback; a refusal (a group that moves) is tried again."""
        for attempt in range(FINAL_ATTEMPTS if positions else 0):
            try:
                return self.member.commit_now(positions)
            except KafkaException as error:
                log.warning("final commit of %d partitions failed: %s", len(positions), error)
                if attempt + 1 < FINAL_ATTEMPTS:
                    self.deferred += self._channel.wait(FINAL_PAUSE_S)
        return {}

    def lost(self, partitions: list[int]) -> None:
        """Partitions are gone; no commit is allowed (callback)."""
        claimed = self._drop(partitions)
        log.warning("lost %d partitions: the session with the group ended", len(partitions))
        for some in control.in_messages(claimed):
            self._channel.tell(control.Released(self._grant, some, answered=False, lost=True))

    def out_of_range(self, partition: int, offset: int) -> None:
        """The log no longer holds the position: choose anew by `Offset`, count and say it."""
        if partition not in self.openings:
            return  # a rebalance took it in the same fetch: its position is another's to choose
        log.error(
            "%s[%d]: offset %d is out of range, going to the %s offset (Offset: %s)",
            self.member.topic,
            partition,
            offset,
            "first" if self._conf.offset == "first" else "end",
            self._conf.offset,
        )
        if self._drop([partition]):
            self._channel.tell(control.Released(self._grant, [partition], answered=False))
        self.member.stop_reading([partition])
        if self.stopping:
            return
        self.unclaimed[partition] = True
        self.claim()

    def _drop(self, partitions: list[int]) -> list[int]:
        """Dispatch no more of these partitions; return those of which lanes may hold messages.

        They were claimed, or their start is to be chosen anew.
        """
        self._flush()
        gone = {opening for p in partitions if (opening := self.openings.pop(p, None))}
        self._dispatcher.drop(gone)
        was_anew = {p for p in partitions if self.unclaimed.pop(p, False)}
        return [p for p in partitions if self._claimed.pop(p, None) is not None or p in was_anew]

    def _flush(self) -> None:
        """Publish what is pending: after our word nothing of these partitions may follow."""
        deadline = time.monotonic() + FLUSH_S
        while self._dispatcher.pending and not self._dispatcher.send():
            if time.monotonic() > deadline:
                raise RuntimeError("the coordinator does not read the dispatch log")
            self.deferred += self._channel.wait(0.001)

    def _await_final(self, waiting: set[int]) -> dict[int, tuple[int, int]]:
        """Return partition -> (epoch, final position) of those that advanced, as they close."""
        final: dict[int, tuple[int, int]] = {}
        deadline = time.monotonic() + self._conf.drain_timeout_ms / 1000 + REVOKE_SLACK_S
        while waiting and time.monotonic() < deadline and not self._channel.closed:
            for message in self._channel.wait(0.05):
                if isinstance(message, control.Closes) and message.grant == self._grant:
                    for partition, epoch, position in message.items:
                        # Else a late answer to an earlier revoke: another member has it by now.
                        if partition in waiting and position >= 0:
                            final[partition] = (epoch, position)
                        waiting.discard(partition)
                else:
                    self.deferred.append(message)
            self._dispatcher.beat()
        if waiting:
            log.error("no final position for %d revoked partitions: they repeat", len(waiting))
        return final
