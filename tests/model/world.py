"""Processes as greenlets under one seeded scheduler: virtual time, kills between any two steps.

A *step* is a store to (or a load from) shared memory, a control message, or a call of the model's
Kafka. An actor runs a drawn number of steps, then another one is drawn. All that is random comes
from one generator, so that a seed says everything.
"""

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from greenlet import getcurrent, greenlet

#: Steps an actor makes in a row: mostly few, so that two actors meet between any two of them.
QUANTA: Final = (1, 2, 3, 5, 8, 13, 21, 40, 80, 160)
#: Most seconds that pass in one turn in which some actor had something to do.
TICK_S: Final = 0.004


class Killed(BaseException):
    """Stands for kill -9: no code of the victim runs any more."""


class Exited(BaseException):
    """Stands for os._exit."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Violation(BaseException):
    """A rule of the protocol was broken. No `except Exception` of the engine may catch it."""


class Actor:
    """One process."""

    def __init__(self, world: "World", name: str, main: Callable[[], None]) -> None:
        self.world = world
        self.name = name
        self.main = main
        self.greenlet = greenlet(self._run, world.hub)
        self.speed = world.draw_speed()
        self.ready: Callable[[], Any] | None = None
        self.until_s = 0.0
        self.frozen_until_s = 0.0
        #: Steps left before a kill takes effect; None = nobody killed it.
        self.doom: int | None = None
        self.is_killed_by_parent = False
        self.is_dying = False
        self.is_dead = False
        self.exit_code: int | None = None
        #: Called once it is dead.
        self.at_death: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return self.name

    def _run(self) -> None:
        code = 0
        try:
            self.main()
        except Killed:
            code = -9
        except Exited as exited:
            code = exited.code
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the schedule has failed
            self.world.fail(self, error)
            code = 1
        self.end(code)

    def end(self, code: int) -> None:
        self.is_dying = self.is_dead = True
        self.exit_code = code
        self.world.note(f"{self.name} ends: {code}")
        self.world.running = None
        for call in self.at_death:
            call()

    def kill(self) -> None:
        """Kill -9; steps may still be made, or time pass in a system call, until it is gone."""
        if not self.is_dead and self.doom is None:
            rng = self.world.rng
            self.doom = rng.randrange(4)
            stays_s = rng.random() if rng.random() < 0.15 else 0.0
            self.frozen_until_s = self.world.now_s + stays_s
            self.world.note(f"kill -9 {self.name}")

    def can_run(self, now_s: float) -> bool:
        if self.frozen_until_s > now_s:
            return False
        if self.doom is not None:
            return True
        return self.ready is None or now_s >= self.until_s or bool(self.ready())


class World:
    """The clock, the actors and the scheduler."""

    def __init__(self, seed: int, *, keep_story: bool = False) -> None:
        self.rng = random.Random(seed)
        self.hub = getcurrent()
        self.now_s = 1000.0
        self.actors: list[Actor] = []
        self.running: Actor | None = None
        #: Who ran last.
        self.last: Actor | None = None
        self.budget = 0
        self.turns = 0
        self.failure: BaseException | None = None
        self.failed_actor = ""
        self.keep_story = keep_story
        self.story: list[str] = []
        #: Since when everybody gets his turn; None while some are slower than others.
        self.fair_since_s: float | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        #: Doorbells: descriptor -> rung.
        self.bells: dict[int, bool] = {}

    # What actors call.

    def step(self) -> None:
        """One step of the running actor; another actor may run, or a kill strike, before it."""
        actor = self.running
        if actor is None:
            return
        if actor.is_dying:
            raise Killed
        if self.budget <= 0:
            self.hub.switch()
        self.budget -= 1

    def wait(self, ready: Callable[[], Any], timeout_s: float) -> None:
        """Block the running actor until `ready()` or the time is up."""
        actor = self.running
        assert actor is not None
        if actor.is_dying:
            raise Killed
        actor.ready = ready
        actor.until_s = self.now_s + timeout_s
        self.hub.switch()
        actor.ready = None

    def sleep(self, seconds: float) -> None:
        self.wait(bool, seconds)

    @property
    def is_fair(self) -> bool:
        return self.fair_since_s is not None

    def note(self, text: str) -> None:
        """Add a line to the story."""
        if self.keep_story:
            who = self.running.name if self.running else "-"
            self.story.append(f"{self.now_s - 1000:8.3f} {self.turns:5} {who:14} {text}")

    def fail(self, actor: Actor, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
            self.failed_actor = actor.name

    # What the schedule calls.

    def draw_speed(self) -> float:
        return self.rng.choice((0.05, 0.3, 1.0, 1.0, 1.0, 3.0))

    def start(self, name: str, main: Callable[[], None]) -> Actor:
        actor = Actor(self, name, main)
        self.actors.append(actor)
        return actor

    def at(self, delay_s: float, call: Callable[[], None]) -> None:
        """Have `call` made after `delay_s`."""
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._order), call))

    def turn(self) -> None:
        """Let one actor run for a while, or the clock move on to when one can."""
        self.turns += 1
        while self._events and self._events[0][0] <= self.now_s:
            heapq.heappop(self._events)[2]()
        now_s = self.now_s
        able = [actor for actor in self.actors if actor.can_run(now_s)]
        if not able:
            self._skip_to_next()
            return
        if self.is_fair:
            actor = able[self.turns % len(able)]
            self.budget = 60
        else:
            actor = self.rng.choices(able, [a.speed for a in able])[0] if len(able) > 1 else able[0]
            self.budget = self.rng.choice(QUANTA)
        self._resume(actor)
        self.now_s += self.rng.random() * TICK_S
        if self.failure is not None:
            raise self.failure

    def _resume(self, actor: Actor) -> None:
        if actor.doom is not None:
            if actor.doom == 0 or actor.ready is not None or not actor.greenlet:
                self.strike(actor)
                return
            self.budget = actor.doom
            actor.doom = 0
        self.running = self.last = actor
        actor.greenlet.switch()
        self.running = None
        if actor.is_dead:
            self.actors.remove(actor)

    def strike(self, actor: Actor) -> None:
        """Have a kill take effect now."""
        actor.is_dying = True
        self.running = actor
        if actor.greenlet:
            actor.greenlet.throw(Killed)
        else:
            actor.end(-9)
        self.running = None
        assert actor.is_dead
        self.actors.remove(actor)

    def _skip_to_next(self) -> None:
        times = [
            max(a.until_s if a.ready is not None and a.doom is None else 0.0, a.frozen_until_s)
            for a in self.actors
        ]
        if self._events:
            times.append(self._events[0][0])
        self.now_s = max(self.now_s, min(times, default=self.now_s + 0.1))

    def end(self) -> None:
        """Kill whatever is left."""
        self.failure = None
        for actor in list(self.actors):
            self.strike(actor)
