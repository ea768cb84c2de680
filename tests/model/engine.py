"""Engines, and the machine that runs their processes: kqmp's real roles as actors."""

import os
from functools import partial
from typing import Any

from kqmp.config import KqConf
from kqmp.core.life import State
from kqmp.errors import BrokerError, ExitCode, InternalError, KqmpError
from kqmp.handler import Handler
from kqmp.roles import control, fetcher, processor
from kqmp.roles.coordinator import Coordinator
from kqmp.roles.tree import Plan
from tests.model import control as fakes
from tests.model.broker import Broker
from tests.model.consumer import Consumer
from tests.model.ledger import Ledger, Message
from tests.model.shadows import ModelDispatcher, ModelProcessor, excuse_held
from tests.model.world import Actor, Exited, Violation, World

BATCH = 8
SPAN_MAX = 60
BAY_COUNT_MAX = 12
#: A fetcher polls at least this often outside a callback: half a second, and what the scheduler
#: takes when everybody gets his turn.
POLL_S = 1.0


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
        is_busy = consumer.is_in_callback or consumer.is_requesting or consumer.is_gone
        if polled_s is None or fair_s is None or is_busy:
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
