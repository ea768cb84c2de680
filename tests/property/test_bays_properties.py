"""A bay against a plain list of messages."""

from array import array

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kqmp.core.batch import Chunk, Columns, Opening, Part
from kqmp.core.bays import Bay

OPENINGS = [Opening(epoch, epoch, 0) for epoch in range(1, 4)]
which = st.sampled_from(OPENINGS)


def messages_of(chunk):
    """(opening, offset, bytes) each; checks that the columns and parts agree."""
    openings = [opening for opening, count in chunk.parts for _ in range(count)]
    assert all(count for _, count in chunk.parts)
    assert [b"%d" % offset for offset in chunk.columns.offsets] == chunk.columns.keys
    assert len(openings) == len(chunk.columns.values) == chunk.count
    return [
        (opening, offset, chunk.bytes_each)
        for opening, offset in zip(openings, chunk.columns.offsets, strict=True)
    ]


class BayMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.bay = Bay()
        self.model = []
        self.next_offset = dict.fromkeys(OPENINGS, 0)
        self.taken = None

    @rule(
        parts=st.lists(
            st.tuples(which, st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=6
        ),
        bytes_each=st.integers(1, 500),
    )
    def append(self, parts, bytes_each):
        """Parts of one opening may stand side by side, and offsets may have gaps between parts."""
        offsets = array("q")
        for opening, count, gap in parts:
            first = self.next_offset[opening] + gap
            offsets.extend(range(first, first + count))
            self.next_offset[opening] = first + count
        keys = [b"%d" % offset for offset in offsets]
        chunk = Chunk(
            Columns(offsets, keys, list(keys)), [Part(o, c) for o, c, _ in parts], bytes_each
        )
        self.model += messages_of(chunk)
        self.bay.append(chunk)

    @rule(limit=st.integers(1, 12))
    def take(self, limit):
        chunk = self.bay.take(limit)
        if chunk is None:
            assert not self.model
            return
        taken = messages_of(chunk)
        assert 0 < len(taken) <= limit
        assert self.model[: len(taken)] == taken
        del self.model[: len(taken)]
        self.taken = chunk

    @precondition(lambda self: self.taken is not None)
    @rule()
    def put_back(self):
        self.model[:0] = messages_of(self.taken)
        self.bay.put_back(self.taken)
        self.taken = None

    @rule(openings=st.sets(which))
    def drop(self, openings):
        before = len(self.model)
        self.model = [message for message in self.model if message[0] not in openings]
        assert self.bay.drop(openings) == before - len(self.model)
        self.taken = None  # never put back after a drop

    @invariant()
    def counts_and_lows_are_those_of_the_list(self):
        assert self.bay.count == len(self.model)
        assert self.bay.byte_count == sum(size for _, _, size in self.model)
        assert set(self.bay.openings()) == {opening for opening, _, _ in self.model}
        for opening in OPENINGS:
            offsets = [offset for held, offset, _ in self.model if held is opening]
            assert self.bay.held_low(opening) == min(offsets, default=None)

    @invariant()
    def the_next_message_is_the_oldest(self):
        chunk = self.bay.peek()
        assert (chunk is None) == (not self.model)
        if chunk is not None:
            assert messages_of(chunk) == self.model[: chunk.count]


TestBay = BayMachine.TestCase
TestBay.settings = settings(max_examples=80, stateful_step_count=30)
