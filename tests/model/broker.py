"""One broker with one group: what kqmp sees of Kafka beyond its client.

Modelled: cooperative rounds (also ones that move partitions about without need), static members,
sessions that expire while their process lives, commits that are late, refused or whose answer is
lost, a broker that is away, logs that lose their start or their end.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import confluent_kafka as ck

from tests.model.ledger import ANYBODY, Ledger
from tests.model.world import Violation, World

if TYPE_CHECKING:
    from tests.model.consumer import Consumer

SESSION_S: Final = 1.0
#: A member that does not come to a round for so long is thrown out.
ROUND_S: Final = 20.0
REQUEST_S: Final = 5.0
OFFSET_NONE: Final = -1001


@dataclass
class Faults:
    """How often the network does what; all zero for a calm one."""

    late: float = 0.0
    late_s: float = 1.5
    #: Of answers to asynchronous commits.
    tardy: float = 0.0
    refused: float = 0.0
    unanswered: float = 0.0
    slow_s: float = 0.004


@dataclass
class Part:
    """A `TopicPartition`."""

    topic: str
    partition: int
    offset: int = OFFSET_NONE
    error: Any = None


@dataclass(eq=False, repr=False)
class Session:
    """A member as the group sees it; a static one outlives its process."""

    number: int
    consumer: "Consumer"
    instance: str | None
    owned: set[int] = field(default_factory=set)
    generation: int = 0

    def __repr__(self) -> str:
        return f"{self.number} ({self.consumer.name})"


@dataclass(eq=False)
class Commit:
    """A commit on its way."""

    consumer: "Consumer"
    session: Session | None
    generation: int
    positions: dict[int, int]
    is_choice: bool
    is_asynchronous: bool
    answered: Callable[[int | None], None]
    sent_s: float = 0.0
    is_late: bool = False


class Broker:
    """The log, the committed positions and the group."""

    def __init__(self, world: World, ledger: Ledger, offset: str) -> None:
        self.world = world
        self.ledger = ledger
        self.offset = offset
        self.committed: list[int | None] = [None for _ in ledger.logs]
        self.faults = Faults()
        self.down_until_s = 0.0
        self.sessions: list[Session] = []
        self.generation = 0
        self.consumers: list[Consumer] = []
        self._numbers = 0
        self._round_due = False
        self._round_wanted_s = 0.0
        self._moves = False

    @property
    def is_down(self) -> bool:
        return self.world.now_s < self.down_until_s

    # The group.

    def owner(self, partition: int) -> Session | None:
        return next((s for s in self.sessions if partition in s.owned), None)

    def join(self, consumer: "Consumer") -> None:
        """Let a consumer in; a static one takes the place of its predecessor at once."""
        if consumer.is_gone or consumer.session is not None:
            return
        if self.is_down:
            self.world.at(0.3, partial(self.join, consumer))
            return
        known = [s for s in self.sessions if consumer.instance and s.instance == consumer.instance]
        self._numbers += 1
        session = Session(self._numbers, consumer, consumer.instance, generation=self.generation)
        consumer.session = session
        self.world.note(f"group: {consumer.name} joins as {session.number}")
        if known:
            session.owned = known[0].owned
            self.sessions[self.sessions.index(known[0])] = session
            consumer.events.append(("assign", sorted(session.owned)))
        else:
            self.sessions.append(session)
            self.want_round()

    def want_round(self, *, moves: bool = False) -> None:
        self._moves = self._moves or moves
        if not self._round_due:
            self._round_due = True
            self._round_wanted_s = self.world.now_s
            self.world.at(self.world.rng.random() * 0.1, self._try_round)

    def _try_round(self) -> None:
        laggards = [
            s for s in self.sessions if s.consumer.is_rebalancing and not s.consumer.is_gone
        ]
        if self.is_down or (laggards and self.world.now_s - self._round_wanted_s < ROUND_S):
            self.world.at(0.1, self._try_round)
            return
        self._round_due = False
        for session in laggards:
            self.expire(session)
        if not self.sessions:
            return
        self.generation += 1
        target = self._target()
        self._moves = False
        self.world.note(f"group: round {self.generation}, {target}")
        for session in self.sessions:
            self._hand_out(session, target)

    def _target(self) -> dict[int, Session]:
        """Return who shall have what: sticky, or anything at all."""
        rng = self.world.rng
        partitions = range(len(self.committed))
        if self._moves:
            return {p: rng.choice(self.sessions) for p in partitions}
        most = -(-len(self.committed) // len(self.sessions))
        target = {}
        for p in partitions:
            owner = self.owner(p)
            if owner is None or list(target.values()).count(owner) >= most:
                loads = list(target.values())
                owner = min(self.sessions, key=loads.count)
            target[p] = owner
        return target

    def _hand_out(self, session: Session, target: dict[int, Session]) -> None:
        consumer = session.consumer
        revoked = sorted(p for p in session.owned if target[p] is not session)
        fresh = sorted(
            p for p, who in target.items() if who is session and self.owner(p) in (None, session)
        )
        fresh = [p for p in fresh if p not in session.owned]
        session.owned.update(fresh)
        # Between JoinGroup and SyncGroup the broker refuses its commits.
        generation = self.generation
        session.generation = -1
        self.world.at(
            self.world.rng.random() * self.faults.slow_s * 4,
            lambda: setattr(session, "generation", max(session.generation, generation)),
        )
        if consumer.is_gone:
            return
        if revoked:
            consumer.events.append(("revoke", revoked))
        if fresh or (not revoked and self.world.rng.random() < 0.3):
            consumer.events.append(("assign", fresh))

    def let_go(self, session: Session, partitions: Iterable[int]) -> None:
        """A member has unassigned partitions."""
        if session in self.sessions:
            session.owned.difference_update(partitions)
            self.want_round()

    def leave(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.remove(session)
            self.want_round()

    def expire(self, session: Session) -> None:
        """The session ends; its process, if it lives, learns of it later."""
        if session not in self.sessions:
            return
        self.world.note(f"group: session of {session.consumer.name} expires")
        for partition in session.owned:
            self.ledger.excuse(partition, "expired", session.consumer.engine)
            self.ledger.logs[partition].fenced.add(session.consumer.engine)
        self.leave(session)
        consumer = session.consumer
        consumer.session = None
        consumer.is_fenced = True
        if not consumer.is_gone:
            self.world.at(self.world.rng.random() * 0.5, consumer.learn_of_loss)

    def missed(self, consumer: "Consumer") -> None:
        """A process is dead or frozen: its heartbeats stop."""
        session = consumer.session
        if session is not None:
            self.world.at(SESSION_S, lambda: self._expire_if_silent(session))

    def _expire_if_silent(self, session: Session) -> None:
        actor = session.consumer.actor
        if session.consumer.is_gone or actor.frozen_until_s > self.world.now_s:
            self.expire(session)

    def is_read_beyond(self, partition: int, position: int) -> bool:
        """Whether the group, or somebody who reads, is above `position`, or may be soon."""
        return (self.committed[partition] or 0) > position or any(
            c.commits_under_way or (not c.is_gone and c.positions.get(partition, 0) > position)
            for c in self.consumers
        )

    # Commits.

    def take(self, commit: Commit) -> None:
        """A commit arrives."""
        rng = self.world.rng
        if self.is_down:
            self.world.at(commit.consumer.arrival_s(self.down_until_s), partial(self.take, commit))
            return
        session = commit.session
        if session not in self.sessions:
            self._answer(commit, ck.KafkaError.UNKNOWN_MEMBER_ID)
        elif commit.generation != self.generation or session.generation != self.generation:
            if commit.is_late and session.generation == self.generation and rng.random() < 0.5:
                # librdkafka sends it again, with the generation of this moment.
                commit.generation = self.generation
                self.take(commit)
                return
            self._answer(commit, ck.KafkaError.ILLEGAL_GENERATION)
        elif rng.random() < self.faults.refused:
            self._answer(commit, ck.KafkaError.REBALANCE_IN_PROGRESS)
        else:
            for partition, position in commit.positions.items():
                self._commit(commit, partition, position)
            is_lost = rng.random() < self.faults.unanswered
            self._answer(commit, ck.KafkaError._TIMED_OUT if is_lost else None)

    def _commit(self, commit: Commit, partition: int, position: int) -> None:
        before = self.committed[partition]
        log = self.ledger.logs[partition]
        self.world.note(f"broker: {partition} committed at {position}, was {before}")
        if commit.sent_s < commit.consumer.chosen.get(partition, 0.0):
            raise Violation(
                f"stale commit: {partition} to {position}, sent before its start was chosen"
            )
        # Whose partition it was when it was sent, and is not any more.
        is_stale = commit.is_late and partition not in commit.consumer.owned
        if commit.is_late and position < (before or 0):
            log.set_back_from = max(before or 0, log.set_back_from)
        elif position >= log.set_back_from:
            log.set_back_from = 0
        if commit.is_choice and (before is None or log.is_out_of_range):
            self.ledger.skip_to(partition, position)
            self.ledger.excuse(partition, "chosen")
            log.is_out_of_range = False
            commit.consumer.chosen[partition] = self.world.now_s
        elif before is not None and position < before:
            if not commit.is_late and not log.is_moved_by_stale:
                self.ledger.went_back(partition, before, position)
            self.ledger.forget_taken(partition)
            # Who sent it knows better, if nobody has asked for the group's position since.
            knows = log.reader is commit.consumer
            self.ledger.excuse(
                partition, "late commit", commit.consumer.engine if knows else ANYBODY
            )
        log.is_moved_by_stale = is_stale
        self.committed[partition] = position
        self.ledger.committed(commit.consumer.engine, partition, position)

    def _answer(self, commit: Commit, code: int | None) -> None:
        commit.consumer.commits_under_way -= 1
        rng = self.world.rng
        delay_s = rng.random() * self.faults.slow_s
        if code == ck.KafkaError._TIMED_OUT:
            delay_s += 0.5
        if commit.is_asynchronous and rng.random() < self.faults.tardy:
            delay_s += rng.random() * 3
        self.world.at(delay_s, lambda: commit.answered(code))
