"""The depth of simulated lanes: bounded always, right at any constant speed, soon after a stall."""

import math

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kqmp.core.depth import LIMIT_MAX, Depth

AHEAD_S = 0.25
#: Observations of a lane that uses its limit up until its speed is known, whatever it
#: is: about 17 doublings until the lane is found busy, and some samples.
OBSERVATIONS_MAX = 60


def powers_of_ten(low, high):
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


class Lane:
    """A lane that is always filled to its limit, with a handler of one speed at a time."""

    def __init__(self, each_s):
        self.now_s = 0.0
        self.depth = Depth(AHEAD_S, 0, 0.0)
        self.end = 0
        self.each_s = each_s
        #: The running message began then, and is this one.
        self.began_s, self.began = 0.0, 0

    @property
    def cursor(self):
        done = math.floor((self.now_s - self.began_s) / self.each_s + 1e-9)
        return min(self.end, self.began + max(0, done))

    def change_speed(self, each_s):
        """The running message starts anew, at the new speed."""
        self.began, self.began_s, self.each_s = self.cursor, self.now_s, each_s

    def turn(self, after_s):
        """Wait, observe, dispatch."""
        self.now_s += after_s
        cursor = self.cursor
        self.depth.observe(cursor, self.end - cursor, self.now_s)
        if cursor == self.end:
            self.began_s, self.began = self.now_s, cursor
        self.end = max(self.end, cursor + self.depth.limit)
        return self.depth


@given(
    each_s=powers_of_ten(-6, 1),
    every_s=powers_of_ten(-3, -0.5),
)
def test_any_constant_speed_is_found(each_s, every_s):
    lane = Lane(each_s)
    turns = OBSERVATIONS_MAX + math.ceil(6 * max(each_s, 0.02) / every_s)
    for _ in range(turns):
        depth = lane.turn(every_s)
    # Where even the largest limit is done between two looks, the speed need not be known.
    assert depth.seconds_each or LIMIT_MAX * each_s < every_s
    if depth.seconds_each:
        assert 0.7 < depth.seconds_each / each_s < 1.4
        assert depth.limit <= max(2, AHEAD_S / each_s * 1.5)
    # Deep enough that the lane does not run dry between two looks, if the time ahead allows it.
    assert depth.limit >= min(0.7 * AHEAD_S / each_s - 1, every_s / each_s, LIMIT_MAX)


@given(first_s=powers_of_ten(-5, 0), second_s=powers_of_ten(-5, 0), every_s=powers_of_ten(-3, -1.5))
def test_a_change_of_speed_is_found(first_s, second_s, every_s):
    lane = Lane(first_s)
    for each_s in (first_s, second_s):
        lane.change_speed(each_s)
        for _ in range(OBSERVATIONS_MAX + math.ceil(20 * max(each_s, 0.02) / every_s)):
            lane.turn(every_s)
    assert 0.7 < lane.depth.seconds_each / second_s < 1.4


@given(
    each_s=powers_of_ten(-5, -1.5),
    every_s=powers_of_ten(-3, -1.5),
    stuck_s=st.floats(1, 30),
)
def test_one_slow_message_is_felt_at_once_and_forgotten_within_a_second(each_s, every_s, stuck_s):
    lane = Lane(each_s)
    for _ in range(OBSERVATIONS_MAX + math.ceil(6 * max(each_s, 0.02) / every_s)):
        lane.turn(every_s)
    steady = lane.depth.limit
    assume(lane.end > lane.cursor)

    stuck_until_s = lane.now_s + stuck_s
    lane.change_speed(stuck_s)
    while lane.now_s + 1.01 * every_s < stuck_until_s:
        depth = lane.turn(every_s)
    outstanding = lane.end - lane.cursor
    assert depth.limit == 2
    assert depth.load_s(outstanding, each_s, lane.now_s) >= stuck_s - 2 * every_s

    lane.now_s = max(lane.now_s, stuck_until_s)
    lane.change_speed(each_s)
    recovered_s = lane.now_s + 1.0
    while lane.now_s < recovered_s:
        depth = lane.turn(every_s)
    assert 0.5 < depth.seconds_each / each_s < 2.0
    assert depth.limit >= min(steady, every_s / each_s) / 2
    assert depth.load_s(outstanding, each_s, lane.now_s) < outstanding * each_s + every_s


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.integers(0, 10**6), st.integers(0, 200_000)), max_size=80
    )
)
@settings(max_examples=200)
def test_whatever_is_observed_the_limit_is_bounded(observations):
    depth = Depth(AHEAD_S, 7, 3.0)
    now_s, cursor = 3.0, 7
    for after_s, moved, outstanding in observations:
        now_s, cursor = now_s + after_s, cursor + moved
        depth.observe(cursor, outstanding, now_s)
        assert (2 if depth.seconds_each else 1) <= depth.limit <= LIMIT_MAX
        assert 0.0 <= depth.seconds_each < math.inf
        loads = [depth.load_s(count, 0.001, now_s + 1.0) for count in (0, 1, 2, 100)]
        assert loads[0] == 0.0
        assert loads == sorted(set(loads))
