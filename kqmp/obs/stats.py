"""What the engine counts, and the lines that say it. Pure: counters come in as plain data.

The coordinator takes a `Sample` of its processors' shared counters now and then; all that is shown
is worked out from two of them. Handler times are samples: every call where they take long, else the
calls of one batch in some (see `kqmp.roles.processor`), so that their quantiles hold and their sum
is no measure of the work done.
"""

from collections.abc import Sequence
from typing import NamedTuple

from kqmp.obs.histogram import BUCKETS, quantile_ns

#: Below this rate the time that the lag will take is not told.
RATE_LOW: float = 0.05


class Lane(NamedTuple):
    """The counters of one processor's lane; each only rises, across its successors too.

    Attributes:
        cursor: messages taken and not open any more, whatever came of them.
        skipped: of these, what belongs to an opening that was closed by force, and runs elsewhere.
        failed: of these, what raised and was passed over.
        set_aside: of these, what killed its processors and was passed over.
        retried: handler calls beyond the first one for a message (ForceCommit false).
        timed: handler calls that were timed.
        timed_ns: sum of their times.
        histogram: their counts by `kqmp.obs.histogram.bucket`.
    """

    cursor: int
    skipped: int
    failed: int
    set_aside: int
    retried: int
    timed: int
    timed_ns: int
    histogram: Sequence[int]


class Sample(NamedTuple):
    """All lanes together at one moment of the monotonic clock."""

    at_s: float
    consumed: int = 0
    failed: int = 0
    set_aside: int = 0
    retried: int = 0
    timed: int = 0
    timed_ns: int = 0
    histogram: Sequence[int] = (0,) * BUCKETS


class Gauges(NamedTuple):
    """What is so at one moment.

    Attributes:
        lag: messages in the topic above the committed positions of this engine's partitions.
        running: processors that are up.
        restarts: processes replaced since the start.
    """

    lag: int = 0
    running: int = 0
    restarts: int = 0


class Interval(NamedTuple):
    """What went on between two samples. Times in ms, 0 where nothing was timed."""

    seconds: float
    consumed: int
    per_second: float
    average_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float = 0.0


def total(at_s: float, lanes: Sequence[Lane]) -> Sample:
    """Add the lanes up."""
    return Sample(
        at_s,
        consumed=sum(lane.cursor - lane.skipped for lane in lanes),
        failed=sum(lane.failed for lane in lanes),
        set_aside=sum(lane.set_aside for lane in lanes),
        retried=sum(lane.retried for lane in lanes),
        timed=sum(lane.timed for lane in lanes),
        timed_ns=sum(lane.timed_ns for lane in lanes),
        histogram=[sum(counts) for counts in zip(*(lane.histogram for lane in lanes), strict=True)],
    )


def between(before: Sample, after: Sample) -> Interval:
    """Work out what went on from `before` to `after`."""
    seconds = max(after.at_s - before.at_s, 1e-9)
    # A processor stores cursor and skip count one after the other: a sample in between is off.
    consumed = max(0, after.consumed - before.consumed)
    timed = after.timed - before.timed
    counts = [new - old for new, old in zip(after.histogram, before.histogram, strict=True)]
    return Interval(
        seconds=seconds,
        consumed=consumed,
        per_second=consumed / seconds,
        average_ms=(after.timed_ns - before.timed_ns) / timed / 1e6 if timed else 0.0,
        p50_ms=quantile_ns(counts, 0.5) / 1e6,
        p90_ms=quantile_ns(counts, 0.9) / 1e6,
        p99_ms=quantile_ns(counts, 0.99) / 1e6,
        p999_ms=quantile_ns(counts, 0.999) / 1e6,
    )


def minute_line(name: str, interval: Interval, now: Sample, gauges: Gauges) -> str:
    """Return the line of each minute: kq's own beginning, then what kq never says.

    Rate and times are those of the interval, counts those since the start.
    """
    return (
        f"({name}) - qps: {interval.per_second:.1f}/s, avg time: {ms_text(interval.average_ms)},"
        f" med: {ms_text(interval.p50_ms)}, 90th: {ms_text(interval.p90_ms)},"
        f" 99th: {ms_text(interval.p99_ms)}, consumed {now.consumed:,}, {outcomes(now)},"
        f" lag {lag_text(gauges.lag, interval.per_second)}, running {gauges.running},"
        f" restarts {gauges.restarts:,}"
    )


def live_line(name: str, interval: Interval, now: Sample, gauges: Gauges) -> str:
    """Return the status line of a terminal."""
    return (
        f"{name}  {interval.per_second:,.0f}/s  p99 {ms_text(interval.p99_ms)}"
        f"  lag {lag_text(gauges.lag, interval.per_second)}  running {gauges.running}"
        f"  {outcomes(now, '  ')}  restarts {gauges.restarts:,}"
    )


def exit_line(name: str, whole: Interval, now: Sample, gauges: Gauges, uncommitted: int) -> str:
    """Return the summary at the end.

    Args:
        name: of the engine.
        whole: from its start to now.
        now: the last sample.
        gauges: of the same moment.
        uncommitted: messages finished and not committed: they will be repeated.
    """
    repeated = " (to be repeated)" if uncommitted else ""
    return (
        f"({name}) - ended after {duration_text(whole.seconds)}: consumed {now.consumed:,}"
        f" ({whole.per_second:.1f}/s), {outcomes(now)}, restarts {gauges.restarts:,},"
        f" uncommitted {uncommitted:,}{repeated}"
    )


def outcomes(now: Sample, separator: str = ", ") -> str:
    """Say how many messages went wrong, and what became of them."""
    parts = [f"failed {now.failed:,}{' (passed over)' if now.failed else ''}"]
    if now.retried:
        parts.append(f"retried {now.retried:,}")
    if now.set_aside:
        parts.append(f"set aside {now.set_aside:,}")
    return separator.join(parts)


def lag_text(lag: int, per_second: float) -> str:
    """Say a lag, and how long it takes at this rate."""
    if not lag or per_second < RATE_LOW:
        return f"{lag:,}"
    return f"{lag:,} ({duration_text(lag / per_second)})"


def duration_text(seconds: float) -> str:
    """Say a duration in the unit that fits: `3.9 s`, `12 min`, `4.1 h`, `3.2 days`."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.1f} days"


def ms_text(milliseconds: float) -> str:
    """Say a time in ms with two significant digits: `0.0042ms`, `1.2ms`, `250ms`."""
    if milliseconds >= 9.95:
        return f"{milliseconds:.0f}ms"
    if milliseconds >= 0.095:
        return f"{milliseconds:.1f}ms"
    return f"{milliseconds:.2g}ms" if milliseconds else "0.0ms"
