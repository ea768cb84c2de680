"""A `Consumer` that speaks to the model's broker, in place of librdkafka's, and what reads it."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import confluent_kafka as ck

from kqmp.core.batch import Columns
from kqmp.kafka.member import Fetched, Member
from tests.model.broker import OFFSET_NONE, REQUEST_S, Broker, Commit, Part, Session
from tests.model.ledger import Message
from tests.model.world import Actor


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
        #: It waits for a synchronous commit, which has a bound of its own.
        self.is_requesting = False
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
        self.is_requesting = True
        self.world.wait(lambda: answers, REQUEST_S)
        self.is_requesting = False
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

    def serve(self) -> Fetched | None:
        """Serve callbacks; as without the fast path, a message may come with them."""
        consumer: Consumer = self._consumer
        if consumer.world.rng.random() < 0.5:
            return self.fetch(1, 0.0)
        consumer.polled_s = consumer.world.now_s
        consumer.serve()
        return None


def stand_in(make: Callable[[dict[str, Any]], Consumer]) -> SimpleNamespace:
    """Stand for the module `confluent_kafka` in `kqmp.kafka.member`."""
    return SimpleNamespace(
        Consumer=lambda properties, **_: make(properties),
        TopicPartition=Part,
        KafkaError=ck.KafkaError,
        KafkaException=ck.KafkaException,
        Message=ck.Message,
    )
