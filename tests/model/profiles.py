"""Profiles: what a schedule is rich in, so that rare things meet each other."""

from dataclasses import dataclass
from typing import Final

from tests.model.broker import Faults

#: Each is a method of `Schedule`.
FAULTS: Final = (
    "kill processor",
    "kill fetcher",
    "kill coordinator",
    "stop engine",
    "start engine",
    "freeze",
    "freeze coordinator",
    "expire",
    "move",
    "moves",
    "outage",
    "reset",
    "shorten",
)


@dataclass(frozen=True)
class Profile:
    """One of them."""

    faults: tuple[str, ...]
    #: Kinds of messages beside the plain ones.
    kinds: tuple[str, ...] = ()
    network: Faults | None = None
    log_bytes: int = 2048
    lost_drain_s: float = 0.5
    messages: tuple[int, int] = (10, 70)
    #: Drawn from these.
    partitions: tuple[int, ...] = (1, 2, 2, 3)
    conns: tuple[int, ...] = (1, 2)
    static: float = 0.25
    #: How often a second engine is there from the start.
    second: float = 0.3


PROFILES: Final[dict[str, Profile]] = {
    "any": Profile((*FAULTS, "kill processor", "kill fetcher", "move")),
    # Handlers that outlast every deadline: closes are forced.
    "forced": Profile(
        ("move", "expire", "expire", "kill fetcher", "kill processor", "start engine"),
        kinds=("slow",) * 5,
    ),
    # A log that is full while its reader is slow.
    "full": Profile(
        ("freeze coordinator", "freeze coordinator", "moves", "moves", "expire", "kill fetcher"),
        log_bytes=640,
        messages=(50, 90),
        partitions=(2, 3),
        conns=(2,),
        static=0.0,
    ),
    # Commits that come when nobody expects them any more.
    "late": Profile(
        ("moves", "moves", "move", "expire", "kill fetcher", "start engine", "shorten"),
        network=Faults(late=0.8, late_s=0.5, tardy=0.3, refused=0.1, slow_s=0.02),
        messages=(50, 90),
        conns=(2,),
        static=0.0,
        second=0.0,
    ),
    "reset": Profile(
        ("shorten", "shorten", "reset", "reset", "expire", "moves", "kill fetcher"),
        network=Faults(late=0.3, tardy=0.6, slow_s=0.05),
        messages=(40, 80),
        conns=(2, 2, 1),
        static=0.1,
    ),
    # Engines that still handle what was taken from them.
    "taken": Profile(
        ("start engine", "expire", "expire", "moves", "move", "freeze"),
        kinds=("slow",) * 3,
        lost_drain_s=3.0,
        partitions=(1, 2),
        conns=(1,),
        static=0.0,
        second=1.0,
    ),
    # Engines that stop and start while the group moves.
    "stop": Profile(
        ("stop engine", "stop engine", "start engine", "moves", "move", "kill fetcher"),
        network=Faults(refused=0.6, slow_s=0.02),
        conns=(1, 1, 2),
        static=0.1,
        second=0.7,
    ),
    "deadly": Profile(
        ("kill processor", "kill processor", "expire", "move", "kill fetcher"),
        kinds=("deadly", "deadly", "failing"),
    ),
    # Much is finished and little is committed.
    "span": Profile(
        ("move", "expire", "kill fetcher", "kill coordinator"),
        network=Faults(refused=0.8, slow_s=0.05),
        messages=(120, 160),
    ),
}
