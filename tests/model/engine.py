"""kqmp's real roles inside the model: what they take from the system is replaced, nothing else."""

import logging
import os
import selectors
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import msgspec

from kqmp.config import KqConf
from kqmp.core import slots
from kqmp.core.batch import Chunk, Part
from kqmp.core.life import State
from kqmp.errors import BrokerError, ExitCode, InternalError, KqmpError
from kqmp.handler import Handler
from kqmp.kafka import member
from kqmp.ring import bell, lane, log
from kqmp.ring import words as w
from kqmp.ring.frame import Frame
from kqmp.ring.lane import LaneControl, LaneReader, LaneWriter
from kqmp.ring.log import DispatchReader, DispatchWriter, EndsReader
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
from kqmp.roles.coordinator import Coordinator
from kqmp.roles.positions import Positions
from kqmp.roles.tree import FetcherSlot, LaneSlot, Plan
from tests.model import control as fakes
from tests.model.kafka import Broker, Consumer, ModelMember, stand_in
from tests.model.ledger import Ledger, Message
from tests.model.memory import views
from tests.model.world import Actor, Exited, Violation, World

BATCH = 8
SPAN_MAX = 60
BAY_COUNT_MAX = 12
#: A fetcher polls at least this often outside a callback: half a second, and what the scheduler
#: takes when everybody gets his turn.
POLL_S = 1.0

#: (module, name, value): limits and waits made small, so that a short schedule meets them.
SMALL: tuple[tuple[Any, str, Any], ...] = (
    (assignment, "REVOKE_SLACK_S", 1.0),
    (coordinator, "IDLE_PASS_S", 0.2),
    (coordinator, "LEAVE_S", 5.0),
    (coordinator, "PASS_S", 0.05),
    (positions, "SPAN_MAX", SPAN_MAX),
    (dispatch, "BAY_COUNT_MAX", BAY_COUNT_MAX),
    (fetcher, "BATCH", BATCH),
    (fetcher, "EAGER_S", 0.03),
    (fetcher, "IDLE_S", 0.2),
    (fetcher, "SPAN_MAX", SPAN_MAX),
    (slots, "SLOTS", 16),
    (slots, "hash", lambda key: crc32(key if isinstance(key, bytes) else b"%d" % key)),
)


class Engine:
    """One engine: its coordinator and whatever that starts."""

    def __init__(self, host: "Host", number: int, conf: KqConf) -> None:
        self.host = host
        self.number = number
        self.conf = conf
        self.wake = fakes.Wake()
        self.children: list[Actor] = []
        self.coordinator: Model | None = None
        self.exit_code: ExitCode | None = None
        self.signals: list[int] = []
        self.is_stopping = False
        self.actor = host.world.start(f"{number}.coordinator", self._run)
        self.actor.at_death.append(self._ended)

    def _run(self) -> None:
        plan = Plan(self.conf, b"", "model", [])
        self.coordinator = Model(plan, self)
        self.coordinator._signals = self.signals
        self.exit_code = self.coordinator.run()

    def _ended(self) -> None:
        """The death signal takes all children along; an end that is not clean may repeat."""
        for child in self.children:
            child.kill()
        if self.exit_code is not ExitCode.CLEAN:
            for session in self.host.broker.sessions:
                if session.consumer.engine == self.number:
                    for partition in session.owned | session.consumer.owned:
                        self.host.ledger.excuse(partition, f"engine {self.number} ended")

    def signal(self, number: int) -> None:
        self.is_stopping = True
        signals = self.signals if self.coordinator is None else self.coordinator._signals
        signals.append(number)
        self.wake.bytes_left = 1

    @property
    def is_alive(self) -> bool:
        return not self.actor.is_dead

    def fetchers(self) -> list[Actor]:
        return [a for a in self.children if "fetcher" in a.name and not a.is_dead]

    def processors(self) -> list[Actor]:
        return [a for a in self.children if "processor" in a.name and not a.is_dead]


class Model(Coordinator):
    """The real coordinator, with the model's signals; a stop that is late is told to the ledger."""

    def __init__(self, plan: Plan, engine: Engine) -> None:
        super().__init__(plan)
        self._engine = engine

    def _catch_signals(self) -> Any:
        return self._engine.wake, lambda: None

    def _leave_late(self, now_s: float) -> None:
        for partition in range(len(self._engine.host.ledger.logs)):
            if self.positions.partitions.state(partition) is not State.CLOSED:
                self._engine.host.ledger.excuse(partition, "drain deadline")
        super()._leave_late(now_s)


class ModelPositions(Positions):
    """The real books; forced closes are told to the ledger."""

    ledger: Ledger

    def _force(self, lane: LaneSlot, epoch: int, fetcher: FetcherSlot) -> None:
        partition = fetcher.inflight._epochs[epoch].partition
        self.ledger.excuse(partition, "forced close")
        super()._force(lane, epoch, fetcher)


class Host:
    """The machine: starts what a coordinator asks for."""

    def __init__(self, world: World, ledger: Ledger, broker: Broker) -> None:
        self.world = world
        self.ledger = ledger
        self.broker = broker
        self.log_bytes = 2048
        self.lost_drain_s = 0.5
        self.engines: list[Engine] = []
        self.fds: list[int] = []
        #: What a processor has in its hands.
        self.in_hand: dict[Actor, Message] = {}
        self._engine_of: dict[Actor, Engine] = {}
        self._fetchers: dict[Actor, fetcher.Fetcher] = {}
        self._processors: dict[Actor, ModelProcessor] = {}

    def start_engine(self, conf: KqConf) -> Engine:
        engine = Engine(self, len(self.engines), conf)
        self.engines.append(engine)
        self._engine_of[engine.actor] = engine
        return engine

    def spawn(self, module: str, spec: Any, *_: Any, **__: Any) -> fakes.Child:
        """Stand for `kqmp.roles.spawn.spawn`."""
        self.world.step()
        assert self.world.running is not None
        engine = self._engine_of[self.world.running]
        ours, theirs = fakes.pair(self.world)
        if module == "kqmp.roles.fetcher":
            name = f"{engine.number}.fetcher{spec.index}"
            main = partial(self._run_fetcher, spec, theirs)
        else:
            name = f"{engine.number}.processor{spec.fetcher}.{spec.index}"
            main = partial(self._run_processor, spec, theirs)
        actor = self.world.start(name, main)
        actor.at_death.append(theirs.close)
        if module == "kqmp.roles.processor":
            actor.at_death.append(partial(self._processor_died, actor))
        self._engine_of[actor] = engine
        engine.children = [a for a in engine.children if not a.is_dead] + [actor]
        return fakes.Child(self.world, actor, ours)

    # Fetchers.

    def consumer(self, properties: dict[str, Any]) -> Consumer:
        actor = self.world.running
        assert actor is not None
        return Consumer(self.broker, actor, self._engine_of[actor].number, properties)

    def _run_fetcher(self, spec: control.FetcherSpec, channel: Any) -> None:
        assert self.world.running is not None
        actor = self.world.running
        try:
            role = fetcher.Fetcher(spec, channel)
            self._fetchers[actor] = role
            actor.at_death.append(partial(self._fetcher_died, actor))
            role.run()
        except BrokerError as error:
            channel.tell(control.Failed(int(ExitCode.BROKER), str(error)))
            raise Exited(int(ExitCode.BROKER)) from error

    def _fetcher_died(self, actor: Actor) -> None:
        role = self._fetchers.pop(actor)
        assert isinstance(role._dispatcher, ModelDispatcher)
        excuse_held(self.ledger, role._dispatcher, range(len(self.ledger.logs)))

    def held_count(self) -> int:
        """Return the messages in all bays."""
        return sum(role._dispatcher.held_count for role in self._fetchers.values())

    def check_bounds(self) -> None:
        """Bays, and what lies between the committed and the fetched position, are bounded.

        Only who ran last can have changed that.
        """
        actor = self.world.last
        role = None if actor is None else self._fetchers.get(actor)
        if role is None:
            return
        held = role._dispatcher.held_count
        if held > BAY_COUNT_MAX + BATCH:
            raise Violation(f"bays of {actor} hold {held} messages")
        if role._member._consumer.session is None:
            return  # thrown out of the group and not aware of it
        for partition, opening in role._assignment.openings.items():
            log = self.ledger.logs[partition]
            low = self.broker.committed[partition] or 0
            span = sum(low <= m.offset < opening.fetched_position for m in log.messages)
            if span > SPAN_MAX:
                raise Violation(f"{actor} has {span} messages of {partition} under way")

    def check_polling(self) -> None:
        """No handler keeps a fetcher from polling; told only while nobody is starved."""
        for actor, role in self._fetchers.items():
            self._check_polling(actor, role._member._consumer)  # type: ignore[arg-type]

    def _check_polling(self, actor: Actor, consumer: Consumer) -> None:
        polled_s, fair_s = consumer.polled_s, self.world.fair_since_s
        if polled_s is None or consumer.is_in_callback or consumer.is_gone or fair_s is None:
            return
        away_s = self.world.now_s - max(polled_s, consumer.callback_end_s, fair_s)
        if away_s > POLL_S:
            raise Violation(f"{actor} has not polled for {away_s:.1f} s")

    # Processors.

    def _run_processor(self, spec: control.ProcessorSpec, channel: Any) -> None:
        actor = self.world.running
        assert actor is not None
        engine = self._engine_of[actor]
        handler = Handler(
            name="model",
            form="key_value",
            call=partial(self._handle, engine, actor),
            columns=frozenset(),
        )
        role = processor.Processor(spec, channel, handler)
        assert isinstance(role, ModelProcessor)
        self._processors[actor] = role
        self.world.step()
        channel.tell(control.Ready())
        try:
            role.run()
            role.close()
            handler.close()
        except InternalError:
            raise
        except KqmpError as error:
            raise Violation(f"{actor}: {error}") from error

    def _handle(self, engine: Engine, actor: Actor, _key: bytes | None, value: bytes) -> None:
        """The user's handler."""
        message = self.ledger.messages[int(value.split(b":")[0])]
        owner = self.broker.owner(message.partition)
        owning = engine.number if owner is None and actor.doom is not None else None
        if owner is not None:
            owning = owner.consumer.engine
        self.in_hand[actor] = message
        self.ledger.start(engine.number, actor.name, message, owning)
        self.world.step()
        if message.kind == "deadly":
            raise Exited(-11)
        if message.kind == "slow" and message.started == 1 and not self.world.is_fair:
            self.world.sleep(self.world.rng.random() * 3)
        if message.kind == "failing" and not self.world.is_fair and self.world.rng.random() < 0.7:
            if engine.conf.force_commit:
                self.ledger.finish(engine.number, message)
            else:
                self.ledger.failed(engine.number, message)
            raise ValueError(message.number)
        self.ledger.finish(engine.number, message)
        self.world.step()

    def taken(self) -> None:
        """A processor has stored its cursor: nothing is in its hands any more."""
        if self.world.running is not None:
            self.in_hand.pop(self.world.running, None)

    def _processor_died(self, actor: Actor) -> None:
        self.in_hand.pop(actor, None)
        role = self._processors.pop(actor, None)
        message = None if role is None else role.message_at_cursor()
        if message is not None:
            engine = self._engine_of[actor].number
            blamed = not actor.is_killed_by_parent
            self.ledger.died_with(engine, message, blamed=blamed)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class ModelProcessor(processor.Processor):
    """The real processor; what it sets aside is told to the ledger."""

    host: Host

    def message_at_cursor(self) -> Message | None:
        """The message that a death is blamed on: its state word and its cursor say so."""
        lane, words = self._lane, self._words
        if words[w.STATE] != w.STATE_IN_FRAME:
            return None
        end = self._ends.end()
        while (frame := lane.next_frame(end, None)) is not None:
            if words[w.CURSOR] < frame.first + frame.count:
                return self._message_of(frame, words[w.CURSOR] - frame.first)
            lane.position += frame.length
        return None

    def _message_of(self, frame: Frame, index: int) -> Message:
        value = frame.values[index]
        assert value is not None
        return self.host.ledger.messages[int(value.split(b":")[0])]

    def _set_aside(self, frame: Frame, index: int) -> None:
        self.host.ledger.set_aside(self._message_of(frame, index), self._spec.max_attempts)
        super()._set_aside(frame, index)


class ModelDispatcher(dispatch.Dispatcher):
    """The real dispatcher; it remembers what it is writing to a lane."""

    in_writing: Sequence[Part] = ()

    def _write(self, index: int, chunk: Chunk) -> bool:
        self.in_writing = chunk.parts
        is_written = super()._write(index, chunk)
        self.in_writing = ()
        return is_written


class ModelAssignment(assignment.Assignment):
    """The real assignment; a revoke that was not answered in time is told to the ledger."""

    host: Host
    _dispatcher: ModelDispatcher

    def _drop(self, partitions: list[int]) -> list[int]:
        excuse_held(self.host.ledger, self._dispatcher, partitions)
        return super()._drop(partitions)

    def _await_final(self, waiting: set[int]) -> dict[int, tuple[int, int]]:
        started_s = self.host.world.now_s
        final = super()._await_final(waiting)
        consumer: Consumer = self.member._consumer  # type: ignore[assignment]
        waited_s = self.host.world.now_s - started_s
        if waiting and waited_s < self._conf.drain_timeout_ms / 1000 and not self._channel.closed:
            raise Violation(f"partitions {waiting} given up without waiting for their close")
        for partition in waiting:
            self.host.ledger.excuse(partition, "no final position", consumer.engine)
            self.host.ledger.logs[partition].fenced.add(consumer.engine)
        return final


def excuse_held(ledger: Ledger, dispatcher: ModelDispatcher, partitions: Iterable[int]) -> None:
    """What is finished above a held message repeats when it is dropped: there is no done set yet.

    Held is also what is in a lane and not published.
    """
    held = {opening.partition for bay in dispatcher._bays for opening in bay.openings()}
    held.update(opening.partition for opening in dispatcher._runs)
    held.update(opening.partition for opening, _ in dispatcher.in_writing)
    if dispatcher.pending:
        held.update(partitions)
    for partition in held.intersection(partitions):
        ledger.excuse(partition, "held messages dropped")


@contextmanager
def installed(host: Host) -> Iterator[None]:
    """Put the model's world under the real roles."""
    world = host.world
    ring = views(world, host.taken)
    time = fakes.clock(world)
    create_memory = w.create_memory

    def create(name: str, size: int, header: dict[int, int]) -> int:
        fd = create_memory(name, size, header)
        host.fds.append(fd)
        return fd

    patches: list[tuple[Any, str, Any]] = [
        *SMALL,
        (w, "create_memory", create),
        (lane, "LaneControl", ring[LaneControl]),
        (log, "DispatchReader", ring[DispatchReader]),
        (dispatch, "LaneWriter", ring[LaneWriter]),
        (dispatch, "DispatchWriter", ring[DispatchWriter]),
        (processor, "LaneReader", ring[LaneReader]),
        (processor, "EndsReader", ring[EndsReader]),
        (processor, "Processor", type("P", (ModelProcessor,), {"host": host})),
        (processor, "select", SimpleNamespace(poll=lambda: fakes.Poller(world), POLLIN=1)),
        (fetcher, "Assignment", type("A", (ModelAssignment,), {"host": host})),
        (fetcher, "Dispatcher", ModelDispatcher),
        (fetcher, "Member", ModelMember),
        (member, "ck", stand_in(host.consumer)),
        (
            coordinator,
            "selectors",
            SimpleNamespace(
                DefaultSelector=lambda: fakes.Selector(world), EVENT_READ=selectors.EVENT_READ
            ),
        ),
        (coordinator, "Positions", type("L", (ModelPositions,), {"ledger": host.ledger})),
        (tree, "spawn", host.spawn),
        (tree, "LOG_BYTES", host.log_bytes),
        (positions, "LOST_DRAIN_S", host.lost_drain_s),
        (tree, "os", SimpleNamespace(close=lambda fd: None)),
        *((module, "time", time) for module in (assignment, fetcher, processor, tree)),
        *((bell, name, function) for name, function in fakes.bells(world, 1 << 20).items()),
    ]
    before = [(owner, name, getattr(owner, name, None)) for owner, name, _ in patches]
    from_wire = KqConf.from_wire
    level = logging.getLogger("kqmp").level
    try:
        for owner, name, value in patches:
            setattr(owner, name, value)
        KqConf.from_wire = classmethod(lambda _, data: CONFS[data])  # type: ignore[method-assign, assignment]
        logging.getLogger("kqmp").setLevel(logging.CRITICAL + 1)
        yield
    finally:
        logging.getLogger("kqmp").setLevel(level)
        KqConf.from_wire = from_wire  # type: ignore[method-assign]
        for owner, name, value in before:
            if name == "hash":
                delattr(owner, name)
            else:
                setattr(owner, name, value)


#: Wire form -> configuration. Checking one takes longer than a schedule may.
CONFS: dict[bytes, KqConf] = {}
_MADE: dict[str, KqConf] = {}


def conf(**values: Any) -> KqConf:
    """Return a configuration with limits below those that `KqConf` allows."""
    key = repr(sorted(values.items()))
    if key not in _MADE:
        ring_bytes = values.pop("ring_bytes")
        made = KqConf(
            brokers=["b"],
            group="g",
            topic="t",
            commit_interval="200ms",
            drain_timeout="1s",
            kafka={"session.timeout.ms": "1000"},
            **values,
        )
        msgspec.structs.force_setattr(made, "ring_bytes", ring_bytes)
        _MADE[key] = made
        CONFS[made.to_wire()] = made
    return _MADE[key]
