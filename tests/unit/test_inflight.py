from array import array

import pytest

from kqmp.core.inflight import NOTHING_HELD, Inflight, LaneState
from kqmp.errors import RingCorrupt


def run(*offsets):
    return array("q", offsets).tobytes()


def lanes(*cursors):
    return [LaneState(cursor) for cursor in cursors]


@pytest.fixture
def inflight():
    inflight = Inflight(2)
    inflight.open(1, partition=0, position=100)
    return inflight


def test_an_opening_stands_at_its_position_until_something_was_fetched(inflight):
    assert inflight.position(1, lanes(0, 0)) == 100
    inflight.note(1, 105, NOTHING_HELD)  # all of it was dropped or compacted away
    assert inflight.position(1, lanes(0, 0)) == 105
    assert inflight.fetched(1) == 105


def test_the_position_is_the_lowest_unfinished_offset_of_all_lanes(inflight):
    inflight.dispatched(1, 0, 0, run(100, 102, 104))
    inflight.dispatched(1, 1, 0, run(101, 103))
    inflight.note(1, 105, NOTHING_HELD)
    assert inflight.position(1, lanes(0, 0)) == 100
    assert inflight.position(1, lanes(2, 0)) == 101
    assert inflight.position(1, lanes(2, 1)) == 103
    assert inflight.position(1, lanes(2, 2)) == 104
    assert inflight.position(1, lanes(3, 2)) == 105


def test_offsets_that_the_log_does_not_have_are_passed_over(inflight):
    inflight.dispatched(1, 0, 0, run(100, 250))
    inflight.note(1, 251, NOTHING_HELD)
    assert inflight.position(1, lanes(1, 0)) == 250


def test_the_position_never_passes_what_the_fetcher_holds_back(inflight):
    inflight.dispatched(1, 0, 0, run(100, 103))
    inflight.note(1, 104, 101)
    assert inflight.position(1, lanes(2, 0)) == 101
    inflight.dispatched(1, 1, 0, run(101, 102))
    inflight.note(1, 104, NOTHING_HELD)
    assert inflight.position(1, lanes(2, 1)) == 102
    assert inflight.position(1, lanes(2, 2)) == 104


def test_a_cursor_beyond_the_log_as_read_finishes_no_more_than_the_log_tells(inflight):
    inflight.dispatched(1, 0, 0, run(100, 101))
    inflight.note(1, 102, NOTHING_HELD)
    assert inflight.position(1, lanes(50, 0)) == 102


def test_an_open_message_is_unfinished_though_the_cursor_passed_it(inflight):
    inflight.dispatched(1, 0, 0, run(100, 101, 102))
    inflight.dispatched(1, 0, 3, run(103, 104))
    inflight.note(1, 105, NOTHING_HELD)
    assert inflight.position(1, [LaneState(5, [1]), LaneState(0)]) == 101
    assert inflight.unfinished_lanes(1, [LaneState(5, [3]), LaneState(0)]) == [0]
    assert inflight.position(1, [LaneState(5, [3]), LaneState(0)]) == 103
    assert inflight.position(1, [LaneState(5), LaneState(0)]) == 105


def test_open_numbers_stand_in_any_order(inflight):
    inflight.dispatched(1, 0, 0, run(100, 101, 102, 103))
    inflight.note(1, 104, NOTHING_HELD)
    assert inflight.position(1, [LaneState(4, [3, 1, 2]), LaneState(0)]) == 101


def test_an_open_number_at_or_above_the_cursor_is_void(inflight):
    inflight.dispatched(1, 0, 0, run(100, 101, 102, 103))
    inflight.note(1, 104, NOTHING_HELD)
    for void in ([3], [1, 2, 3], [9]):
        assert inflight.position(1, [LaneState(1, void), LaneState(0)]) == 101


def test_the_lanes_with_unfinished_messages_are_named(inflight):
    inflight.dispatched(1, 1, 0, run(100))
    assert inflight.unfinished_lanes(1, lanes(0, 0)) == [1]
    assert inflight.unfinished_lanes(1, lanes(0, 1)) == []
    assert inflight.unfinished_lanes(99, lanes(0, 0)) == []


def test_epochs_do_not_mix(inflight):
    inflight.open(2, partition=1, position=0)
    inflight.dispatched(1, 0, 0, run(100))
    inflight.dispatched(2, 0, 1, run(0))
    inflight.note(1, 101, NOTHING_HELD)
    inflight.note(2, 1, NOTHING_HELD)
    assert inflight.position(1, lanes(1, 0)) == 101
    assert inflight.position(2, lanes(1, 0)) == 0
    assert set(inflight.epochs()) == {1, 2}


def test_records_of_a_forgotten_epoch_are_dropped_but_counted(inflight):
    inflight.dispatched(1, 0, 0, run(100, 101))
    inflight.forget(1)
    inflight.forget(1)
    inflight.note(1, 110, NOTHING_HELD)
    inflight.dispatched(1, 0, 2, run(102))
    inflight.open(2, partition=0, position=101)
    inflight.dispatched(2, 0, 3, run(101))
    inflight.note(2, 102, NOTHING_HELD)
    assert list(inflight.epochs()) == [2]
    assert inflight.position(2, lanes(3, 0)) == 101
    assert inflight.position(2, lanes(4, 0)) == 102


@pytest.mark.parametrize(
    ("lane", "first", "offsets"),
    [
        (0, 1, run(100)),  # a gap
        (0, 0, b""),
        (0, 0, run(100) + b"\0"),
        (2, 0, run(100)),
        (-1, 0, run(100)),
    ],
)
def test_a_run_that_does_not_follow_is_damage(inflight, lane, first, offsets):
    with pytest.raises(RingCorrupt, match=f"from {first} does not follow on lane {lane}"):
        inflight.dispatched(1, lane, first, offsets)
    inflight.dispatched(1, 0, 0, run(100))  # nothing of it was taken


def test_a_run_twice_is_damage(inflight):
    inflight.dispatched(1, 0, 0, run(100))
    with pytest.raises(RingCorrupt):
        inflight.dispatched(1, 0, 0, run(100))
