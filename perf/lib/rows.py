"""The rows of the issue: what is run, what is read off, and what is asked for."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from perf.lib.broker import Broker, Load
from perf.lib.engines import BARE, CORES, ENGINES, Job, Running
from perf.lib.processes import CpuClock, RunFailed, private_kb, pss_kb
from perf.lib.rate import Rate, Series, interleave

WORK_S: Final = 0.001
#: kqmp's own QueueCapacity: handlers that work need no more, and every message beyond it is asked
#: for again and again until it is there.
QUEUE_CAPACITY: Final = 1_000


@dataclass(frozen=True)
class Sizes:
    """How large the runs are."""

    noop: int = 4_000_000
    work: int = 20_000
    slow_sleep_s: float = 30.0
    idle_s: float = 30.0
    stall_s: float = 60.0
    stall_after: int = 50_000
    rounds: int = 5


QUICK: Final = Sizes(
    noop=200_000, work=4_000, slow_sleep_s=5.0, idle_s=4.0, stall_s=5.0, stall_after=5_000, rounds=1
)


@dataclass(frozen=True)
class Check:
    """One line of the result."""

    row: str
    what: str
    target: float
    #: ">=" or "<=".
    sense: str
    measured: float
    unit: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the target is reached."""
        if self.sense == ">=":
            return self.measured >= self.target
        return self.measured <= self.target


@dataclass
class Result:
    """What a row has found."""

    checks: list[Check] = field(default_factory=list)
    series: Series | None = None
    #: Further figures, for the JSON line.
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What all rows are given."""

    broker: Broker
    sizes: Sizes
    say: Callable[[str], None]
    engines: tuple[str, ...] = tuple(ENGINES)
    kqmp_options: tuple[str, ...] = ()

    def job(self, load: Load, handler: str, **changes: Any) -> Job:
        """Return a job with the settings of this run."""
        return Job(self.broker, load, handler, kqmp_options=self.kqmp_options, **changes)

    def working(self, load: Load, handler: str, **changes: Any) -> Job:
        """Return a job whose handler works, with kqmp's own read-ahead."""
        return self.job(load, handler, queue_capacity=QUEUE_CAPACITY, **changes)

    def some(self, *names: str) -> list[str]:
        """Return those of `names` that this run measures."""
        return [name for name in names if name in self.engines]


def _rate(run: Rate) -> float:
    return run.messages_s


def _cpu(run: Rate) -> float:
    return run.cpu_us


def noop(setting: Setting) -> Result:
    """Engine overhead: the handler does nothing."""
    load = Load(setting.sizes.noop, partitions=12, keys=1000)
    engines = setting.some(*(name for name in ENGINES if name != BARE))
    series = interleave(engines, setting.job(load, "noop"), setting.sizes.rounds, setting.say)
    checks = []
    if series.has("kqmp", "poll"):
        ratio = series.ratio("kqmp", "poll", _rate)
        checks.append(Check("noop", "rate, of the poll() loop's", 1.5, ">=", ratio, "x"))
    if series.has("kqmp", "consume"):
        ratio = series.ratio("kqmp", "consume", _rate)
        checks.append(Check("noop", "rate, of the consume() loop's", 0.6, ">=", ratio, "x"))
    if series.has("kqmp", "poll"):
        ratio = series.ratio("kqmp", "poll", _cpu)
        checks.append(Check("noop", "CPU a message, of the poll() loop's", 1.0, "<=", ratio, "x"))
    return Result(checks, series)


def work(setting: Setting) -> Result:
    """1 ms of CPU a message, 12 partitions: what is left of the cores."""
    load = Load(setting.sizes.work, partitions=12, keys=1000)
    engines = setting.some(*ENGINES)
    series = interleave(engines, setting.working(load, "work"), setting.sizes.rounds, setting.say)
    checks = []
    if series.has("kqmp"):
        part = series.median("kqmp", _rate) * WORK_S / CORES
        checks.append(Check("work", f"rate, of {CORES} cores / 1 ms", 0.97, ">=", part))
    if series.has("kqmp", BARE):
        # Not asked for: it tells how much of the line above is the machine's doing.
        part = series.ratio("kqmp", BARE, _rate)
        checks.append(Check("work", f"the same, of {BARE}'s rate in its round", 0.97, ">=", part))
    return Result(checks, series)


def one_partition(setting: Setting) -> Result:
    """1 ms of CPU a message, 1 partition: keys spread over the cores."""
    load = Load(setting.sizes.work, partitions=1, keys=1000)
    engines = setting.some("kqmp", "consume")
    series = interleave(engines, setting.working(load, "work"), setting.sizes.rounds, setting.say)
    checks = []
    if series.has("kqmp", "consume"):
        ratio = series.ratio("kqmp", "consume", _rate)
        what = "rate, of one consume() process"
        checks.append(Check("one-partition", what, 1.9, ">=", ratio, "x"))
    return Result(checks, series)


def coordinator(setting: Setting) -> Result:
    """Memory of the coordinator alone, at its highest under a full no-op load."""
    load = Load(setting.sizes.noop, partitions=12, keys=1000)
    highest = 0
    with Running("kqmp", setting.job(load, "noop")) as engine:
        engine.wait_for_first()
        while True:
            done = engine.count() == load.count
            highest = max(highest, private_kb(engine.tree.pid))
            engine.check_alive()
            if done:
                break
            time.sleep(0.2)
        engine.stop()
    check = Check("coordinator", "private memory", 40.0, "<=", highest / 1024, "MiB")
    return Result([check])


def idle(setting: Setting) -> Result:
    """CPU time of a whole engine with 8 processors that has nothing to do."""
    load = Load(100, partitions=12, keys=100)
    with Running("kqmp", setting.job(load, "noop", processors=8)) as engine:
        engine.wait_for_count(load.count)
        time.sleep(3)
        cpu = CpuClock(engine.tree.members())
        before, started = sum(cpu.read_s()), time.monotonic()
        time.sleep(setting.sizes.idle_s)
        part = (sum(cpu.read_s()) - before) / (time.monotonic() - started)
        engine.stop()
    check = Check("idle", "CPU with 8 processors, of a core", 1.0, "<=", part * 100, "%")
    return Result([check])


#: Growth of a stalled engine that is still called flat.
FLAT_MIB: Final = 2.0
#: How long prefetching may go on after the handlers stand still.
SETTLE_S: Final = 5.0


def stall(setting: Setting) -> Result:
    """Memory of the whole tree while every handler stands still."""
    sizes = setting.sizes
    load = Load(sizes.noop, partitions=12, keys=1000)
    env = {"KQMP_PERF_STALL_AFTER": str(sizes.stall_after)}
    with Running("kqmp", setting.job(load, "stall", env=env)) as engine:
        stalled = CORES * sizes.stall_after
        engine.wait_for_count(stalled)
        time.sleep(SETTLE_S)
        processes = engine.tree.members()
        samples = [pss_kb(processes)]
        deadline = time.monotonic() + sizes.stall_s
        while time.monotonic() < deadline:
            time.sleep(1)
            engine.check_alive()
            samples.append(pss_kb(processes))
        if engine.count() != stalled:
            raise RunFailed(f"kqmp went on to {engine.count()}: it did not stall")
    growth = (max(samples) - samples[0]) / 1024
    check = Check("stall", f"growth of PSS in {sizes.stall_s:.0f} s", FLAT_MIB, "<=", growth, "MiB")
    return Result([check], extra={"pss_mib": [round(kb / 1024, 2) for kb in samples]})


def stop(setting: Setting) -> Result:
    """SIGTERM in the middle of a full load of 1 ms handlers."""
    load = Load(setting.sizes.work, partitions=12, keys=1000)
    took = []
    for number in range(1, setting.sizes.rounds + 1):
        with Running("kqmp", setting.working(load, "work")) as engine:
            engine.wait_for_count(load.count // 4)
            took.append(engine.stop())
            handled, committed = engine.count(), engine.committed()
        setting.say(f"stop {number}: {took[-1]:.2f} s, handled {handled}, committed {committed}")
        if handled != committed:
            raise RunFailed(f"stop handled {handled} and committed {committed}: some will repeat")
    check = Check("stop", "slowest clean stop under load", 2.0, "<=", max(took), "s")
    return Result([check], extra={"stop_s": [round(s, 3) for s in took]})


#: Seconds of work before the message that sleeps; the full rate is measured in them.
LEAD_S: Final = 5.0
LEAD_SKIPPED_S: Final = 1.0


def slow_message(setting: Setting) -> Result:
    """One message sleeps: how fast do the other keys of its partition go on?"""
    sleep_s = setting.sizes.slow_sleep_s
    per_s = CORES / WORK_S
    lead = int(LEAD_S * per_s)
    load = Load(int(lead + (sleep_s + 3) * per_s), partitions=1, keys=10_000, sleeper_at=lead)
    mark = os.memfd_create("kqmp-perf-mark")
    env = {
        "KQMP_PERF_MARK": f"/proc/{os.getpid()}/fd/{mark}",
        "KQMP_PERF_SLEEP_S": str(sleep_s),
    }
    try:
        with Running("kqmp", setting.working(load, "slow", processors=4, env=env)) as engine:
            engine.wait_for_first()
            slept_s, samples = _sample_until_slept(engine, mark, sleep_s)
    finally:
        os.close(mark)
    full = _rate_between(samples, samples[0][0] + LEAD_SKIPPED_S, slept_s)
    during = _rate_between(samples, slept_s, slept_s + sleep_s)
    check = Check(
        "slow-message",
        f"rate while one message sleeps {sleep_s:.0f} s, of the full rate",
        0.85,
        ">=",
        during / full,
    )
    figures = {"full_messages_s": round(full), "during_messages_s": round(during)}
    setting.say(f"full rate {full:,.0f}/s, during the sleep {during:,.0f}/s")
    return Result([check], extra=figures)


Sample = tuple[float, int]


def _sample_until_slept(engine: Running, mark: int, sleep_s: float) -> tuple[float, list[Sample]]:
    """Sample (time, count) until the sleep is over; return when it began, and the samples."""
    samples: list[Sample] = []
    deadline = time.monotonic() + LEAD_S * 4 + 20
    began_s = 0.0
    while not began_s or time.monotonic() < began_s + sleep_s:
        engine.check_alive()
        samples.append((time.monotonic(), engine.count()))
        if not began_s:
            text = os.pread(mark, 64, 0)
            began_s = int(text) / 1e9 if text else 0.0
            if not began_s and time.monotonic() > deadline:
                raise RunFailed(engine.tree.complaint("the marked message did not come"))
        time.sleep(0.05)
    samples.append((time.monotonic(), engine.count()))
    if samples[-1][1] >= engine.job.load.count - 1:
        raise RunFailed("the topic ran dry before the sleep was over: nothing was measured")
    return began_s, samples


def _rate_between(samples: list[Sample], begin_s: float, end_s: float) -> float:
    inside = [sample for sample in samples if begin_s <= sample[0] <= end_s]
    if len(inside) < 2:
        raise RunFailed("too few samples for a rate")
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


ROWS: Final = {
    "noop": noop,
    "work": work,
    "one-partition": one_partition,
    "slow-message": slow_message,
    "coordinator": coordinator,
    "idle": idle,
    "stall": stall,
    "stop": stop,
}
