import pytest

from kqmp.core.depth import LIMIT_MAX, Depth

AHEAD_S = 0.25


def test_a_lane_starts_with_one_message():
    assert Depth(AHEAD_S, 500, 10.0).limit == 1


def test_an_idle_lane_keeps_its_limit():
    depth = Depth(AHEAD_S, 0, 0.0)
    for tick in range(1000):
        depth.observe(0, 0, tick * 0.01)
    assert (depth.limit, depth.seconds_each) == (1, 0.0)


def test_the_limit_doubles_while_the_lane_uses_it_up_and_runs_dry():
    depth = Depth(AHEAD_S, 0, 0.0)
    limits = []
    cursor = 0
    for tick in range(1, 25):
        limits.append(depth.limit)
        cursor += depth.limit
        depth.observe(cursor, 0, tick * 0.01)
    assert limits[:8] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert limits[-1] == LIMIT_MAX


def test_a_lane_that_gets_few_messages_does_not_grow_a_limit_it_never_needed():
    """Else a burst of slow messages after a quiet hour would all go to one lane."""
    depth = Depth(AHEAD_S, 0, 0.0)
    for cursor in range(1, 3600):
        depth.observe(cursor, 0, float(cursor))
    assert depth.limit <= 2


def test_a_lane_that_need_not_be_filled_again_does_not_grow():
    depth = Depth(AHEAD_S, 0, 0.0)
    depth.observe(1, 0, 0.01)
    depth.observe(3, 0, 0.02)
    assert depth.limit == 4
    depth.observe(3, 4, 0.03)
    assert depth.limit == 4
    depth.observe(4, 3, 0.031)
    assert depth.limit == 4
    depth.observe(6, 1, 0.032)
    assert depth.limit == 8
    depth.observe(6, 8, 0.033)
    depth.observe(7, 5, 0.034)
    assert depth.limit == 8


def test_a_lane_is_to_be_filled_again_before_it_is_dry():
    depth = Depth(AHEAD_S, 0, 0.0)
    assert depth.mark == 0  # with a limit of 1 there is nothing in between
    marks = []
    for limit in (2, 3, 4, 8, 250):
        depth.limit = limit
        marks.append(depth.mark)
    assert marks == [1, 1, 2, 2, 62]


def test_the_time_until_a_lane_is_to_be_filled_again():
    depth, cursor = measured()
    assert depth.due_s(200, 10.0) == pytest.approx((200 - depth.mark) * 0.001)
    assert depth.due_s(depth.mark, 10.0) == 0.0
    depth.observe(cursor, 200, 13.0)
    assert depth.due_s(200, 13.0) > 3.0


def test_a_fetcher_that_fills_a_lane_as_soon_as_it_wants_it_turns_seldom():
    depth = Depth(AHEAD_S, 0, 0.0)
    cursor = turns = 0
    now_s = 0.0
    outstanding = depth.limit
    while now_s < 2.0:
        done = max(1, outstanding - depth.mark)
        cursor, outstanding, now_s = cursor + done, outstanding - done, now_s + done * 0.001
        depth.observe(cursor, outstanding, now_s)
        outstanding, turns = depth.limit, turns + 1
    assert 240 <= depth.limit <= 250
    assert turns < 60


def test_the_limit_is_the_time_ahead_at_the_measured_speed():
    depth = Depth(AHEAD_S, 0, 0.0)
    cursor = 0
    for tick in range(1, 100):
        depth.observe(cursor, max(1, depth.mark), tick * 0.1)
        cursor += 10
    assert depth.seconds_each == pytest.approx(0.01)
    assert depth.limit == pytest.approx(25, abs=1)


def test_a_slow_lane_holds_two():
    depth = Depth(AHEAD_S, 0, 0.0)
    depth.observe(0, 1, 0.001)
    depth.observe(1, 1, 10.0)
    assert depth.seconds_each == pytest.approx(10.0)
    assert depth.limit == 2


def test_time_without_work_is_no_measure_of_speed():
    depth = Depth(AHEAD_S, 0, 0.0)
    depth.observe(0, 1, 0.0)
    depth.observe(20, 20, 0.02)
    assert depth.seconds_each == pytest.approx(0.001)
    depth.observe(40, 0, 60.0)  # found dry: it may have been so for a minute
    assert depth.seconds_each == pytest.approx(0.001)
    depth.observe(40, 0, 120.0)  # before the next dispatch
    depth.observe(60, 20, 120.02)
    assert depth.seconds_each == pytest.approx(0.001)


def test_a_lane_found_dry_bounds_the_speed_from_below():
    depth = Depth(AHEAD_S, 0, 0.0)
    depth.observe(1, 1, 1.0)
    assert depth.seconds_each == pytest.approx(1.0)
    depth.observe(101, 0, 1.1)
    assert depth.seconds_each < 0.1


def test_two_observations_at_one_instant_measure_nothing():
    depth = Depth(AHEAD_S, 0, 0.0)
    depth.observe(1, 1, 1.0)
    depth.observe(2, 0, 1.0)
    assert depth.seconds_each == pytest.approx(1.0)


def measured(seconds_each=0.001):
    """A lane that has been busy at one speed up to second 10, and the cursor there."""
    depth = Depth(AHEAD_S, 0, 0.0)
    cursor = 0
    for tick in range(1, 201):
        cursor += round(0.05 / seconds_each)
        depth.observe(cursor, max(1, depth.mark), tick * 0.05)
    return depth, cursor


def test_a_stuck_lane_takes_less_and_less():
    depth, cursor = measured()
    assert depth.limit == pytest.approx(250, abs=1)
    for after_s, limit in ((0.01, 250), (0.1, 150), (0.2, 50), (0.3, 2), (30.0, 2)):
        depth.observe(cursor, 200, 10.0 + after_s)
        assert depth.limit == pytest.approx(limit, abs=1)


def test_being_stuck_is_no_measure_of_speed():
    """A machine that stalls for a second is not a handler that takes a second."""
    depth, cursor = measured()
    depth.observe(cursor, 200, 11.0)
    assert depth.seconds_each == pytest.approx(0.001)


def test_load_is_the_time_that_the_messages_take():
    depth, _ = measured()
    assert depth.load_s(0, 0.001, 10.0) == 0.0
    assert depth.load_s(100, 0.001, 10.0) == pytest.approx(0.1)


def test_the_load_of_a_stuck_lane_rises_with_time():
    depth, cursor = measured()
    depth.observe(cursor, 100, 10.05)
    assert depth.load_s(100, 0.001, 10.05) == pytest.approx(0.15)
    assert depth.load_s(100, 0.001, 40.0) == pytest.approx(30.1)
    depth.observe(cursor + 1, 99, 40.0)
    assert depth.load_s(1, 0.001, 40.0) == pytest.approx(0.001)


def test_a_lane_that_was_idle_for_long_is_not_stuck():
    depth, cursor = measured()
    depth.observe(cursor + depth.limit, 0, 10.1)
    depth.observe(cursor + depth.limit, 0, 700.0)
    assert depth.load_s(1, 0.001, 700.001) == pytest.approx(0.001)
