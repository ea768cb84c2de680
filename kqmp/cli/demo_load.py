"""How much `kqmp demo` has to do: what a message costs is chosen for this machine."""

import os
import time
from dataclasses import dataclass
from typing import Final

import psutil

from kqmp.cli import demo_handler
from kqmp.config import usable_cores

#: How long the two runs should take; what a message costs is chosen for it, within bounds.
ENGINE_S: Final = 12.0
PLAIN_S: Final = 6.0
WORK_S_MIN: Final = 200e-6
WORK_S_MAX: Final = 2e-3
#: On a machine that turns busy the plain loop is cut off: its speed is known by then.
PLAIN_S_MAX: Final = 10.0
#: How long the speed of this machine is measured.
CALIBRATION_S: Final = 0.4
#: The machine counts as busy if other programs use this part of the usable cores.
BUSY: Final = 0.25


@dataclass(frozen=True)
class Load:
    """How much there is to do."""

    messages: int
    #: The plain loop is slower: it gets a part, and its speed is compared.
    plain_messages: int
    processors: int
    #: Why so many cores are usable, from `usable_cores`.
    cores_why: str
    #: CPU time of one message, and the hashes that take it on this machine.
    work_s: float
    rounds: int
    #: How many of the cores other programs use, if that is a good part of them; else 0.
    busy_cores: float = 0.0


def measure(messages: int, processors: int | None) -> Load:
    """Find out how many hashes make up the time that a message is to take.

    Args:
        messages: how many there are, >= 4.
        processors: of the engine; None: the usable cores.
    """
    cores, why = usable_cores()
    processors = processors or cores
    work_s = ENGINE_S * min(cores, processors) / messages
    work_s = min(WORK_S_MAX, max(WORK_S_MIN, work_s))
    _cores_used()
    round_s = _seconds_per_round()
    others = _cores_used() - 1  # all but the one that measured
    return Load(
        messages=messages,
        plain_messages=min(messages // 4, int(PLAIN_S / work_s)),
        processors=processors,
        cores_why=why,
        work_s=work_s,
        rounds=max(1, round(work_s / round_s)),
        busy_cores=others if others > BUSY * cores else 0.0,
    )


def _cores_used() -> float:
    """Return how many of the cores that we may use were in use since the last call."""
    percents = psutil.cpu_percent(percpu=True)
    return sum(percents[core] for core in os.sched_getaffinity(0) if core < len(percents)) / 100


def _seconds_per_round() -> float:
    """Measure what a hash costs here, on the CPU clock: neighbours do not count."""
    rounds = 0
    began_s = time.thread_time()
    while (passed_s := time.thread_time() - began_s) < CALIBRATION_S:
        demo_handler.work(b"calibration", 1000)
        rounds += 1000
    return passed_s / rounds
