"""Positions against a naive model: every message with its state, and the smallest unfinished one.

The model is the whole road: a fetcher with bays that publishes records, lanes with cursors and open
tables, and a coordinator that reads the log late. Processors die (the cursor stays, entries above
it are void), fetchers die (bays are lost), partitions are revoked (bays are dropped) and closed by
force.
"""

from array import array
from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import groupby

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kqmp.core.inflight import NOTHING_HELD, Inflight, LaneState

LANES = 3
lane_numbers = st.integers(0, LANES - 1)
small = st.integers(0, 5)


@dataclass
class Opened:
    """One epoch, as it really is."""

    epoch: int
    start: int
    fetched: int
    unfinished: set[int] = field(default_factory=set)
    #: The fetcher dispatches no more of it.
    released: bool = False
    #: What the coordinator was told by the records it has read.
    told_fetched: int = 0
    told_low: int | None = None
    told_unfinished: set[int] = field(default_factory=set)
    last_position: int = 0


@dataclass
class Lane:
    """Messages are (epoch, offset); those below `end` are published."""

    messages: list[tuple[int, int]] = field(default_factory=list)
    bay: deque[tuple[int, int]] = field(default_factory=deque)
    cursor: int = 0
    open_numbers: set[int] = field(default_factory=set)
    void_numbers: list[int] = field(default_factory=list)


class Road(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.real = Inflight(LANES)
        self.opened: dict[int, Opened] = {}
        self.lanes = [Lane() for _ in range(LANES)]
        self.log: deque[list[tuple]] = deque()
        self.epoch = 0

    def choose(self, data, items):
        return data.draw(st.sampled_from(sorted(items)))

    def active(self):
        return [epoch for epoch, o in self.opened.items() if not o.released]

    @initialize(starts=st.lists(st.integers(0, 1000), min_size=1, max_size=2))
    def open_first(self, starts):
        for start in starts:
            self.open(start)

    @precondition(lambda self: len(self.opened) < 4)
    @rule(start=st.integers(0, 1000))
    def open(self, start):
        self.epoch += 1
        self.opened[self.epoch] = Opened(
            self.epoch, start, start, told_fetched=start, last_position=start
        )
        self.real.open(self.epoch, self.epoch % 3, start)

    @precondition(lambda self: self.active())
    @rule(
        data=st.data(),
        steps=st.lists(st.tuples(st.integers(1, 3), lane_numbers, st.booleans()), max_size=12),
    )
    def fetch(self, data, steps):
        """Offsets with gaps, each bound for a lane; some are done already and dropped."""
        opened = self.opened[self.choose(data, self.active())]
        for step, lane, dropped in steps:
            offset = opened.fetched + step - 1
            opened.fetched = offset + 1
            if not dropped:
                opened.unfinished.add(offset)
                self.lanes[lane].bay.append((opened.epoch, offset))

    @rule(takes=st.lists(small, min_size=LANES, max_size=LANES), read=st.booleans())
    def publish(self, takes, read):
        """One record: some of each bay goes out, and all partitions tell where they stand."""
        runs = defaultdict(list)
        for number, (lane, take) in enumerate(zip(self.lanes, takes, strict=True)):
            out = [lane.bay.popleft() for _ in range(min(take, len(lane.bay)))]
            for epoch, messages in groupby(out, key=lambda message: message[0]):
                offsets = [offset for _, offset in messages]
                runs[epoch].append((number, len(lane.messages), offsets))
                lane.messages += [(epoch, offset) for offset in offsets]
        record = []
        for epoch in self.active():
            held = [offset for lane in self.lanes for e, offset in lane.bay if e == epoch]
            record.append((epoch, self.opened[epoch].fetched, min(held, default=None), runs[epoch]))
        self.log.append(record)
        if read:
            self.read_log(len(self.log))

    @precondition(lambda self: self.log)
    @rule(count=small)
    def read_log(self, count):
        """The coordinator reads some records."""
        for _ in range(min(count, len(self.log))):
            record = self.log.popleft()
            runs = [(lane, first, t[0], offsets) for t in record for lane, first, offsets in t[3]]
            for lane, first, epoch, offsets in sorted(runs):
                self.real.dispatched(epoch, lane, first, array("q", offsets).tobytes())
            for epoch, fetched, low, runs in record:
                self.real.note(epoch, fetched, NOTHING_HELD if low is None else low)
                if epoch in self.opened:
                    opened = self.opened[epoch]
                    opened.told_fetched, opened.told_low = fetched, low
                    for _, _, offsets in runs:
                        opened.told_unfinished.update(opened.unfinished.intersection(offsets))

    def finish(self, lane, number):
        epoch, offset = self.lanes[lane].messages[number]
        if epoch in self.opened:
            self.opened[epoch].unfinished.discard(offset)
            self.opened[epoch].told_unfinished.discard(offset)

    @rule(lane=lane_numbers, parked=st.lists(st.booleans(), max_size=12))
    def take(self, lane, parked):
        """A processor goes on; what it parks stands in the open table before the cursor moves."""
        state = self.lanes[lane]
        state.void_numbers = []  # a successor clears them first
        for is_parked in parked[: len(state.messages) - state.cursor]:
            if is_parked:
                state.open_numbers.add(state.cursor)
            else:
                self.finish(lane, state.cursor)
            state.cursor += 1

    @precondition(lambda self: any(lane.open_numbers for lane in self.lanes))
    @rule(data=st.data())
    def finish_parked(self, data):
        lane = self.choose(data, [i for i in range(LANES) if self.lanes[i].open_numbers])
        number = self.choose(data, self.lanes[lane].open_numbers)
        self.lanes[lane].open_numbers.discard(number)
        self.finish(lane, number)

    @rule(above=st.lists(st.tuples(lane_numbers, small), min_size=1, max_size=5))
    def processors_die(self, above):
        """They may have written entries for messages that their cursors never passed."""
        for lane, number in above:
            self.lanes[lane].void_numbers.append(self.lanes[lane].cursor + number)

    @precondition(lambda self: self.active())
    @rule(data=st.data(), told=st.booleans())
    def revoke(self, data, told):
        """Held messages are dropped; a last record may come, in which they are still held."""
        opened = self.opened[self.choose(data, self.active())]
        if told:
            self.publish([0] * LANES, read=False)
        opened.released = True
        for lane in self.lanes:
            lane.bay = deque(m for m in lane.bay if m[0] != opened.epoch)

    @precondition(lambda self: self.active() and self.log)
    @rule()
    def fetcher_dies(self):
        for lane in self.lanes:
            lane.bay.clear()
        for opened in self.opened.values():
            opened.released = True

    @precondition(lambda self: any(o.released for o in self.opened.values()))
    @rule(data=st.data())
    def close(self, data):
        """Drained or by force: what is left in the lanes and in the log is nobody's any more."""
        epoch = self.choose(data, [e for e, o in self.opened.items() if o.released])
        self.real.forget(epoch)
        del self.opened[epoch]

    def lane_states(self):
        return [
            LaneState(lane.cursor, [*lane.void_numbers, *sorted(lane.open_numbers, reverse=True)])
            for lane in self.lanes
        ]

    @invariant()
    def position_is_the_naive_minimum_and_safe(self):
        states = self.lane_states()
        assert set(self.real.epochs()) == set(self.opened)
        for epoch, opened in self.opened.items():
            position = self.real.position(epoch, states)
            told = {opened.told_fetched, *opened.told_unfinished}
            if opened.told_low is not None:
                told.add(opened.told_low)
            assert position == min(told)
            assert position <= min(opened.unfinished, default=opened.fetched)
            assert position >= opened.last_position
            opened.last_position = position

    @invariant()
    def a_lane_is_named_while_it_holds_unfinished_messages(self):
        states = self.lane_states()
        for epoch, opened in self.opened.items():
            lanes = {
                number
                for number, lane in enumerate(self.lanes)
                for message in lane.messages
                if message[0] == epoch and message[1] in opened.told_unfinished
            }
            assert sorted(self.real.unfinished_lanes(epoch, states)) == sorted(lanes)


TestRoad = Road.TestCase
TestRoad.settings = settings(
    max_examples=150, stateful_step_count=50, phases=[Phase.generate, Phase.shrink]
)
