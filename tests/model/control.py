"""Stand-ins for sockets, selectors, polls and children: the control plane inside one process."""

import selectors
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from kqmp.roles import control
from tests.model.world import Actor, World


class Channel:
    """One end of a control socket: `kqmp.roles.channel.Channel` without the socket."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.peer: Channel
        self._queue: deque[bytes] = deque()
        self.closed = False
        self.is_shut = False

    def send(self, message: control.Message) -> bool:
        self._world.step()
        if self.peer.is_shut:
            return False
        self._world.note(f"sends {message}")
        self.peer._queue.append(control.encode(message))
        return True

    def tell(self, message: control.Message) -> None:
        if not self.send(message):
            raise SystemExit(1)

    def receive(self) -> list[control.Message]:
        self._world.step()
        messages = [control.decode(data) for data in self._queue]
        self._queue.clear()
        if self.peer.is_shut:
            self.closed = True
        return messages

    def wait(self, timeout_s: float) -> list[control.Message]:
        if timeout_s > 0 and not self.closed:
            self._world.wait(self.is_readable, timeout_s)
        return self.receive()

    def is_readable(self) -> bool:
        return bool(self._queue) or self.peer.is_shut

    def close(self) -> None:
        self.is_shut = True


def pair(world: World) -> tuple[Channel, Channel]:
    one, other = Channel(world), Channel(world)
    one.peer, other.peer = other, one
    return one, other


class Wake:
    """The socket by which a signal wakes the coordinator."""

    def __init__(self) -> None:
        self.bytes_left = 0

    def is_readable(self) -> bool:
        return self.bytes_left > 0

    def recv(self, _size: int) -> bytes:
        if not self.bytes_left:
            raise BlockingIOError
        self.bytes_left = 0
        return b"s"


class PidFd:
    """Readable when the process has ended."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def is_readable(self) -> bool:
        return self._actor.is_dead


class Key(NamedTuple):
    data: Any


class Selector:
    """Level-triggered, as `selectors.DefaultSelector`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._map: dict[Any, Any] = {}

    def register(self, source: Any, _events: int, data: Any = None) -> None:
        assert source not in self._map
        self._map[source] = data

    def unregister(self, source: Any) -> None:
        del self._map[source]

    def get_map(self) -> dict[Any, Any]:
        return self._map

    def _is_any_readable(self) -> bool:
        for source in self._map:  # noqa: SIM110 - asked on every turn, and any() takes twice as long
            if source.is_readable():
                return True
        return False

    def select(self, timeout_s: float) -> list[tuple[Key, int]]:
        self._world.wait(self._is_any_readable, timeout_s)
        return [
            (Key(data), selectors.EVENT_READ)
            for source, data in list(self._map.items())
            if source.is_readable()
        ]

    def close(self) -> None:
        self._map.clear()


class Poller:
    """`select.poll` of a processor: its bell and its control socket."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sources: list[Any] = []

    def register(self, source: Any, _events: int) -> None:
        self._sources.append(source)

    def _is_any_readable(self) -> bool:
        bells = self._world.bells
        for source in self._sources:
            if bells[source] if isinstance(source, int) else source.is_readable():
                return True
        return False

    def poll(self, timeout_ms: float) -> None:
        self._world.wait(self._is_any_readable, timeout_ms / 1000)


class Child:
    """A child of the coordinator: `kqmp.roles.spawn.Child` without the process."""

    def __init__(self, world: World, actor: Actor, channel: Channel) -> None:
        self._world = world
        self.actor = actor
        self.channel = channel
        self.pid = id(actor)
        self.pidfd = PidFd(actor)

    def exit_code(self) -> int | None:
        return self.actor.exit_code if self.actor.is_dead else None

    def kill(self) -> None:
        self._world.step()
        self.actor.is_killed_by_parent = True
        self.actor.kill()

    def reap(self) -> int:
        while not self.actor.is_dead:
            self._world.wait(self.pidfd.is_readable, 1.0)
        self.close()
        assert self.actor.exit_code is not None
        return self.actor.exit_code

    def close(self) -> None:
        self.channel.close()


def clock(world: World) -> SimpleNamespace:
    """Stand for the module `time`."""
    return SimpleNamespace(
        monotonic=lambda: world.now_s,
        perf_counter_ns=lambda: int(world.now_s * 1e9),
    )


def bells(world: World, first_fd: int) -> dict[str, Callable[..., Any]]:
    """Stand for the functions of `kqmp.ring.bell`."""

    def create() -> int:
        fd = first_fd + len(world.bells)
        world.bells[fd] = False
        return fd

    def ring(fd: int) -> None:
        world.step()
        world.bells[fd] = True

    def clear(fd: int) -> None:
        world.step()
        world.bells[fd] = False

    return {"create": create, "ring": ring, "clear": clear}
