import pytest

from kqmp.core.drain import Drain, LaneLoad


def lane(holds, *, limit=100, is_stuck=False, keys=10):
    return LaneLoad(holds, limit, is_stuck, keys)


DRY, FULL, OVER = lane(0), lane(100), lane(200)


def after(*batches):
    drain = Drain(len(batches[0]))
    for given in batches:
        drain.placed(given)
    return drain


def test_it_waits_for_the_lane_that_is_given_too_much_until_that_is_dry():
    drain = after([20, 80])
    assert drain.waits([DRY, OVER])
    assert drain.lane == 1
    assert drain.waits([OVER, lane(1)])
    assert not drain.waits([OVER, DRY])
    assert drain.lane is None


@pytest.mark.parametrize(
    "fullest",
    [
        FULL,  # it holds what it may
        lane(401),  # it would take too long
        lane(200, is_stuck=True),  # nobody knows how long
        lane(200, keys=1),  # it could give nothing away
    ],
)
def test_there_is_nobody_to_wait_for(fullest):
    assert not after([20, 80]).waits([DRY, fullest])


def test_many_lanes_do_not_stand_idle_for_one():
    assert not after([50, 50, 50, 80]).waits([FULL, FULL, DRY, OVER])
    assert not after([50, 50, 0, 80]).waits([DRY, DRY, DRY, OVER])


def test_those_that_get_nothing_lose_nothing():
    assert after([0, 0, 0, 80]).waits([DRY, DRY, DRY, OVER])
    assert after([50, 50, 0, 80]).waits([FULL, FULL, DRY, OVER])


def test_a_lane_that_gets_its_share_and_is_slow_is_not_waited_for():
    assert not after([50, 50]).waits([DRY, OVER])
    assert not after([20, 80], [60, 40], [60, 40], [60, 40]).waits([DRY, OVER])


def test_nothing_is_waited_for_at_first():
    assert not Drain(2).waits([DRY, DRY])
    assert not Drain(2).waits([DRY, OVER])


def test_a_lane_that_gets_stuck_is_waited_for_no_longer():
    drain = after([20, 80])
    assert drain.waits([DRY, OVER])
    assert not drain.waits([DRY, lane(200, is_stuck=True)])
