import random
import statistics

from kqmp.core import slots
from kqmp.core.slots import GENERATION_KEYS_MAX, GENERATION_S, GENERATION_S_MAX, SLOTS, KeyLanes


class Lanes:
    """Lanes as slots see them: cursors, and ends that include what bays hold."""

    def __init__(self, count):
        self.cursors = [0] * count
        self.ends = [0] * count
        self.now_s = 100.0
        self.keys = KeyLanes(count, self.cursors.__getitem__)
        self.begin()

    def held(self):
        return [end - cursor for end, cursor in zip(self.ends, self.cursors, strict=True)]

    def begin(self, after_s=0.0, loads_s=None):
        self.now_s += after_s
        loads = [float(count) for count in self.held()]
        self.keys.begin_batch(loads_s or loads, 1.0, self.ends, self.now_s)

    def place(self, key):
        lane = self.keys[key]
        self.ends[lane] += 1
        return lane


def test_an_idle_slot_goes_to_the_least_loaded_lane():
    lanes = Lanes(3)
    lanes.begin(loads_s=[5.0, 1.0, 3.0])
    assert lanes.place(1) == 1
    assert lanes.place(2) == 1  # 2.0 now
    assert lanes.place(3) in (1, 2)


def test_a_key_keeps_its_lane_within_a_generation():
    lanes = Lanes(2)
    first = lanes.place(b"k")
    lanes.cursors[:] = lanes.ends
    lanes.begin(after_s=GENERATION_S / 2, loads_s=[0.0, 9.0] if first == 1 else [9.0, 0.0])
    assert lanes.place(b"k") == first


def test_a_slot_in_flight_stays_on_its_lane():
    lanes = Lanes(2)
    lanes.begin(loads_s=[0.0, 1.0])
    assert lanes.place(7) == 0
    lanes.begin(after_s=1.0, loads_s=[9.0, 0.0])
    assert lanes.place(7) == 0  # not finished: order comes before load
    assert lanes.place(8) == 1


def test_a_slot_whose_messages_are_finished_moves():
    lanes = Lanes(2)
    lanes.begin(loads_s=[0.0, 1.0])
    lanes.place(7)
    lanes.cursors[0] = 1
    lanes.begin(after_s=1.0, loads_s=[9.0, 0.0])
    assert lanes.place(7) == 1


def test_a_slot_is_in_flight_until_the_lanes_end_of_its_generation_is_passed():
    lanes = Lanes(2)
    lanes.begin(loads_s=[0.0, 5.0])
    lanes.place(7)
    lanes.place(8)
    lanes.place(7)
    for cursor in range(3):
        lanes.cursors[0] = cursor
        lanes.begin(after_s=1.0, loads_s=[9.0, 0.0])
        lanes.keys.clear()  # as if another generation had ended: the slot decides, not the key
        assert lanes.keys[7] == 0
    assert lanes.ends == [3, 0]


def test_keys_of_one_slot_share_its_lane():
    lanes = Lanes(4)
    first = lanes.place(5)
    assert lanes.place(5 + SLOTS) == first
    lanes.begin(after_s=1.0)
    assert lanes.place(5 + 2 * SLOTS) == first


def test_the_slots_of_a_dry_lane_are_no_load():
    """They are idle: what follows on them may go anywhere."""
    lanes = Lanes(2)
    lanes.begin(loads_s=[0.0, 10_000.0])
    for key in range(40):
        assert [lanes.place(key) for _ in range(5)] == [0] * 5
    lanes.cursors[:] = lanes.ends
    lanes.begin(after_s=GENERATION_S_MAX)
    assert lanes.keys.live(0) == 0
    placed = [lanes.place(1000 + key) for key in range(40)]
    assert placed.count(0) == 20


def test_a_batch_is_spread_by_what_each_key_brings():
    batch = [1, 2, 3, 4, 1, 5, 1, 1, None, 2]
    lanes = Lanes(2)
    lanes.keys.spread(batch, [0.0, 0.0])
    placed = [lanes.place(key) for key in batch]
    assert {key for key, lane in zip(batch, placed, strict=True) if lane == placed[0]} - {None} == {
        1,
        5,
    }
    assert sorted(lanes.held()) == [5, 5]


def test_what_is_in_flight_is_not_spread():
    lanes = Lanes(2)
    first = lanes.place(7)
    loads_s = [float(lane == first) * 9 for lane in range(2)]
    lanes.begin(after_s=GENERATION_S_MAX, loads_s=loads_s)
    lanes.keys.spread([7, 7, 8], loads_s)
    assert lanes.place(7) == first
    assert lanes.place(8) != first


def test_null_keys_go_to_the_least_loaded_lane_one_by_one():
    lanes = Lanes(4)
    assert sorted(lanes.place(None) for _ in range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not lanes.keys


def test_what_is_placed_within_a_batch_counts():
    keys = KeyLanes(2, [0, 0].__getitem__)
    keys.begin_batch([3.5, 0.0], 1.0, [0, 0], 1.0)
    assert [keys[None] for _ in range(6)] == [1, 1, 1, 1, 0, 1]


def test_a_generation_ends_with_time_and_later_the_more_keys_it_has():
    lanes = Lanes(1)
    for key in range(4000):
        lanes.place(key)
    lanes.begin(after_s=GENERATION_S)
    assert len(lanes.keys) == 4000
    lanes.begin(after_s=4000 * slots.GENERATION_S_PER_MISS)
    assert not lanes.keys


def test_a_generation_is_bounded_in_time_and_keys():
    lanes = Lanes(1)
    for key in range(GENERATION_KEYS_MAX + 1):
        lanes.place(key)
    lanes.begin()
    assert not lanes.keys
    for key in range(GENERATION_KEYS_MAX):
        lanes.place(key)
    lanes.begin(after_s=GENERATION_S_MAX)
    assert not lanes.keys


def test_the_callers_list_of_ends_may_change_later():
    lanes = Lanes(2)
    lanes.begin(loads_s=[0.0, 1.0])
    lanes.place(7)
    lanes.begin(after_s=1.0)
    lanes.ends[0] += 1_000  # other keys keep the lane busy
    lanes.cursors[0] = 1
    lanes.begin(after_s=1.0, loads_s=[9.0, 0.0])
    assert lanes.place(7) == 1


def test_a_slot_whose_held_messages_were_dropped_is_not_pinned():
    lanes = Lanes(2)
    lanes.begin(loads_s=[0.0, 1.0])
    lanes.place(7)
    lanes.begin(after_s=1.0)
    lanes.ends[0] = 0  # it was in the bay
    lanes.keys.dropped(lanes.ends)
    lanes.begin(after_s=1.0, loads_s=[9.0, 0.0])
    assert lanes.place(7) == 1


def test_messages_behind_dropped_ones_stay_in_flight():
    lanes = Lanes(2)
    lanes.begin(loads_s=[0.0, 9.0])
    for key in (1, 2):
        lanes.place(key)
    lanes.begin(after_s=1.0)
    lanes.ends[0] = 1  # key 1 was dropped, key 2 is message 0 now
    lanes.keys.dropped(lanes.ends)
    lanes.begin(after_s=1.0, loads_s=[9.0, 0.0])
    assert lanes.place(2) == 0


def test_lanes_stay_level_where_each_partition_has_keys_of_its_own():
    # A backlog comes one partition after another, here each with 80 keys that come 20 times.
    # Each lane is filled up to 250, and works off one message at a time like the other.
    lanes = Lanes(2)
    order = random.Random(1)
    differences = []
    for partition in range(12):
        messages = [partition * 80 + number % 80 for number in range(1600)]
        order.shuffle(messages)
        for begin in range(0, len(messages), 100):
            while min(held := lanes.held()) > 190:
                lanes.cursors[:] = [cursor + 1 for cursor in lanes.cursors]
            differences.append(abs(held[0] - held[1]))
            lanes.begin(after_s=0.1)
            for key in messages[begin : begin + 100]:
                lanes.place(key)
    assert statistics.mean(differences) < 100
