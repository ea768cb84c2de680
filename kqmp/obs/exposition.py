"""Snapshots as Prometheus and OpenMetrics text, through prometheus-client (extra `prometheus`).

A collector of our own: the counters lie in the engine's shared memory already, so that nothing is
registered, locked or written to files. Labels: `queue` is the engine's name, `section` its key in
the file (left out without one), `partition` a number, `processor` and `fetcher` as in `ps`.
"""

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from kqmp.obs.histogram import BUCKETS, bucket
from kqmp.obs.snapshot import Processor, Snapshot

if TYPE_CHECKING:
    from prometheus_client import Metric

#: What to type where `is_installed` is false.
INSTALL: Final = "pip install 'kqmp[prometheus]'"
#: Bounds of the exported histogram in ns: every second power of two from 1 us to 69 s. They are
#: bounds of `kqmp.obs.histogram` too, so that the counts are exact.
BOUNDS_NS: Final = tuple(1 << bits for bits in range(10, 37, 2))

_Labels = dict[str, str]


class _Family(NamedTuple):
    """One metric without its samples."""

    name: str
    kind: str
    help: str


def _counter(name: str, text: str) -> _Family:
    return _Family(f"kqmp_{name}", "counter", text)


def _gauge(name: str, text: str) -> _Family:
    return _Family(f"kqmp_{name}", "gauge", text)


_INFO: Final = _Family("kqmp_queue", "info", "What the engine consumes")
_UP: Final = _gauge("processes_up", "Processes that are up, by role")
_RESTARTS: Final = _counter("restarts", "Processes that took the place of a dead one")
_COMMITS: Final = _counter("commits", "Commits that the brokers took")
_REFUSED: Final = _counter("commits_refused", "Commits that the brokers refused")
_HANDLER: Final = _Family(
    "kqmp_handler_seconds",
    "histogram",
    "Times of handler calls: of every call where they are slow, else of a sample",
)
#: By the name of the field.
_OF_PROCESSORS: Final = {
    "consumed": _counter("messages_consumed", "Messages finished, whatever came of them"),
    "failed": _counter("messages_failed", "Of these, passed over since the handler raised"),
    "set_aside": _counter("messages_set_aside", "Of these, passed over as they killed processors"),
    "retried": _counter("handler_retries", "Handler calls beyond the first one of a message"),
}
_OF_FETCHERS: Final = {
    "fetched": _counter("messages_fetched", "Messages taken from the brokers"),
    "fetched_bytes": _counter("fetched_bytes", "Value bytes of the fetched messages"),
    "dropped": _counter("messages_dropped", "Fetched, but of a partition no longer read"),
    "pauses": _counter("pauses", "Times that the fetching of a partition was paused"),
    "assignments": _counter("assignments", "Assignments that the group gave"),
    "held": _gauge("messages_held", "Fetched messages that wait for a place in a lane"),
}
_OF_PARTITIONS: Final = {
    "lag": _gauge("lag", "Offsets above the committed position"),
    "committed_position": _gauge("committed_position", "Next offset, as the brokers confirmed it"),
    "in_flight": _gauge("in_flight", "Offsets fetched and not finished"),
}


def is_installed() -> bool:
    """Tell whether prometheus-client can be imported."""
    return importlib.util.find_spec("prometheus_client") is not None


def prepare() -> None:
    """Import what `render` needs, if it is installed."""
    if is_installed():
        importlib.import_module("prometheus_client.openmetrics.exposition")


def render(snapshots: Sequence[Snapshot], accept: str = "") -> tuple[bytes, str]:
    """Return the text of some engines and its content type.

    Args:
        snapshots: one per engine; their queues or sections differ.
        accept: header Accept of the request: OpenMetrics if it asks for that.

    Raises:
        ImportError: prometheus-client is not installed.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry()
    registry.register(_Collector(snapshots))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._engines = [(_names(snapshot), snapshot) for snapshot in snapshots]

    def describe(self) -> Iterable["Metric"]:
        """Spare the registry a collection of its own."""
        return []

    def collect(self) -> Iterator["Metric"]:
        """Give all metrics."""
        yield self._info()
        yield self._up()
        yield self._restarts()
        for family, field in ((_COMMITS, "commits"), (_REFUSED, "commits_refused")):
            metric = _metric(family)
            for labels, snapshot in self._engines:
                _add(metric, labels, getattr(snapshot, field))
            yield metric
        yield from self._processors()
        yield from self._fetchers()
        yield from self._partitions()

    def _info(self) -> "Metric":
        metric = _metric(_INFO)
        for labels, snapshot in self._engines:
            what = {"topic": snapshot.topic, "group": snapshot.group}
            metric.add_sample(f"{_INFO.name}_info", labels | what, 1)
        return metric

    def _up(self) -> "Metric":
        metric = _metric(_UP)
        for labels, snapshot in self._engines:
            for role in ("fetcher", "processor"):
                slots = snapshot.fetchers if role == "fetcher" else snapshot.processors
                _add(metric, labels | {"role": role}, sum(not slot.down_s for slot in slots))
        return metric

    def _restarts(self) -> "Metric":
        metric = _metric(_RESTARTS)
        for labels, snapshot in self._engines:
            for fetcher in snapshot.fetchers:
                place = {"role": "fetcher", "process": str(fetcher.index)}
                _add(metric, labels | place, fetcher.restarts)
            for processor in snapshot.processors:
                place = {"role": "processor", "process": _title(processor)}
                _add(metric, labels | place, processor.restarts)
        return metric

    def _processors(self) -> Iterator["Metric"]:
        rows = [
            (labels | {"processor": _title(processor)}, processor)
            for labels, snapshot in self._engines
            for processor in snapshot.processors
        ]
        yield from _metrics(_OF_PROCESSORS, rows)
        metric = _metric(_HANDLER)
        for labels, processor in rows:
            _add_histogram(metric, labels, processor)
        yield metric

    def _fetchers(self) -> Iterator["Metric"]:
        rows = [
            (labels | {"fetcher": str(fetcher.index)}, fetcher)
            for labels, snapshot in self._engines
            for fetcher in snapshot.fetchers
        ]
        yield from _metrics(_OF_FETCHERS, rows)

    def _partitions(self) -> Iterator["Metric"]:
        rows = [
            (labels | {"partition": str(partition.partition)}, partition)
            for labels, snapshot in self._engines
            for partition in snapshot.partitions
        ]
        yield from _metrics(_OF_PARTITIONS, rows)


def _names(snapshot: Snapshot) -> _Labels:
    section = {"section": snapshot.section} if snapshot.section else {}
    return {"queue": snapshot.name, **section}


def _title(processor: Processor) -> str:
    return f"{processor.fetcher}.{processor.index}"


def _metric(family: _Family) -> "Metric":
    from prometheus_client import Metric

    return Metric(family.name, family.help, family.kind)


def _metrics(
    families: dict[str, _Family], rows: Sequence[tuple[_Labels, object]]
) -> Iterator["Metric"]:
    """Give one metric a field, with a sample of every row that knows its value."""
    for field, family in families.items():
        metric = _metric(family)
        for labels, item in rows:
            value: int | None = getattr(item, field)
            if value is not None:
                _add(metric, labels, value)
        yield metric


def _add(metric: "Metric", labels: _Labels, value: float) -> None:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    metric.add_sample(name, labels, value)


def _add_histogram(metric: "Metric", labels: _Labels, processor: Processor) -> None:
    upto = list(accumulate(processor.histogram, initial=0))
    for bound_ns, index in _BUCKET_ENDS:
        metric.add_sample(f"{metric.name}_bucket", labels | {"le": bound_ns}, upto[index])
    metric.add_sample(f"{metric.name}_bucket", labels | {"le": "+Inf"}, upto[BUCKETS])
    # Not `timed`: it is stored after the histogram, and the two must agree.
    metric.add_sample(f"{metric.name}_count", labels, upto[BUCKETS])
    metric.add_sample(f"{metric.name}_sum", labels, processor.timed_ns / 1e9)


#: The text of each bound, and how many of our buckets lie below it.
_BUCKET_ENDS: Final = tuple((repr(bound / 1e9), bucket(bound)) for bound in BOUNDS_NS)
