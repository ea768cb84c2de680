"""One seed = one schedule: what runs, what goes wrong and when, and what must hold at the end.

A schedule has three parts: faults; calm, in which everything must be handled and committed; and the
stop of all engines, which must be clean. `python -m tests.model SEED` replays one and tells what
happened.
"""

import signal
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from kqmp.config import KqConf
from kqmp.core.life import State
from kqmp.errors import ExitCode
from tests.model.broker import SESSION_S, Broker, Faults
from tests.model.engine import SPAN_MAX, Engine, Host
from tests.model.install import conf, installed
from tests.model.ledger import Ledger
from tests.model.profiles import PROFILES
from tests.model.world import Actor, Violation, World

#: Bounds of the calm and of the stop: a schedule that needs more is stuck.
CALM_S: Final = 60.0
CALM_TURNS: Final = 6000
STOP_S: Final = 30.0
STOP_TURNS: Final = 3000


class Failed(AssertionError):
    """A schedule broke a rule."""

    def __init__(self, seed: int, error: BaseException, where: str) -> None:
        kind = "" if isinstance(error, Violation) else f"{type(error).__name__}: "
        super().__init__(f"seed {seed}: {kind}{error} ({where})")
        self.seed = seed
        self.error = error


@dataclass
class Outcome:
    """What a schedule came to."""

    turns: int
    counts: Counter[str]
    story: list[str]
    failure: Failed | None = None


class Schedule:
    """Draws a world from a seed and lets it run."""

    def __init__(self, seed: int, *, profile: str = "", keep_story: bool = False) -> None:
        self.seed = seed
        self.world = World(seed, keep_story=keep_story)
        rng = self.rng = self.world.rng
        drawn = rng.choice(("any", "any", "any", *PROFILES))
        self.profile = PROFILES[profile or drawn]
        self.world.note(f"profile {profile or drawn}")
        self.partitions = rng.choice(self.profile.partitions)
        ordering = rng.choice(("key", "key", "key", "partition", "unordered"))
        self.ledger = Ledger(self.world, self.partitions, ordering, SPAN_MAX)
        self.offset = rng.choice(("first", "first", "last"))
        self.broker = Broker(self.world, self.ledger, self.offset)
        self.broker.faults = self.profile.network or self._draw_network()
        self.host = Host(self.world, self.ledger, self.broker)
        self.host.log_bytes = self.profile.log_bytes
        self.host.lost_drain_s = self.profile.lost_drain_s
        self.is_static = rng.random() < self.profile.static
        self.conf_values: dict[str, Any] = {
            "conns": rng.choice(self.profile.conns),
            "processors": rng.choice((1, 2, 2)),
            "ordering": ordering,
            "offset": self.offset,
            "force_commit": rng.random() < 0.7,
            "max_attempts": rng.choice((1, 2, 3)),
            "ring_bytes": rng.choice((4096, 4096, 16384)),
        }
        self.keys = rng.choice((1, 3, 6))
        self.kinds = ("",) * 14 + (self.profile.kinds or self._draw_kinds())
        self.left = rng.randint(*self.profile.messages)
        self.ended: list[Engine] = []
        self.is_stopping = False
        self.counts: Counter[str] = Counter()

    def _draw_kinds(self) -> tuple[str, ...]:
        return self.rng.choice(
            ((), (), ("slow",), ("failing",), ("deadly",), ("slow", "failing", "deadly"))
        )

    def _draw_network(self) -> Faults:
        rng = self.rng
        return Faults(
            late=rng.choice((0.0, 0.1, 0.4)),
            refused=rng.choice((0.0, 0.1, 0.5)),
            tardy=rng.choice((0.0, 0.2)),
            unanswered=rng.choice((0.0, 0.0, 0.1)),
            slow_s=rng.choice((0.004, 0.02, 0.3)),
        )

    # Producing.

    def produce(self, count: int) -> None:
        rng = self.rng
        for _ in range(min(count, self.left)):
            self.left -= 1
            partition = rng.randrange(self.partitions)
            log = self.ledger.logs[partition]
            if log.is_cut and not self._has_been_noticed(partition):
                continue
            number = rng.randrange(self.keys + 1)
            key = b"%d.%d" % (partition, number) if number else None
            size = rng.choice((0, 0, 50, 300, 300, 3000) if rng.random() < 0.1 else (0, 20))
            hole = rng.random() < 0.05
            self.ledger.append(partition, key, rng.choice(self.kinds), size, int(hole))

    def _has_been_noticed(self, partition: int) -> bool:
        """Whether everybody knows that a log has lost its end: else what comes now may be skipped.

        That cannot be helped: an offset says nothing of the record that stood there before.
        """
        log = self.ledger.logs[partition]
        if self.broker.is_read_beyond(partition, log.high):
            return False
        for engine in self.alive():
            if engine.coordinator is not None:
                life = engine.coordinator.positions.partitions._lives.get(partition)
                if life is not None and (life.own > log.high or life.state is not State.CLOSED):
                    return False
        log.is_cut = False
        return True

    # Engines.

    def conf(self, number: int) -> KqConf:
        values = dict(self.conf_values)
        if self.is_static:
            values["instance_id"] = f"i{number}"
        return conf(**values)

    def alive(self) -> list[Engine]:
        return [engine for engine in self.host.engines if engine.is_alive]

    def start_engine(self) -> None:
        alive = self.alive()
        if len(alive) < 2 and not self.is_stopping:
            taken = {engine.conf.instance_id for engine in alive} if self.is_static else ()
            confs = map(self.conf, range(3))
            self.host.start_engine(next(c for c in confs if c.instance_id not in taken))

    def check_ends(self, *, is_calm: bool) -> None:
        """An engine ends only if it was told to, or killed."""
        for engine in self.host.engines:
            if engine.is_alive or engine in self.ended:
                continue
            self.ended.append(engine)
            code = engine.exit_code
            if engine.actor.exit_code == -9:
                continue
            if not engine.is_stopping:
                raise Violation(f"engine {engine.number} ended by itself: {code!r}")
            if code is not ExitCode.CLEAN and (is_calm or code is not ExitCode.DRAIN_DEADLINE):
                reason = engine.coordinator.reason if engine.coordinator else ""
                raise Violation(f"engine {engine.number} stopped with {code!r}: {reason}")

    # Faults.

    def fault(self) -> None:
        """Let something go wrong."""
        name = self.rng.choice(self.profile.faults)
        self.world.note(f"fault: {name}")
        self.counts[name] += 1
        getattr(self, name.replace(" ", "_"))()

    def _one(self, actors: Iterable[Actor]) -> Actor | None:
        listed = list(actors)
        return self.rng.choice(listed) if listed else None

    def kill_processor(self) -> None:
        actor = self._one(a for e in self.alive() for a in e.processors())
        if actor is not None:
            actor.kill()

    def kill_fetcher(self) -> None:
        actor = self._one(a for e in self.alive() for a in e.fetchers())
        if actor is not None:
            actor.kill()

    def kill_coordinator(self) -> None:
        actor = self._one(e.actor for e in self.alive())
        if actor is not None:
            actor.kill()
            if self.rng.random() < 0.7:
                self.world.at(self.rng.random() * 2, self.start_engine)

    def stop_engine(self) -> None:
        alive = self.alive()
        if alive:
            self.rng.choice(alive).signal(signal.SIGTERM)
            if self.rng.random() < 0.7:
                self.world.at(self.rng.random() * 2, self.start_engine)

    def freeze(self) -> None:
        actor = self._one(self.world.actors)
        if actor is not None:
            seconds = self.rng.random() * 3
            actor.frozen_until_s = self.world.now_s + seconds
            if seconds > SESSION_S:
                for consumer in self.broker.consumers:
                    if consumer.actor is actor:
                        self.broker.missed(consumer)

    def freeze_coordinator(self) -> None:
        actor = self._one(engine.actor for engine in self.alive())
        if actor is not None:
            actor.frozen_until_s = self.world.now_s + self.rng.random() * 4

    def expire(self) -> None:
        if self.broker.sessions:
            self.broker.expire(self.rng.choice(self.broker.sessions))

    def move(self) -> None:
        self.broker.want_round(moves=True)

    def moves(self) -> None:
        """Partitions move about several times in a row."""
        for delay_s in (0.0, 0.3, 0.6, 0.9):
            self.world.at(delay_s, self.move)

    def outage(self) -> None:
        self.broker.down_until_s = self.world.now_s + self.rng.random() * 3

    def reset(self) -> None:
        """Everybody is thrown out of the group, and an operator sets positions.

        Often just when something was handled, and its commit is on its way; and often the group
        moves some time later, when all have come back.
        """
        self.produce(self.rng.randint(0, 6))
        self.world.at(self.rng.random() * 0.6, self.reset_now)
        for _ in range(self.rng.choice((0, 1, 2))):
            self.world.at(1.5 + self.rng.random() * 2, self.move)

    def reset_now(self) -> None:
        if self.is_stopping:
            return
        for session in list(self.broker.sessions):
            self.broker.expire(session)
        for partition, log in enumerate(self.ledger.logs):
            before = self.broker.committed[partition]
            if before is None or self.rng.random() < 0.3:
                continue
            highest = max(log.low, self.rng.choice((before, log.high)))
            position = self.rng.randint(log.low, highest)
            self.world.note(f"operator: {partition} from {before} to {position}")
            self.broker.committed[partition] = position
            self.ledger.operated(partition)
            if position > before:
                self.ledger.skip_to(partition, position)
            elif position < before:
                self._set_back(partition, position)

    def _set_back(self, partition: int, position: int) -> None:
        """Expect a reset to be honoured where it can be seen: by one engine that knows of more."""
        alive = self.alive()
        if len(alive) != 1 or alive[0].coordinator is None:
            return
        partitions = alive[0].coordinator.positions.partitions
        if partitions.committed_position(partition) > position:
            self.ledger.set_back(partition, position, alive[0].number)

    def shorten(self) -> None:
        """A log loses its start, or its end."""
        if self.rng.random() < 0.5:
            self.produce(self.rng.randint(1, 12))  # else everybody has read to the end
        partition = self.rng.randrange(self.partitions)
        log = self.ledger.logs[partition]
        position = self.rng.randint(log.low, log.high)
        if self.rng.random() < 0.7:
            self.world.note(f"broker: {partition} loses what is below {position}")
            log.low = position
            self.ledger.skip_to(partition, position)
        elif self.offset == "first":
            self.world.note(f"broker: {partition} loses what is at {position} and above")
            self.ledger.cut(partition, position)

    # The parts of a schedule.

    def run(self) -> Counter[str]:
        """Run it.

        Raises:
            Violation: a rule was broken (or whatever an actor died of).
        """
        with_start = self.rng.random() < 0.8
        self.produce(self.rng.randint(0, 30) if with_start else 0)
        self.start_engine()
        if self.rng.random() < self.profile.second:
            self.world.at(self.rng.random() * 2, self.start_engine)
        self.trouble()
        self.calm()
        self.stop()
        return self.counts

    def trouble(self) -> None:
        for _ in range(self.rng.randint(0, 5)):
            for _ in range(self.rng.randint(10, 200)):
                self.turn()
                if self.rng.random() < 0.02:
                    self.produce(self.rng.randint(1, 12))
            self.check_ends(is_calm=False)
            self.fault()

    def turn(self) -> None:
        self.world.turn()
        self.host.check_bounds()

    def calm(self) -> None:
        """Nothing goes wrong any more: everything is handled and committed."""
        self.broker.faults = Faults()
        self.broker.down_until_s = 0.0
        self.world.fair_since_s = self.world.now_s
        for actor in self.world.actors:
            actor.frozen_until_s = 0.0
        self.produce(self.left)
        self.world.note("calm")
        self.check_ends(is_calm=False)
        if not any(not engine.is_stopping for engine in self.alive()):
            self.world.at(0.1, self.start_engine)
        self.until(self.is_settled, CALM_S, CALM_TURNS, self.what_is_left)

    def is_settled(self) -> bool:  # noqa: PLR0911 - a list of what may be unsettled
        if any(e.is_stopping for e in self.alive()) or not self.alive():
            self.check_ends(is_calm=False)
            if not self.alive():
                self.start_engine()
            return False
        if any(actor.doom is not None for actor in self.world.actors):
            return False
        consumers = [c for c in self.broker.consumers if not c.is_gone]
        if any(c.session is None or c.events or c.unanswered for c in consumers):
            return False
        for partition, log in enumerate(self.ledger.logs):
            owner = self.broker.owner(partition)
            if owner is None or owner.consumer.is_gone:
                return False
            if not log.low <= owner.consumer.positions.get(partition, -1) <= log.high:
                return False
            if log.first_unsettled() != float("inf"):
                return False
            if not self.ledger.is_committed(partition, self.broker.committed[partition]):
                return False
        return not self.host.in_hand and not self.host.held_count()

    def what_is_left(self) -> str:
        left = ", ".join(map(str, self.ledger.unsettled()[:5])) or "nothing"
        ends = [log.high for log in self.ledger.logs]
        return f"unfinished: {left}; committed {self.broker.committed}, ends {ends}"

    def until(
        self, is_done: Callable[[], bool], seconds: float, turns: int, tell: Callable[[], str]
    ) -> None:
        until_s, until_turns = self.world.now_s + seconds, self.world.turns + turns
        while not is_done():
            if self.world.now_s > until_s or self.world.turns > until_turns:
                raise Violation(f"stuck: {tell()}")
            for _ in range(5):
                self.turn()
            self.host.check_polling()

    def stop(self) -> None:
        """All engines stop: clean, and nothing is repeated afterwards."""
        self.world.note("stop")
        self.is_stopping = True
        self.check_ends(is_calm=False)
        for engine in self.alive():
            engine.signal(signal.SIGTERM)
        self.until(
            lambda: not self.world.actors, STOP_S, STOP_TURNS, lambda: f"{self.world.actors}"
        )
        self.check_ends(is_calm=True)
        for partition, position in enumerate(self.broker.committed):
            if not self.ledger.is_committed(partition, position):
                raise Violation(f"stopped clean: {partition} at {position}, {self.what_is_left()}")


def run(
    seed: int,
    *,
    profile: str = "",
    keep_story: bool = False,
    broken: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Outcome:
    """Run the schedule of a seed; `broken` switches a rule off while it runs."""
    schedule = Schedule(seed, profile=profile, keep_story=keep_story)
    world = schedule.world
    failure = None
    with installed(schedule.host), broken():
        try:
            schedule.run()
        except (Violation, Exception) as error:  # noqa: BLE001 - reported with its seed
            where = f"at turn {world.turns}, {world.failed_actor or 'schedule'}"
            failure = Failed(seed, error, where)
            failure.__cause__ = error
        finally:
            world.end()
            schedule.host.close()
    schedule.counts.update(schedule.ledger.counts)
    return Outcome(world.turns, schedule.counts, world.story, failure)
