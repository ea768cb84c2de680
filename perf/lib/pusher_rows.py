"""The rows of perf/pusher: what is run, what is read off, and what is asked for."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from perf.lib.metrics_row import metrics
from perf.lib.processes import RunFailed
from perf.lib.pushers import PushJob, push
from perf.lib.rate import WARM_UP, Rate, Series
from perf.lib.rows import Check, Result


@dataclass(frozen=True)
class Sizes:
    """How large the runs are."""

    messages: int = 1_000_000
    #: kq's Pusher takes about a MiB a second as it is by default.
    kq_messages: int = 100_000
    #: Of an engine with and without the page of metrics.
    noop: int = 4_000_000
    rounds: int = 5


QUICK: Final = Sizes(messages=20_000, kq_messages=5_000, noop=200_000, rounds=1)


@dataclass(frozen=True)
class Setting:
    """What all rows are given."""

    job: PushJob
    sizes: Sizes
    say: Callable[[str], None]
    pushers: tuple[str, ...]

    def job_of(self, name: str) -> PushJob:
        """Return what a producer pushes."""
        count = self.sizes.kq_messages if name == "kq" else self.sizes.messages
        return dataclasses.replace(self.job, count=count)

    def interleave(self, names: Iterable[str]) -> tuple[Series, dict[str, int]]:
        """Warm each producer up once, then measure all of them in turn, round by round.

        One that fails is left out from there on, and said to have failed.

        Returns:
            The runs, and how many messages each has lost in them.
        """
        lost: dict[str, int] = {}
        series = Series({name: [] for name in names if name in self.pushers})
        for number in range(self.sizes.rounds + 1):
            for name in list(series.runs):
                job = self.job_of(name)
                # A command takes the whole file.
                if not number and name not in ("kqmp-push", "kcat"):
                    job = dataclasses.replace(job, count=int(job.count * WARM_UP))
                try:
                    pushed = push(name, job)
                except RunFailed as error:
                    series.failures[name] = str(error)
                    del series.runs[name]
                    self.say(f"FAILED: {error}")
                    continue
                rate = pushed.rate
                if number:
                    series.runs[name].append(rate)
                    lost[name] = lost.get(name, 0) + pushed.lost
                turn = f"round {number}/{self.sizes.rounds}" if number else "warm-up"
                cpu = f", {rate.cpu_us:.2f} us CPU" if rate.cpu_us else ""
                figures = f"{rate.messages_s:,.0f}/s{cpu}, {rate.seconds:.1f} s"
                figures += f", {pushed.lost:,} lost" if pushed.lost else ""
                self.say(f"{turn}: {name}: {figures}")
        return series, lost


def _rate(run: Rate) -> float:
    return run.messages_s


def _compare(series: Series, name: str, targets: dict[str, float]) -> list[Check]:
    ours = "kqmp-push" if name == "command" else "kqmp"
    return [
        Check(
            name, f"rate, of that of {other}", target, ">=", series.ratio(ours, other, _rate), "x"
        )
        for other, target in targets.items()
        if series.has(ours, other)
    ]


def library(setting: Setting) -> Result:
    """The Pusher in a program: 100 bytes, 12 partitions, 1,000 keys."""
    series, lost = setting.interleave(("kqmp", "loop", "kq", "kq-best"))
    checks = _compare(series, "library", {"loop": 0.9, "kq": 20})
    extra: dict[str, Any] = {"lost": lost}
    if series.has("kqmp", "kq-best"):
        # Not a target: it sends without asking whether anything arrives.
        extra["ratio_to_kq_best"] = round(series.ratio("kqmp", "kq-best", _rate), 3)
        setting.say(f"kqmp is {extra['ratio_to_kq_best']:.2f}x kq at its best")
    return Result(checks, series, extra)


def command(setting: Setting) -> Result:
    """Lines of a file by a command, from its start to its exit."""
    series, _ = setting.interleave(("kqmp-push", "kcat"))
    return Result(_compare(series, "command", {"kcat": 0.5}), series)


def page(setting: Setting) -> Result:
    """The page of metrics: a scrape, and what it costs at no-op."""
    sizes = setting.sizes
    return metrics(setting.job.broker, sizes.noop, sizes.rounds, setting.say)


ROWS: Final[dict[str, Callable[[Setting], Result]]] = {
    "library": library,
    "command": command,
    "metrics": page,
}
