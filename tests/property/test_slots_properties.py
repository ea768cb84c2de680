"""Slots over simulated lanes: per-key order, and nothing pinned for ever."""

import gc
from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kqmp.core.slots import GENERATION_S_MAX, SLOTS, KeyLanes

LANES = 3
#: Few keys, so that they meet again; some share a slot.
KEYS = [1, 2, 3, 1 + SLOTS, 2 + 3 * SLOTS, b"a", b"b", b"", None]
lane_numbers = st.integers(0, LANES - 1)
loads = st.lists(st.floats(0, 100), min_size=LANES, max_size=LANES)


def slot_of(key):
    return hash(key) % SLOTS


@dataclass
class Lane:
    """Unfinished messages are (key, partition): the published ones, and behind them the bay's."""

    published: deque = field(default_factory=deque)
    bay: deque = field(default_factory=deque)
    cursor: int = 0

    @property
    def end(self):
        return self.cursor + len(self.published) + len(self.bay)


class SlotMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.lanes = [Lane() for _ in range(LANES)]
        self.keys = KeyLanes(LANES, lambda lane: self.lanes[lane].cursor)
        self.now_s = 1000.0

    def ends(self):
        return [lane.end for lane in self.lanes]

    @rule(
        after_s=st.sampled_from([0.0, 0.01, 0.03, 1.0]),
        loads_s=loads,
        keys=st.lists(st.sampled_from(KEYS), max_size=12),
        partition=st.integers(0, 1),
        is_spread=st.booleans(),
    )
    def batch(self, after_s, loads_s, keys, partition, is_spread):
        self.now_s += after_s
        self.keys.begin_batch(loads_s, 1.0, self.ends(), self.now_s)
        if is_spread:
            self.keys.spread(keys, loads_s)
        for key, lane in zip(keys, map(self.keys.__getitem__, keys), strict=True):
            if key is not None:
                held_by = {
                    number
                    for number, other in enumerate(self.lanes)
                    for unfinished, _ in (*other.published, *other.bay)
                    if unfinished is not None and slot_of(unfinished) == slot_of(key)
                }
                assert held_by <= {lane}, (key, lane, held_by)
            self.lanes[lane].bay.append((key, partition))

    @rule(lane=lane_numbers, count=st.integers(1, 9))
    def publish(self, lane, count):
        bay = self.lanes[lane].bay
        for _ in range(min(count, len(bay))):
            self.lanes[lane].published.append(bay.popleft())

    @rule(lane=lane_numbers, count=st.integers(1, 9))
    def finish(self, lane, count):
        state = self.lanes[lane]
        for _ in range(min(count, len(state.published))):
            state.published.popleft()
            state.cursor += 1

    @rule(partition=st.integers(0, 1))
    def drop(self, partition):
        """A partition was revoked: its held messages go, those behind them move up."""
        for lane in self.lanes:
            lane.bay = deque(m for m in lane.bay if m[1] != partition)
        self.keys.dropped(self.ends())

    @rule(free_lane=lane_numbers)
    def drained_lanes_pin_nothing(self, free_lane):
        """Whatever happened before: once the lanes are empty every key goes where load is least."""
        for lane in self.lanes:
            lane.cursor, lane.published, lane.bay = lane.end, deque(), deque()
        for key in KEYS:
            self.now_s += GENERATION_S_MAX
            loads_s = [float(lane != free_lane) * 10 for lane in range(LANES)]
            self.keys.begin_batch(loads_s, 1.0, self.ends(), self.now_s)
            assert self.keys[key] == free_lane

    @rule(lane=lane_numbers, free_lane=lane_numbers)
    def a_drained_lane_pins_nothing(self, lane, free_lane):
        """The same for one lane, while others may be stuck."""
        state = self.lanes[lane]
        pinned = {key for key, _ in (*state.published, *state.bay)} - {None}
        elsewhere = {
            slot_of(key)
            for other in self.lanes
            if other is not state
            for key, _ in (*other.published, *other.bay)
            if key is not None
        }
        self.now_s += GENERATION_S_MAX
        self.keys.begin_batch([0.0] * LANES, 1.0, self.ends(), self.now_s)
        state.cursor, state.published, state.bay = state.end, deque(), deque()
        for key in pinned:
            if slot_of(key) not in elsewhere:
                loads_s = [float(number != free_lane) * 10 for number in range(LANES)]
                self.keys.begin_batch(loads_s, 1.0, self.ends(), self.now_s)
                assert self.keys[key] == free_lane
                self.lanes[free_lane].bay.append((key, 0))

    @invariant()
    def memory_is_bounded(self):
        keys = self.keys
        assert len(keys._slot_lane) == len(keys._slot_bound) == len(keys._is_current) == SLOTS
        assert len(keys._current) == len(set(keys._current)) <= SLOTS
        assert set(keys) <= set(KEYS) - {None}


TestSlots = SlotMachine.TestCase
TestSlots.settings = settings(max_examples=80, stateful_step_count=30)


@given(loads_s=loads, count=st.integers(0, 200), weight=st.floats(0.01, 10))
def test_null_keys_level_the_loads(loads_s, count, weight):
    keys = KeyLanes(LANES, [0, 0, 0].__getitem__)
    after = list(loads_s)
    keys.begin_batch(list(loads_s), weight, [0] * LANES, 1.0)
    for _ in range(count):
        after[keys[None]] += weight
    given_to = [lane for lane in range(LANES) if after[lane] > loads_s[lane]]
    assert all(after[lane] <= min(after) + weight * 1.001 for lane in given_to)


def containers(root):
    """Every list, dict and the like that is reached from `root`, not through code or classes."""
    found, todo = {}, [root]
    while todo:
        item = todo.pop()
        if id(item) not in found and not isinstance(item, type) and not callable(item):
            found[id(item)] = item
            todo += gc.get_referents(item)
    return [item for item in found.values() if hasattr(item, "__len__")]


def test_a_stuck_lane_costs_no_memory_however_long():
    """Lane 0 never moves while generations come and go on lane 1."""
    cursors, ends, now_s = [0, 0], [0, 0], 1.0
    keys = KeyLanes(2, cursors.__getitem__)
    sizes = []
    for turn in range(2000):
        now_s += GENERATION_S_MAX
        keys.begin_batch([float(turn > 0), 0.0], 1.0, list(ends), now_s)
        for key in range(3):
            ends[keys[turn + key]] += 1
        cursors[1] = ends[1]
        if turn in (100, 1999):
            sizes.append(sum(map(len, containers(keys))))
    assert ends[0] > cursors[0]
    assert sizes[0] == sizes[1]
