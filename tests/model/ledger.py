"""What model handlers did and what Kafka was told, judged at every step.

Nothing here looks at the engine's own counters. A message that is *settled* was handled to the end
by somebody, or is excused for ever: the log lost it, an operator skipped it, or it killed so many
processors that it was set aside.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tests.model.world import Violation, World

#: A reason of this engine excuses repeats by every engine.
ANYBODY: Final = -1


@dataclass(eq=False)
class Message:
    """One record of the log."""

    number: int
    partition: int
    offset: int
    key: bytes | None
    #: "" (plain), "slow", "failing" or "deadly".
    kind: str
    size: int
    started: int = 0
    deaths: int = 0
    is_settled: bool = False
    #: It was settled once; an operator may want it handled again.
    was_settled: bool = False
    #: It may be started once more without being a duplicate.
    is_excused: bool = False
    #: The last attempt raised, and the engine has to retry it.
    is_retried: bool = False

    def __str__(self) -> str:
        return f"{self.partition}@{self.offset}"

    def settle(self) -> None:
        self.is_settled = self.was_settled = True


class Reason(NamedTuple):
    """Why a partition may be read again from below what was handled."""

    what: str
    #: The engine whose own memory still knows better, or ANYBODY.
    engine: int


@dataclass
class Log:
    """One partition."""

    messages: list[Message] = field(default_factory=list)
    low: int = 0
    high: int = 0
    #: One past the highest offset that anybody has taken from the broker.
    fetched: int = 0
    #: Index of the first message that is not settled.
    front: int = 0
    #: Offsets below it were passed over by the choice of a start (`Offset: last`).
    base: int = 0
    reasons: set[Reason] = field(default_factory=set)
    #: The broker has told a reader that its position is out of range.
    is_out_of_range: bool = False
    #: It has lost its end.
    is_cut: bool = False
    #: Set back by an operator to here: the next opening must begin here.
    reset_to: int | None = None
    #: The engine that has to see it. If another one comes between it cannot know.
    reset_engine: int = ANYBODY
    #: A commit that librdkafka sent again, late, has set the group's position back from here: it
    #: stays below until the partition moves on.
    set_back_from: int = 0
    #: Such a commit of a former owner was the last: the present one may be below it.
    is_moved_by_stale: bool = False
    #: The consumer that was told the group's position last.
    reader: Any = None
    #: Engines that may still handle messages of it though it was taken from them.
    fenced: set[int] = field(default_factory=set)

    def first_unsettled(self) -> float:
        messages = self.messages
        while self.front < len(messages) and messages[self.front].is_settled:
            self.front += 1
        return messages[self.front].offset if self.front < len(messages) else float("inf")


class Ledger:
    """All partitions and all handlers."""

    def __init__(self, world: World, partitions: int, ordering: str, span_max: int) -> None:
        self.world = world
        self.ordering = ordering
        self.span_max = span_max
        self.logs = [Log() for _ in range(partitions)]
        self.messages: list[Message] = []
        self._by_key: dict[Any, list[Message]] = defaultdict(list)
        #: Index of the first message of a key that is not settled.
        self._key_front: dict[Any, int] = defaultdict(int)
        self._key_index: dict[Message, int] = {}
        #: (engine, key) -> who handles it now.
        self._running: dict[Any, str] = {}
        #: (engine, partition) -> position of the last commit that the broker took.
        self.taken: dict[tuple[int, int], int] = {}
        self.counts: dict[str, int] = defaultdict(int)

    # The log.

    def append(self, partition: int, key: bytes | None, kind: str, size: int, hole: int) -> None:
        log = self.logs[partition]
        message = Message(len(self.messages), partition, log.high + hole, key, kind, size)
        log.high = message.offset + 1
        log.messages.append(message)
        self.messages.append(message)
        order = self._order_of(message)
        if order is not None:
            self._key_index[message] = len(self._by_key[order])
            self._by_key[order].append(message)

    def _order_of(self, message: Message) -> Any:
        if self.ordering == "partition":
            return message.partition
        if self.ordering == "key" and message.key is not None:
            return (message.partition, message.key)
        return None

    # Handlers.

    def start(self, engine: int, who: str, message: Message, owner: int | None) -> None:
        """A handler is called; `owner` is the engine to which the group gave the partition."""
        is_zombie = engine in self.logs[message.partition].fenced
        if owner != engine and not is_zombie:
            raise Violation(f"{message} handled by {who} after its partition was given up")
        self.world.note(f"handles {message} key={message.key!r}{' (zombie)' * is_zombie}")
        order = self._order_of(message)
        if order is not None:
            self._check_order(engine, who, message, order)
        if message.is_retried:
            message.is_retried = False
        elif message.started:
            self._repeat(message, is_zombie=is_zombie)
        message.started += 1
        if is_zombie:
            # Whoever has the partition now handles it as well.
            message.is_excused = True

    def _check_order(self, engine: int, who: str, message: Message, order: Any) -> None:
        row = self._by_key[order]
        front = self._key_front[order]
        while front < len(row) and row[front].was_settled:
            front += 1
        self._key_front[order] = front
        if front < self._key_index[message]:
            raise Violation(f"order: {message} handled before {row[front]}, both key {order}")
        if (engine, order) in self._running:
            other = self._running[engine, order]
            raise Violation(f"order: {message} at {who} while {other} handles its key {order}")
        self._running[engine, order] = who

    def _repeat(self, message: Message, *, is_zombie: bool) -> None:
        self.counts["repeats"] += 1
        if not message.is_excused and not is_zombie:
            raise Violation(f"duplicate: {message} handled again without a reason")
        message.is_excused = False

    def finish(self, engine: int, message: Message) -> None:
        """A handler returned, or raised and is passed over."""
        self.world.note(f"done {message}")
        message.settle()
        self._running.pop((engine, self._order_of(message)), None)

    def failed(self, engine: int, message: Message) -> None:
        """A handler raised and has to be called again."""
        message.is_retried = True
        self._running.pop((engine, self._order_of(message)), None)

    def died_with(self, engine: int, message: Message, *, blamed: bool) -> None:
        """A processor died with this message in its hands."""
        message.is_excused = message.started > 0
        message.is_retried = False
        message.deaths += blamed
        self._running.pop((engine, self._order_of(message)), None)

    def set_aside(self, message: Message, max_attempts: int) -> None:
        self.counts["set aside"] += 1
        if message.deaths < max_attempts:
            raise Violation(f"{message} set aside after {message.deaths} deaths")
        message.settle()

    # Openings and commits.

    def opened(self, engine: int, partition: int, position: int, committed: int | None) -> None:
        """An engine reads a partition from here; the group stands at `committed`.

        None: the group does not, or took the partition from it meanwhile.
        """
        log = self.logs[partition]
        if engine != log.reset_engine:
            self._forget_reset(log)
        if log.reset_to is not None and position <= log.reset_to:
            log.reset_to = None
        if committed is None:
            log.fenced.add(engine)
        else:
            self._check_start(log, partition, position)
            log.fenced.discard(engine)
        again = [m for m in log.messages if m.offset >= position and m.started]
        reasons = sorted(r.what for r in log.reasons if r.engine != engine)
        if reasons:
            self.counts["span"] = max(self.counts["span"], len(again))
            is_wanted = any(r.what in ("chosen", "reset") for r in log.reasons)
            if len(again) > self.span_max and not is_wanted:
                raise Violation(f"{len(again)} of {partition} repeat, more than {self.span_max}")
            for message in again:
                message.is_excused = True
        self.world.note(f"opens {partition} at {position}, {len(again)} again, {reasons}")
        if position == committed:
            # Everybody goes on from here: what follows needs a reason of its own.
            log.reasons.clear()

    @staticmethod
    def _forget_reset(log: Log) -> None:
        log.reset_to = None
        log.reset_engine = ANYBODY
        for message in log.messages:
            message.is_settled = message.was_settled

    @staticmethod
    def _check_start(log: Log, partition: int, position: int) -> None:
        if log.first_unsettled() < position:
            unfinished = log.messages[log.front]
            raise Violation(f"loss: {partition} opened at {position}, {unfinished} is unfinished")
        if log.reset_to is not None:
            raise Violation(f"reset of {partition} to {log.reset_to} ignored: opened at {position}")

    def excuse(self, partition: int, what: str, engine: int = ANYBODY) -> None:
        """Something happened after which messages above the committed position may repeat.

        Args:
            partition: of which.
            what: for the story.
            engine: which itself still knows what it finished, ANYBODY if none does.
        """
        self.logs[partition].reasons.add(Reason(what, engine))

    def issue(self, engine: int, partition: int, position: int) -> None:
        """An engine asks the broker to commit."""
        last = self.taken.get((engine, partition), -1)
        if position < last:
            raise Violation(f"stale commit: {partition} to {position}, this engine was at {last}")

    def committed(self, engine: int, partition: int, position: int) -> None:
        """The broker took a commit."""
        log = self.logs[partition]
        self.taken[engine, partition] = position
        if log.first_unsettled() < position:
            unfinished = log.messages[log.front]
            raise Violation(
                f"loss: {partition} committed at {position}, {unfinished} is unfinished"
            )
        if position >= log.fetched:
            log.reasons.clear()

    def went_back(self, partition: int, before: int, position: int) -> None:
        raise Violation(f"stale commit: {partition} from {before} back to {position}")

    def foreign(self, partition: int, who: str) -> None:
        raise Violation(f"{who} reads or commits {partition}, which it does not own")

    def forget_taken(self, partition: int) -> None:
        """After this a commit below an earlier one is right."""
        for engine, number in list(self.taken):
            if number == partition:
                del self.taken[engine, number]

    def skip_to(self, partition: int, position: int) -> None:
        """The start was chosen, or set forward: what lies below is nobody's business."""
        for message in self.logs[partition].messages:
            if message.offset < position:
                message.settle()

    def cut(self, partition: int, position: int) -> None:
        """The log loses its end."""
        log = self.logs[partition]
        for message in log.messages:
            if message.offset >= position:
                message.settle()
        log.messages = [m for m in log.messages if m.offset < position]
        log.high = position
        log.is_cut = True
        log.front = min(log.front, len(log.messages))

    def operated(self, partition: int) -> None:
        """An operator sets the group's position."""
        self._forget_reset(self.logs[partition])
        self.forget_taken(partition)
        self.excuse(partition, "reset")

    def set_back(self, partition: int, position: int, engine: int) -> None:
        """An operator wants everything from here on handled once more, and this engine knows."""
        log = self.logs[partition]
        log.reset_to, log.reset_engine = position, engine
        for message in log.messages:
            if message.offset >= position:
                message.is_settled = False
        log.front = 0

    def is_committed(self, partition: int, position: int | None) -> bool:
        """Whether the group's position is at the end of the log, as far as it can be."""
        log = self.logs[partition]
        last = log.messages[-1].offset + 1 if log.messages else 0
        if last <= log.low or log.set_back_from or log.is_cut:
            return True
        return position is not None and last <= position <= log.high

    def unsettled(self) -> list[Message]:
        return [message for message in self.messages if not message.is_settled]
