"""One broker with one group, and a `Consumer` that speaks to it: what kqmp sees of librdkafka.

Modelled: cooperative rounds (also ones that move partitions about without need), static members,
sessions that expire while their process lives, commits that are late, refused or whose answer is
lost, a broker that is away, logs that lose their start or their end.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, Final

import confluent_kafka as ck

from kqmp.core.batch import Columns
from kqmp.kafka.member import Fetched, Member
from tests.model.ledger import ANYBODY, Ledger, Message
from tests.model.world import Actor, Violation, World

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


class Consumer:
    """One `confluent_kafka.Consumer`, in one process."""

    def __init__(
        self, broker: Broker, actor: Actor, engine: int, properties: dict[str, Any]
    ) -> None:
        self.broker = broker
        self.world = broker.world
        self.actor = actor
        self.engine = engine
        self.name = f"{actor.name}"
        instance = properties.get("group.instance.id")
        self.instance = str(instance) if instance else None
        self.on_commit = properties["on_commit"]
        self.session: Session | None = None
        #: What the application was told it owns.
        self.owned: set[int] = set()
        self.events: deque[tuple[str, Any]] = deque()
        self.positions: dict[int, int] = {}
        self.paused: set[int] = set()
        self.broken: set[int] = set()
        self.is_in_callback = False
        self.is_gone = False
        self.is_fenced = False
        self.commits_under_way = 0
        #: Asynchronous ones whose answer the application has not seen.
        self.unanswered = 0
        #: When it chose the start of which partition.
        self.chosen: dict[int, float] = {}
        #: When it was polled last; None until it joins the group.
        self.polled_s: float | None = None
        self.callback_end_s = 0.0
        self._arrival_s = 0.0
        self._callbacks: dict[str, Callable[..., None]] = {}
        broker.consumers.append(self)
        actor.at_death.append(self._die)

    def _die(self) -> None:
        if self.is_gone:
            return
        self.is_gone = True
        for partition in self.owned:
            self.broker.ledger.excuse(partition, "fetcher died", self.engine)
            self.broker.ledger.logs[partition].fenced.add(self.engine)
        self.broker.missed(self)

    @property
    def is_rebalancing(self) -> bool:
        """Whether it cannot come to a round: a callback runs, or waits to be served."""
        return self.is_in_callback or any(kind != "commit" for kind, _ in self.events)

    def learn_of_loss(self) -> None:
        if not self.is_gone:
            self.events.append(("lost", None))

    # The API that `Member` uses.

    def subscribe(self, _topics: list[str], **callbacks: Callable[..., None]) -> None:
        self._callbacks = callbacks
        self.world.at(self.world.rng.random() * 0.1, partial(self.broker.join, self))

    def incremental_assign(self, parts: list[Part]) -> None:
        self.world.step()
        for part in parts:
            assert part.partition not in self.positions, "assigned twice"
            committed = None if self.session is None else self.broker.committed[part.partition]
            self.broker.ledger.opened(self.engine, part.partition, part.offset, committed)
            if part.partition not in self.owned:
                self.broker.ledger.foreign(part.partition, self.name)
            self.positions[part.partition] = part.offset
            self.broken.discard(part.partition)

    def incremental_unassign(self, parts: list[Part]) -> None:
        self.world.step()
        for part in parts:
            del self.positions[part.partition]
            self.paused.discard(part.partition)

    def pause(self, parts: list[Part]) -> None:
        self.world.step()
        self.paused.update(part.partition for part in parts)

    def resume(self, parts: list[Part]) -> None:
        self.world.step()
        self.paused.difference_update(part.partition for part in parts)

    def committed(self, parts: list[Part], timeout: float) -> list[Part]:
        self._request(timeout)
        known = self.broker.committed
        answer = []
        for part in parts:
            position = known[part.partition]
            self.broker.ledger.logs[part.partition].reader = self
            answer.append(
                Part(part.topic, part.partition, OFFSET_NONE if position is None else position)
            )
        self.world.step()
        return answer

    def offsets_for_times(self, parts: list[Part], timeout: float) -> list[Part]:
        self._request(timeout)
        logs = self.broker.ledger.logs
        return [
            Part(
                p.topic,
                p.partition,
                getattr(logs[p.partition], "low" if p.offset == -2 else "high"),
            )
            for p in parts
        ]

    def _request(self, timeout: float) -> None:
        """Wait for a look-up's answer."""
        self.world.sleep(self.world.rng.random() * self.broker.faults.slow_s)
        if self.broker.is_down:
            self.world.wait(lambda: not self.broker.is_down, timeout)
            if self.broker.is_down:
                raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT))

    def get_watermark_offsets(self, part: Part, cached: bool) -> tuple[int, int]:
        log = self.broker.ledger.logs[part.partition]
        return log.low, log.high

    def list_topics(self, topic: str, timeout: float) -> Any:
        self._request(timeout)
        parts = dict.fromkeys(range(len(self.broker.committed)))
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=parts)})

    def commit(self, offsets: list[Part], asynchronous: bool) -> list[Part] | None:
        self.world.step()
        positions = {part.partition: part.offset for part in offsets}
        logs = self.broker.ledger.logs
        is_choice = not asynchronous and all(
            p not in self.positions
            and (self.broker.committed[p] is None or logs[p].is_out_of_range)
            for p in positions
        )
        for partition, position in positions.items():
            if partition not in self.owned:
                self.broker.ledger.foreign(partition, self.name)
            if not is_choice and self.session is not None:
                self.broker.ledger.issue(self.engine, partition, position)
        answers: list[int | None] = []
        generation = self.session.generation if self.session else -1
        commit = Commit(
            self, self.session, generation, positions, is_choice, asynchronous, answers.append
        )
        commit.sent_s = self.world.now_s
        self.unanswered += asynchronous
        if asynchronous:
            commit.answered = lambda code: self._answered(code, offsets)
        self._send(commit)
        if asynchronous:
            return None
        self.world.wait(lambda: answers, REQUEST_S)
        code = answers[0] if answers else ck.KafkaError._TIMED_OUT
        if code is not None:
            for partition in positions:
                self.broker.ledger.excuse(partition, "final commit failed", self.engine)
            raise ck.KafkaException(ck.KafkaError(code))
        return offsets

    def _send(self, commit: Commit) -> None:
        """One connection keeps the order, but for commits that librdkafka sends again later."""
        self.commits_under_way += 1
        rng, faults = self.world.rng, self.broker.faults
        if commit.is_asynchronous and rng.random() < faults.late:
            commit.is_late = True
            delay_s = rng.random() * faults.late_s
        else:
            delay_s = self.arrival_s(self.world.now_s + rng.random() * faults.slow_s)
        self.world.at(delay_s, partial(self.broker.take, commit))

    def arrival_s(self, earliest_s: float) -> float:
        """Return after how long something arrives: not before what was sent before it."""
        self._arrival_s = max(self._arrival_s, earliest_s)
        return self._arrival_s - self.world.now_s

    def _answered(self, code: int | None, offsets: list[Part]) -> None:
        self.events.append(("commit", (code, offsets)))

    def close(self) -> None:
        """Leave the group, after a last revoke callback; a static member stays in it."""
        self.world.step()
        if self.owned and not self.is_fenced:
            self._revoke(sorted(self.owned))
        self.is_gone = True
        if self.session is not None and self.instance is None:
            self.broker.leave(self.session)
        elif self.session is not None:
            self.broker.missed(self)

    # Polling.

    def serve(self) -> None:
        """Run the callbacks that are due."""
        self.world.step()
        while self.events:
            kind, what = self.events.popleft()
            if kind == "commit":
                code, offsets = what
                self.unanswered -= 1
                self.on_commit(None if code is None else ck.KafkaError(code), offsets)
            elif kind == "assign":
                self._assign(what)
            elif kind == "revoke" and not self.is_fenced:
                self._revoke([p for p in what if p in self.owned])
            elif kind == "lost":
                self._lose()

    def _calling(self, name: str, partitions: Iterable[int]) -> None:
        self.world.note(f"{name} {sorted(partitions)}")
        self.is_in_callback = True
        self._callbacks[name](self, [Part("t", p) for p in sorted(partitions)])
        self.is_in_callback = False
        self.callback_end_s = self.world.now_s

    def _assign(self, partitions: list[int]) -> None:
        self.owned.update(partitions)
        self._calling("on_assign", partitions)

    def _revoke(self, partitions: list[int]) -> None:
        session = self.session
        self._calling("on_revoke", partitions)
        self._unassign(partitions)
        if session is not None:
            self.broker.let_go(session, partitions)

    def _lose(self) -> None:
        gone = set(self.owned)
        self.owned.clear()
        if gone:
            self._calling("on_lost", gone)
            self._unassign(gone)
        self.is_fenced = False
        self.world.at(self.world.rng.random() * 0.3, partial(self.broker.join, self))

    def _unassign(self, partitions: Iterable[int]) -> None:
        self.owned.difference_update(partitions)
        kept = set(self.positions).intersection(partitions)
        assert not kept, f"still assigned: {kept}"

    def has_something(self) -> bool:
        return bool(self.events) or (
            not self.broker.is_down and any(map(self._has, self.positions))
        )

    def _has(self, partition: int) -> bool:
        """Whether there is a message or an error to fetch."""
        if partition in self.paused or partition in self.broken:
            return False
        log, position = self.broker.ledger.logs[partition], self.positions[partition]
        if not log.low <= position <= log.high:
            return True
        return bool(log.messages) and log.messages[-1].offset >= position

    def take(self, limit: int, errors: list[tuple[int, int]]) -> list[Message]:
        """Return up to `limit` messages, drawn from some partitions."""
        taken: list[Message] = []
        if self.broker.is_down and self.world.rng.random() < 0.8:
            return taken
        partitions = [p for p in sorted(self.positions) if self._has(p)]
        self.world.rng.shuffle(partitions)
        for partition in partitions:
            log, position = self.broker.ledger.logs[partition], self.positions[partition]
            if not log.low <= position <= log.high:
                self.world.note(f"{partition}@{position} is out of range {log.low}..{log.high}")
                self.broken.add(partition)
                errors.append((partition, position))
                log.is_out_of_range = True
                self.broker.ledger.excuse(partition, "out of range")
                self.broker.ledger.forget_taken(partition)
                continue
            start = bisect_left(log.messages, position, key=attrgetter("offset"))
            count = min(len(log.messages) - start, limit - len(taken))
            if count > 1:
                count = self.world.rng.randint(1, count)
            if count:
                some = log.messages[start : start + count]
                self.positions[partition] = some[-1].offset + 1
                log.fetched = max(log.fetched, some[-1].offset + 1)
                taken += some
        return taken


class ModelMember(Member):
    """The real `Member` on this Kafka; only the reading of librdkafka's messages is replaced."""

    _consumer: Any

    def fetch(self, count: int, timeout_s: float) -> Fetched | None:
        """Serve callbacks and return messages: taken before a callback, or after it."""
        consumer: Consumer = self._consumer
        consumer.polled_s = consumer.world.now_s
        early: list[Message] = []
        if consumer.world.rng.random() < 0.2:
            early = consumer.take(count, self.out_of_range)
        consumer.serve()
        taken = early or consumer.take(count, self.out_of_range)
        if not taken and not early:
            consumer.world.wait(consumer.has_something, timeout_s)
            consumer.serve()
            taken = consumer.take(count, self.out_of_range)
        if not taken:
            return None
        runs: list[tuple[int, int]] = []
        for message in taken:
            if runs and runs[-1][0] == message.partition:
                runs[-1] = (message.partition, runs[-1][1] + 1)
            else:
                runs.append((message.partition, 1))
        values = [b"%d:" % m.number + bytes(m.size) for m in taken]
        columns = Columns([m.offset for m in taken], [m.key for m in taken], values)
        consumer.world.note(f"fetches {', '.join(map(str, taken))}")
        return Fetched(columns, runs, sum(map(len, values)))


def stand_in(make: Callable[[dict[str, Any]], Consumer]) -> SimpleNamespace:
    """Stand for the module `confluent_kafka` in `kqmp.kafka.member`."""
    return SimpleNamespace(
        Consumer=lambda properties, **_: make(properties),
        TopicPartition=Part,
        KafkaError=ck.KafkaError,
        KafkaException=ck.KafkaException,
        Message=ck.Message,
    )
