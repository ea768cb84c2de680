"""The rate of an engine and its CPU time a message, between the first message and the n-th."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from perf.lib.engines import Job, Running
from perf.lib.processes import CpuClock, RunFailed

#: The count is looked at after half of the time that is left at the present rate, within these
#: bounds: rarely, as a look costs the engine a core's attention, and exactly at the end.
LOOK_MIN_S: Final = 0.0005
LOOK_MAX_S: Final = 0.05
#: An engine that handles nothing for so long has failed.
STALL_S: Final = 30.0
#: Part of the messages that an untimed warm-up handles.
WARM_UP: Final = 0.25


@dataclass(frozen=True)
class Rate:
    """One run."""

    messages_s: float
    #: CPU time of the whole tree for one message.
    cpu_us: float
    seconds: float
    #: How long a stop took after the last message.
    stop_s: float
    #: The same CPU time by role ("coordinator", "fetcher", "processor"); kqmp only.
    cpu_us_by_role: dict[str, float]


def measure(name: str, job: Job, part: float = 1.0) -> Rate:
    """Run an engine until it has handled `part` of the load, then stop it.

    Both ends of the window are a reading of count, clock and CPU clocks in one go; the first one
    is taken as soon as a message was handled and the processes are known, so that `messages_s` is
    (n - count at the first reading) / time between the readings.

    Raises:
        RunFailed: it died, stalled, repeated or did not commit what it handled.
    """
    wanted = int(job.load.count * part)
    with Running(name, job) as engine:
        engine.wait_for_first()
        cpu = CpuClock(engine.tree.members())
        begin = (engine.count(), time.monotonic(), cpu.read_s())
        wait_for_count(engine, wanted, begin[0], begin[1])
        end = (engine.count(), time.monotonic(), cpu.read_s())
        _same_processes(engine, cpu)
        stop_s = engine.stop()
        handled = engine.count()
        committed = engine.committed() if part == 1.0 and engine.is_consumer else handled
    count, seconds = end[0] - begin[0], end[1] - begin[1]
    if committed != handled:
        raise RunFailed(f"{name} handled {handled} messages and committed {committed}")
    if count <= 0 or seconds <= 0:
        raise RunFailed(f"{name} was done before it could be measured: take more messages")
    used_us = [(b - a) / count * 1e6 for a, b in zip(begin[2], end[2], strict=True)]
    by_role = _by_role(cpu.titles, used_us) if name == "kqmp" else {}
    return Rate(count / seconds, sum(used_us), seconds, stop_s, by_role)


def _by_role(titles: list[str], used_us: list[float]) -> dict[str, float]:
    """Add up by the second word of titles such as `kqmp: fetcher 0`."""
    sums: dict[str, float] = {}
    for title, used in zip(titles, used_us, strict=True):
        role = [*title.split(), "", ""][1]
        sums[role] = sums.get(role, 0.0) + used
    return sums


def wait_for_count(engine: Running, wanted: int, first: int, started_s: float) -> None:
    """Wait until `wanted` messages are handled, looking rarely."""
    last, last_s = first, started_s
    while (count := engine.count()) < wanted:
        now = time.monotonic()
        if count > last:
            last, last_s = count, now
        elif now - last_s > STALL_S:
            text = f"{engine.name} stands at {count} of {wanted} messages"
            raise RunFailed(engine.tree.complaint(text))
        engine.check_alive()
        done = max(1, count - first)
        left_s = (wanted - count) * (now - started_s) / done
        time.sleep(min(LOOK_MAX_S, max(LOOK_MIN_S, left_s / 2)))


def _same_processes(engine: Running, cpu: CpuClock) -> None:
    """Make sure that no CPU time was missed."""
    now = {process.pid for process in engine.tree.members()}
    if now != set(cpu.pids):
        raise RunFailed(engine.tree.complaint(f"{engine.name} replaced a process while measured"))


@dataclass
class Series:
    """The runs of several engines on one load, by rounds."""

    runs: dict[str, list[Rate]]
    #: Engine -> why it has no runs.
    failures: dict[str, str] = field(default_factory=dict)

    def has(self, *engines: str) -> bool:
        """Whether all of these were measured."""
        return self.runs.keys() >= set(engines)

    def median(self, engine: str, value: Callable[[Rate], float]) -> float:
        """Return the median of an engine's runs."""
        return statistics.median(map(value, self.runs[engine]))

    def ratio(self, engine: str, other: str, value: Callable[[Rate], float]) -> float:
        """Return the median of the ratios of neighbouring runs: those of one round."""
        pairs = zip(self.runs[engine], self.runs[other], strict=True)
        return statistics.median(value(a) / value(b) for a, b in pairs)


def interleave(engines: Iterable[str], job: Job, rounds: int, say: Callable[[str], None]) -> Series:
    """Warm each engine up once, then measure all of them in turn, `rounds` times.

    An engine that fails is left out from there on, and said to have failed.
    """
    series = Series({name: [] for name in engines})
    for number in range(rounds + 1):
        for name in list(series.runs):
            try:
                rate = measure(name, job, 1.0 if number else WARM_UP)
            except RunFailed as error:
                series.failures[name] = str(error)
                del series.runs[name]
                say(f"FAILED: {error}")
                continue
            if number:
                series.runs[name].append(rate)
            figures = f"{rate.messages_s:,.0f}/s, {rate.cpu_us:.2f} us CPU, {rate.seconds:.1f} s"
            parts = [f"{role} {us:.2f}" for role, us in rate.cpu_us_by_role.items()]
            figures += f" ({', '.join(parts)})" if parts else ""
            turn = f"round {number}/{rounds}" if number else "warm-up"
            say(f"{turn}: {name}: {figures}, stop {rate.stop_s:.2f} s")
    return series
