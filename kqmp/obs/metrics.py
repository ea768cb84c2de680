"""What a program is given each interval, and what go-zero's `MetricsUrl` receives. Pure."""

from typing import Any

import msgspec

from kqmp.obs import stats
from kqmp.obs.snapshot import Snapshot


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine did in an interval, all its processes together: kq's stat.Metrics and more.

    Times in ms, 0 where nothing was timed. They are samples where handlers are fast, so that their
    quantiles hold; each is an upper bound, off by at most a quarter.
    """

    #: Name of the queue in the stat lines.
    name: str
    #: Length of the interval.
    seconds: float
    #: Messages finished in it, whatever came of them.
    consumed: int
    #: Of these, passed over since the handler raised, and since they killed processors.
    failed: int
    set_aside: int
    #: Handler calls beyond the first one of a message.
    retried: int
    #: Messages a second.
    qps: float
    average_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    #: At its end: offsets above the committed positions of this engine's partitions.
    lag: int
    #: At its end: offsets fetched and not finished, partitions, processors that are up.
    in_flight: int
    partitions: int
    running: int
    #: Processes replaced since the start.
    restarts: int


def between(before: Snapshot, after: Snapshot) -> Metrics:
    """Work out what went on from one snapshot of an engine to a later one."""
    first, last = before.sample(), after.sample()
    restarts = [slot.restarts for slot in after.fetchers]
    restarts += [slot.restarts for slot in after.processors]
    interval = stats.between(first, last)
    return Metrics(
        name=after.name,
        seconds=interval.seconds,
        consumed=interval.consumed,
        failed=last.failed - first.failed,
        set_aside=last.set_aside - first.set_aside,
        retried=last.retried - first.retried,
        qps=interval.per_second,
        average_ms=interval.average_ms,
        p50_ms=interval.p50_ms,
        p90_ms=interval.p90_ms,
        p99_ms=interval.p99_ms,
        p999_ms=interval.p999_ms,
        lag=after.lag,
        in_flight=sum(partition.in_flight for partition in after.partitions),
        partitions=len(after.partitions),
        running=sum(not processor.down_s for processor in after.processors),
        restarts=sum(restarts),
    )


def report(metrics: Metrics, tm_s: int, pid: int) -> dict[str, Any]:
    """Return what go-zero's `core/stat` posts to `MetricsUrl`, field by field.

    Its `drops` is what was passed over, which kq always says is 0.

    Args:
        metrics: of one minute.
        tm_s: seconds since 1970.
        pid: of the coordinator.
    """
    return {
        "name": metrics.name,
        "tm": tm_s,
        "pid": pid,
        "qps": round(metrics.qps, 3),
        "drops": metrics.failed + metrics.set_aside,
        "avg": round(metrics.average_ms, 6),
        "med": round(metrics.p50_ms, 6),
        "t90": round(metrics.p90_ms, 6),
        "t99": round(metrics.p99_ms, 6),
        "t99p9": round(metrics.p999_ms, 6),
    }
