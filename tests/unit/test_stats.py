"""Samples add up, intervals are differences, and each line says what it must."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqmp.obs import stats
from kqmp.obs.histogram import BUCKETS, bucket


def lane(cursor=0, skipped=0, failed=0, set_aside=0, retried=0, times_ns=()):
    histogram = [0] * BUCKETS
    for ns in times_ns:
        histogram[bucket(ns)] += 1
    return stats.Lane(
        cursor, skipped, failed, set_aside, retried, len(times_ns), sum(times_ns), histogram
    )


def sample(at_s=0.0, **counts):
    return stats.total(at_s, [lane(**counts)])


def test_skipped_messages_are_not_consumed_by_this_lane():
    whole = stats.total(5.0, [lane(cursor=10, skipped=4, failed=1), lane(cursor=7, set_aside=1)])
    assert (whole.at_s, whole.consumed, whole.failed, whole.set_aside) == (5.0, 13, 1, 1)


@given(st.lists(st.lists(st.integers(0, 10**12), max_size=20), min_size=1, max_size=4))
def test_lanes_add_up_in_any_grouping(times):
    together = stats.total(0.0, [lane(times_ns=one) for one in times])
    alone = stats.total(0.0, [lane(times_ns=list(chain.from_iterable(times)))])
    assert together == alone


def test_an_interval_is_what_came_between_two_samples():
    before = sample(10.0, cursor=100, times_ns=[10**9] * 50)
    after = sample(14.0, cursor=500, times_ns=[10**9] * 50 + [2_000_000] * 98 + [90_000_000] * 2)
    went_on = stats.between(before, after)
    assert went_on.per_second == 100
    assert went_on.consumed == 400
    assert went_on.average_ms == pytest.approx((98 * 2 + 2 * 90) / 100)
    assert 2 <= went_on.p50_ms <= 2.5
    assert 2 <= went_on.p90_ms <= 2.5
    assert 90 <= went_on.p99_ms <= 112.5


def test_nothing_timed_is_no_division_by_zero():
    went_on = stats.between(sample(1.0), sample(1.0))
    assert (went_on.average_ms, went_on.p99_ms, went_on.per_second) == (0, 0, 0)


def test_a_sample_between_two_stores_of_a_processor_is_no_negative_rate():
    assert stats.between(sample(0.0, cursor=10), sample(1.0, cursor=10, skipped=3)).consumed == 0


def interval(**changes):
    made = stats.Interval(60.0, 60_000, 1000.0, 1.25, 1.0, 2.0, 12.4)
    return made._replace(**changes)


def test_the_minute_line_begins_as_kq_s_does():
    line = stats.minute_line(
        "mq", interval(), sample(cursor=123_456, failed=3), stats.Gauges(158_790, 8, 2)
    )
    assert line == (
        "(mq) - qps: 1000.0/s, avg time: 1.2ms, med: 1.0ms, 90th: 2.0ms, 99th: 12ms,"
        " consumed 123,456, failed 3 (passed over), lag 158,790 (3 min), running 8, restarts 2"
    )


def test_the_live_line():
    line = stats.live_line(
        "mq", interval(per_second=41_210, p99_ms=1.2), sample(), stats.Gauges(158_790, 8, 0)
    )
    assert line == "mq  41,210/s  p99 1.2ms  lag 158,790 (3.9 s)  running 8  failed 0  restarts 0"


def test_what_happened_is_said_and_what_did_not_is_not():
    assert stats.outcomes(sample()) == "failed 0"
    counted = sample(failed=1234, set_aside=2, retried=7)
    assert stats.outcomes(counted) == "failed 1,234 (passed over), retried 7, set aside 2"


@pytest.mark.parametrize(
    ("uncommitted", "end"), [(0, "uncommitted 0"), (12, "uncommitted 12 (to be repeated)")]
)
def test_the_summary_says_what_will_be_repeated(uncommitted, end):
    line = stats.exit_line(
        "mq", interval(), sample(cursor=200_000, failed=1), stats.Gauges(0, 0, 3), uncommitted
    )
    assert line == (
        "(mq) - ended after 60.0 s: consumed 200,000 (1000.0/s), failed 1 (passed over),"
        f" restarts 3, {end}"
    )


@pytest.mark.parametrize(
    ("lag", "rate", "text"),
    [
        (0, 100.0, "0"),
        (500, 0.0, "500"),
        (500, 100.0, "500 (5.0 s)"),
        (10**6, 10.0, "1,000,000 (27.8 h)"),
    ],
)
def test_lag(lag, rate, text):
    assert stats.lag_text(lag, rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (99.9, "99.9 s"), (100, "2 min"), (5969, "99 min"), (5970, "1.7 h"),
     (259_199, "72.0 h"), (259_200, "3.0 days"), (10**9, "11,574.1 days")],
)  # fmt: skip
def test_durations(seconds, text):
    assert stats.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0.0ms"), (0.0042, "0.0042ms"), (0.094, "0.094ms"), (0.95, "0.9ms"), (1.24, "1.2ms"),
     (9.96, "10ms"), (1234.5, "1234ms")],
)  # fmt: skip
def test_times(milliseconds, text):
    assert stats.ms_text(milliseconds) == text
