"""Metrics as text: valid OpenMetrics, with every number of the snapshots under its labels."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from kqmp.obs import exposition
from kqmp.obs.histogram import BUCKETS, bucket, upper_ns
from kqmp.obs.snapshot import Fetcher, Partition, Snapshot
from tests.support.snapshots import processor, snapshot

ASKED = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"


def histogram(*times_ns: int) -> list[int]:
    counts = [0] * BUCKETS
    for time_ns in times_ns:
        counts[bucket(time_ns)] += 1
    return counts


ENGINE = snapshot(
    commits=4,
    commits_refused=1,
    processors=[
        processor(consumed=10, failed=2, set_aside=1, retried=3, restarts=5, down_s=1.0),
        processor(index=1, timed_ns=5_003_000, histogram=histogram(1000, 2000, 5_000_000)),
    ],
    fetchers=[Fetcher(0, 0.0, 6, 70, 7000, 8, 9, 11, 12)],
    partitions=[
        Partition(3, 0, position=15, committed_position=10, fetched_position=20, end=100),
        Partition(4, 0, position=5, committed_position=5, fetched_position=5, end=-1),
    ],
)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return name and label values (in the order of the labels' names) -> value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in openmetrics(text)
        for sample in family.samples
    }


def render(*snapshots: Snapshot) -> dict[tuple[str, ...], float]:
    body, kind = exposition.render(snapshots, ASKED)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    return samples(body.decode())


def test_every_number_is_there_under_its_labels() -> None:
    found = render(ENGINE)
    assert found["kqmp_queue_info", "g", "mq", "t"] == 1
    assert found["kqmp_messages_consumed_total", "0.0", "mq"] == 10
    assert found["kqmp_messages_failed_total", "0.0", "mq"] == 2
    assert found["kqmp_messages_set_aside_total", "0.0", "mq"] == 1
    assert found["kqmp_handler_retries_total", "0.0", "mq"] == 3
    assert found["kqmp_restarts_total", "0.0", "mq", "processor"] == 5
    assert found["kqmp_restarts_total", "0", "mq", "fetcher"] == 6
    assert found["kqmp_processes_up", "mq", "processor"] == 1
    assert found["kqmp_processes_up", "mq", "fetcher"] == 1
    assert found["kqmp_messages_fetched_total", "0", "mq"] == 70
    assert found["kqmp_fetched_bytes_total", "0", "mq"] == 7000
    assert found["kqmp_messages_dropped_total", "0", "mq"] == 8
    assert found["kqmp_pauses_total", "0", "mq"] == 9
    assert found["kqmp_messages_held", "0", "mq"] == 11
    assert found["kqmp_assignments_total", "0", "mq"] == 12
    assert found["kqmp_commits_total", "mq"] == 4
    assert found["kqmp_commits_refused_total", "mq"] == 1
    assert found["kqmp_lag", "3", "mq"] == 90
    assert found["kqmp_committed_position", "3", "mq"] == 10
    assert found["kqmp_in_flight", "3", "mq"] == 5
    assert ("kqmp_lag", "4", "mq") not in found, "a lag that nobody knows"
    assert found["kqmp_committed_position", "4", "mq"] == 5


def test_the_histogram_is_cumulative_and_agrees_with_its_count() -> None:
    found = render(ENGINE)
    upto = [
        found["kqmp_handler_seconds_bucket", le, "0.1", "mq"]
        for le in ("1.024e-06", "4.096e-06", "0.004194304", "0.016777216", "+Inf")
    ]
    assert upto == [1, 2, 2, 3, 3]
    assert found["kqmp_handler_seconds_count", "0.1", "mq"] == 3
    assert found["kqmp_handler_seconds_sum", "0.1", "mq"] == pytest.approx(0.005003)


def test_its_bounds_are_bounds_of_what_is_counted() -> None:
    ends = {upper_ns(index) for index in range(BUCKETS)}
    assert set(exposition.BOUNDS_NS) <= ends


def test_sections_are_told_apart_and_an_engine_without_one_has_no_such_label() -> None:
    found = render(snapshot(section="A", commits=1), snapshot(section="B", commits=2))
    assert found["kqmp_commits_total", "mq", "A"] == 1
    assert found["kqmp_commits_total", "mq", "B"] == 2


def test_without_a_wish_it_is_prometheus_text() -> None:
    body, kind = exposition.render([ENGINE])
    assert kind.startswith("text/plain; version=0.0.4")
    names = {sample.name for family in plain(body.decode()) for sample in family.samples}
    assert "kqmp_messages_consumed_total" in names


def test_before_the_first_snapshot_there_are_no_numbers_but_valid_text() -> None:
    assert render() == {}
