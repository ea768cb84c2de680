"""Snapshots of engines that do not run."""

from typing import Any

from kqmp.obs.snapshot import Fetcher, Partition, Processor, Snapshot
from kqmp.ring import words as w

HISTOGRAM = [0] * w.HISTOGRAM_BUCKETS


def processor(**changes: Any) -> Processor:
    values: dict[str, Any] = dict.fromkeys(Processor.__struct_fields__, 0)
    return Processor(**{**values, "histogram": HISTOGRAM, **changes})


def snapshot(**changes: Any) -> Snapshot:
    """Return one of an engine that is well, but for `changes`."""
    values: dict[str, Any] = {
        "name": "mq",
        "section": "",
        "topic": "t",
        "group": "g",
        "at_s": 100.0,
        "running": True,
        "started": True,
        "assigned": True,
        "commits": 0,
        "commits_refused": 0,
        "refused_s": 0.0,
        "stalled_s": 0.0,
        "processors": [processor()],
        "fetchers": [Fetcher(**dict.fromkeys(Fetcher.__struct_fields__, 0))],
        "partitions": [],
    }
    return Snapshot(**{**values, **changes})


def waiting(committed: int = 10) -> Partition:
    return Partition(0, 0, position=15, committed_position=committed, fetched_position=20, end=100)
