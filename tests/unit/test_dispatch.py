"""The dispatcher on real memory; its lanes are worked off on paper, by a clock of their own."""

import contextlib
import os
import random
from collections import deque

import pytest

from kqmp.core.batch import Columns, Opening, Part
from kqmp.ring import lane, log
from kqmp.ring import words as w
from kqmp.roles.dispatch import BAY_COUNT_MAX, WAIT_MAX_S, Dispatcher

LANES = 2
EACH_S = 0.001
TICK_S = 0.02
#: Fetches that a tick has time for.
TURNS = 40
BATCH = 2000


class Engine:
    """A dispatcher whose lanes take `EACH_S` a message, fed from a backlog by a fetcher's turns."""

    def __init__(self, stack, ordering, backlog):
        """`backlog`: partition -> its keys; one partition is fetched after another."""
        self.lane_fds = [lane.create(1 << 20) for _ in range(LANES)]
        dispatch_fd = log.create(LANES, 1 << 20)
        bells = [os.eventfd(0) for _ in range(LANES)]
        for fd in (*self.lane_fds, dispatch_fd, *bells):
            stack.callback(os.close, fd)
        self.words = []
        for fd in self.lane_fds:
            _, entries = w.read_header(fd, w.LANE_MAGIC)
            memory = w.Mapping(fd, w.ring_start(entries))
            stack.callback(memory.close)
            self.words.append(memory.words)
        self.now_s = 10.0
        self.dispatcher = Dispatcher(dispatch_fd, self.lane_fds, bells, ordering, 0.25, self.now_s)
        stack.callback(self.close)
        self.records = log.DispatchReader(dispatch_fd)
        self.backlog = {partition: deque(keys) for partition, keys in backlog.items()}
        self.openings = {p: Opening(p + 1, p, 0) for p in self.backlog}
        self.offsets = dict.fromkeys(self.openings, 0)
        self.idle_s = [0.0] * LANES
        self.stalled_until_s = [0.0] * LANES
        self.held = set()

    def close(self):
        for writer in self.dispatcher._lanes:
            writer.close()

    def run(self, until_s):
        """Turn until then, or until all is handled."""
        while self.now_s < until_s and (self.backlog or any(map(self.left, range(LANES)))):
            self.turn()
            self.work()

    def left(self, index):
        writer = self.dispatcher._lanes[index]
        return writer.end_number - writer.cursor + self.dispatcher._bays[index].count

    def turn(self):
        self.dispatcher.look(self.now_s)
        wanted = self.dispatcher.wanted()
        for _ in range(TURNS):
            if not wanted or not self.backlog:
                break
            fetched = self.take(min(wanted, BATCH))
            if not fetched:
                break
            self.place(fetched)
            self.held = self.dispatcher.crowded()
            self.dispatcher.look(self.now_s)
            self.dispatcher.send()
            wanted = self.dispatcher.wanted()
        self.dispatcher.send()
        self.held = self.dispatcher.crowded()
        self.records.read()

    def take(self, count):
        """Fetch the next messages of partitions that are not held."""
        taken = []
        for partition, keys in list(self.backlog.items()):
            while partition not in self.held and keys and len(taken) < count:
                taken.append((partition, keys.popleft()))
            if not keys:
                del self.backlog[partition]
        return taken

    def place(self, fetched, value=b"value"):
        parts, offsets = [], []
        for partition, _ in fetched:
            offsets.append(self.offsets[partition])
            self.offsets[partition] += 1
            if parts and parts[-1][0] == partition:
                parts[-1][1] += 1
            else:
                parts.append([partition, 1])
        columns = Columns(offsets, [key for _, key in fetched], [value] * len(fetched))
        made = [Part(self.openings[p], count) for p, count in parts]
        self.dispatcher.place(columns, made, len(value) * len(fetched))

    def work(self):
        """Let a tick pass."""
        self.now_s += TICK_S
        for index, words in enumerate(self.words):
            if self.now_s <= self.stalled_until_s[index]:
                continue
            writer = self.dispatcher._lanes[index]
            able = round(TICK_S / EACH_S)
            done = min(able, writer.end_number - writer.cursor)
            words[w.CURSOR] += done
            if self.backlog or any(map(self.left, range(LANES))):
                self.idle_s[index] += (able - done) * EACH_S


@pytest.fixture
def engine():
    with contextlib.ExitStack() as stack:
        yield lambda ordering, backlog: Engine(stack, ordering, backlog)


def keyed(count, keys=100):
    return {0: [b"k%d" % (number * 7919 % keys) for number in range(count)]}


@pytest.mark.parametrize("start_s", [0.0, 1.0])
@pytest.mark.parametrize("ordering", ["key", "unordered"])
def test_a_lane_that_lost_its_core_for_a_moment_gets_its_share_again(engine, ordering, start_s):
    """Taken for slow, it would stand idle while the other works off all that came meanwhile."""
    made = engine(ordering, keyed(6000))
    made.run(made.now_s + start_s)
    made.stalled_until_s[0] = made.now_s + 0.2
    made.run(60.0)
    assert not made.backlog
    # The time it lost, and a pause in which its keys come free.
    assert max(made.idle_s) < 0.6


def test_keys_that_all_have_a_backlog_are_shared_out_evenly(engine):
    made = engine("key", keyed(20_000))
    made.run(15.0)
    before = [writer.cursor for writer in made.dispatcher._lanes]
    made.run(19.0)
    done = [w.cursor - b for w, b in zip(made.dispatcher._lanes, before, strict=True)]
    assert sum(done) > 7600
    assert min(done) > 0.45 * sum(done)


def in_long_runs(partitions, each):
    return {p: [b"%d" % number for number in range(each)] for p in range(partitions)}


def test_a_long_run_of_one_partition_does_not_keep_the_other_lanes_idle(engine):
    """A backlog comes so, and with CommitInOrder a partition has one lane."""
    made = engine("partition", in_long_runs(4, 15_000))
    made.run(30.0)
    assert made.now_s >= 30.0
    assert max(made.idle_s) < 1.0
    assert made.dispatcher.held_count < BAY_COUNT_MAX / 2


def test_a_partition_is_held_until_its_lane_has_little_left(engine):
    made = engine("partition", in_long_runs(1, 60_000))
    changes = [set()]
    while made.now_s < 40.0:
        made.turn()
        made.work()
        if made.held != changes[-1]:
            changes.append(set(made.held))
    assert changes[:4] == [set(), {0}, set(), {0}]
    # Each change may cost what was prefetched: some seconds between two at this speed.
    assert len(changes) < 40


@pytest.mark.parametrize("ordering", ["key", "unordered"])
def test_no_partition_is_held_whose_messages_go_to_all_lanes(engine, ordering):
    made = engine(ordering, in_long_runs(2, 15_000))
    made.stalled_until_s[0] = 1000.0
    while made.now_s < 30.0:
        made.turn()
        made.work()
        assert made.held == set()


@pytest.mark.parametrize(
    "keys",
    [
        [b"k%d" % n for n in range(4)],
        [b"k%d" % n for n in range(20)],
        [b"hot"] * 20 + [b"k%d" % n for n in range(30)],
        [b"k%d" % n for n in range(1, 41) for _ in range(40 // n)],
    ],
    ids=["4 keys", "20 keys", "one with 40%", "Zipf"],
)
def test_few_keys_with_a_backlog_use_all_cores(engine, keys):
    drawn = random.Random(3)
    made = engine("key", {0: drawn.choices(keys, k=9000)})
    made.run(60.0)
    assert not made.backlog
    assert made.now_s - 10.0 < 9000 * EACH_S / LANES * 1.15


def test_a_key_with_a_backlog_of_its_own_does_not_stop_the_others(engine):
    """Its lane has nothing but this key, and is not waited for."""
    hot = [b"hot" if number % 3 else b"k%d" % (number % 50) for number in range(9000)]
    made = engine("key", {0: hot})
    made.run(60.0)
    assert not made.backlog
    hot_s = 6000 * EACH_S
    assert made.now_s - 10.0 < hot_s * 1.1


def test_the_bays_are_bounded_behind_a_lane_that_stands_still(engine):
    made = engine("key", keyed(80_000))
    made.run(made.now_s + 1.0)
    made.stalled_until_s[0] = 1000.0
    made.run(60.0)
    assert BAY_COUNT_MAX / 2 < made.dispatcher.held_count < BAY_COUNT_MAX / 2 + BATCH
    assert made.dispatcher.wanted() == 0


def test_a_full_ring_wants_nothing_and_is_not_looked_at_all_the_time(engine):
    """Large messages: three fill a ring that may hold a quarter of a second of work."""
    made = engine("unordered", {0: [None] * 1000})
    made.run(11.0)
    made.backlog.clear()
    made.run(12.0)
    dispatcher = made.dispatcher
    assert min(depth.limit for depth in dispatcher._depths) > 30
    dispatcher.look(made.now_s)
    assert dispatcher.wanted() > 60
    made.place([(0, None)] * 30, bytes(300_000))
    assert dispatcher.send()
    held = dispatcher.held_count
    assert held > 20
    assert dispatcher.wanted() == 0
    assert dispatcher.wait_s() >= 0.9 * EACH_S
    assert dispatcher.bays_wait_s() >= 0.9 * EACH_S
    # Nothing waits for room any more.
    assert dispatcher.drop({made.openings[0]}) == held
    assert dispatcher.wanted() > 30


def test_a_lane_that_is_stuck_is_looked_at_ever_less(engine):
    """Its bay waits for it, another lane has nothing: that is no reason to turn all the time."""
    made = engine("key", {0: [b"slow"] * 9})
    made.stalled_until_s = [1000.0] * LANES
    waits = []
    for until_s in (10.06, 11.0, 15.0):
        made.run(until_s)
        made.dispatcher.look(made.now_s)
        waits.append((made.dispatcher.bays_wait_s(), made.dispatcher.wait_s()))
    assert made.dispatcher.held_count
    assert waits[0][0] < WAIT_MAX_S == waits[1][0] == waits[2][0]
