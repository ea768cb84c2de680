import os
from array import array

import pytest

from kqmp.errors import InternalError, RingCorrupt
from kqmp.ring import frame, lane
from kqmp.ring import words as w
from kqmp.ring.frame import Section, align, encode_payload, head_bytes
from kqmp.ring.lane import LaneControl, LaneReader, LaneWriter
from tests.support.stores import Killed, Steps, watch, watched_regions

RING = 2 * w.PAGE


@pytest.fixture
def fd():
    fd = lane.create(RING)
    yield fd
    os.close(fd)


@pytest.fixture
def attach(fd):
    """Attach readers, writers and controls; they are closed at the end."""
    owners = []

    def attach(kind, *args):
        owners.append(kind(fd, *args))
        return owners[-1]

    yield attach
    for owner in owners:
        owner.close()


def payload(*values):
    count = len(values)
    return encode_payload(array("q", range(count)), [b"k"] * count, list(values))


def write(writer, *values):
    return writer.write([Section(1, 0, 0, len(values))], len(values), payload(*values))


def sized(length):
    """Return the longest value whose frame takes `length` bytes."""
    size = length - head_bytes(1)
    while align(head_bytes(1) + payload(b"x" * size).size) > length:
        size -= 1
    return b"x" * size


def filling(writer, length):
    """Write one message whose frame takes exactly `length` bytes, behind a pad if need be."""
    before = writer.end
    assert write(writer, sized(length))
    assert writer.end - length in (before, -(-before // RING) * RING)


def read(reader, end, first=None):
    got = reader.next_frame(end, first)
    assert got is not None
    return got


def file_bytes(fd):
    return os.fstat(fd).st_size


def start_of_ring():
    return w.ring_start(w.OPEN_ENTRIES_DEFAULT)


# Writing and reading.


def test_a_frame_is_read_up_to_the_end_and_not_beyond(attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    assert write(writer, b"a", None)
    published = writer.end
    assert write(writer, b"unpublished")
    assert reader.next_frame(0, 0) is None
    got = read(reader, published, 0)
    assert (got.first, got.count, got.values) == (0, 2, [b"a", None])
    reader.release(got)
    assert reader.next_frame(published, 2) is None


def test_reading_again_without_releasing_gives_the_same_frame(attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    write(writer, b"a")
    assert read(reader, writer.end, 0) == read(reader, writer.end, 0)


def test_numbers_go_on_from_frame_to_frame(attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    write(writer, b"a", b"b")
    write(writer, b"c")
    reader.release(read(reader, writer.end, 0))
    assert read(reader, writer.end, 2).first == 2
    assert writer.end_number == 3


def test_a_frame_with_another_number_stops_the_lane(attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    write(writer, b"a")
    with pytest.raises(RingCorrupt, match="expected 1"):
        reader.next_frame(writer.end, 1)


def test_an_end_that_cuts_a_frame_stops_the_lane(attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    write(writer, b"a")
    for end in range(1, writer.end):
        with pytest.raises(RingCorrupt):
            reader.next_frame(end, 0)


def test_a_lane_closes_after_damage_while_the_error_is_handled(fd):
    """The traceback holds the decoder's frames, and with them views of the map."""
    writer = LaneWriter(fd, 0, 0)
    reader = LaneReader(fd)
    write(writer, b"a")
    writer._map.bytes_[start_of_ring() + head_bytes(1) + 8] ^= 0xFF
    try:
        reader.next_frame(writer.end, 0)
    except RingCorrupt:
        reader.close()
    else:
        pytest.fail("the damage was not noticed")
    writer.close()


# Space.


def test_a_full_ring_takes_nothing_until_something_is_released(attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    for _ in range(4):
        filling(writer, RING // 4)
    assert writer.free_bytes() == 0
    assert not write(writer, b"")
    got = read(reader, writer.end, 0)
    assert not write(writer, b"")  # read, but not yet released
    reader.release(got)
    assert writer.free_bytes() == RING // 4
    assert write(writer, b"")


def test_a_frame_that_fits_up_to_the_last_byte_needs_no_pad(attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    for expected in range(8):
        filling(writer, RING // 4)
        got = read(reader, writer.end, expected)
        assert got.length == RING // 4
        reader.release(got)
    assert writer.end == reader.position == 2 * RING


@pytest.mark.parametrize("tail", range(frame.ALIGN, RING // 4, 5 * frame.ALIGN))
def test_what_is_left_at_the_rings_end_is_padded(attach, tail):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    for length in (RING // 2, RING // 2 - tail):
        filling(writer, length)
        reader.release(read(reader, writer.end))
        reader.cursor_word[0] += 1
    filling(writer, RING // 4)
    assert writer.end == RING + RING // 4
    got = read(reader, writer.end, 2)
    assert got.first == 2
    assert reader.words[w.RELEASED] == RING - tail  # the pad is released with its frame
    reader.release(got)
    assert reader.words[w.RELEASED] == writer.end


def test_a_pad_needs_room_too(attach):
    """There is room for the frame at the ring's start, but not for the frame and its pad."""
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    filling(writer, RING // 2 - frame.ALIGN)
    filling(writer, RING // 4)
    reader.release(read(reader, writer.end, 0))
    before = writer.end
    assert writer.free_bytes() == 3 * RING // 4
    assert not write(writer, sized(RING // 2))
    assert writer.end == before
    filling(writer, RING // 2 - frame.ALIGN)
    assert writer.free_bytes() == 0


def test_a_pad_that_does_not_end_the_ring_stops_the_lane(attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    writer._copy(start_of_ring(), frame.encode_pad(frame.ALIGN))
    with pytest.raises(RingCorrupt, match="does not end the ring"):
        reader.next_frame(4 * frame.ALIGN, 0)


def test_an_empty_lane_takes_half_a_ring_wherever_its_end_lies(attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    for number in range(3 * RING // frame.ALIGN // 5):
        filling(writer, RING // 2 if number % 2 else 5 * frame.ALIGN)
        reader.release(read(reader, writer.end, number))


def test_nothing_is_overwritten_before_it_is_released(attach, monkeypatch):
    """While the reader decodes, the fetcher writes as much as it can."""
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    values = [b"%d" % n * 200 for n in range(3)]
    filling(writer, RING // 2)
    reader.release(read(reader, writer.end, 0))
    write(writer, *values)
    end = writer.end

    def flooded(*args):
        while write(writer, b"flood" * 100):
            assert writer.end < end + RING
        return frame.decode_payload(*args)

    monkeypatch.setattr(lane, "decode_payload", flooded)
    assert read(reader, end, 1).values == values
    assert writer.end > end


# Regions.


LARGE = b"L" * (3 * RING)


def test_a_message_larger_than_the_ring_passes(fd, attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    small = file_bytes(fd)
    assert write(writer, b"before")
    assert write(writer, LARGE)
    assert write(writer, b"after")
    assert file_bytes(fd) >= small + len(LARGE)
    for number, value in enumerate([b"before", LARGE, b"after"]):
        got = read(reader, writer.end, number)
        assert got.values == [value]
        reader.release(got)


def test_half_a_ring_goes_inline_and_one_byte_more_to_a_region(fd, attach):
    writer = attach(LaneWriter, 0, 0)
    small = file_bytes(fd)
    filling(writer, RING // 2)
    assert file_bytes(fd) == small
    assert write(writer, sized(RING // 2) + b"x")
    assert file_bytes(fd) > small


def test_there_is_one_region_at_a_time_and_it_is_given_back(fd, attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    small = file_bytes(fd)
    assert write(writer, LARGE)
    assert not write(writer, LARGE)
    got = read(reader, writer.end, 0)
    assert not write(writer, LARGE)
    assert write(writer, b"small ones pass")
    assert file_bytes(fd) > small
    reader.release(got)
    assert write(writer, b"next")
    assert file_bytes(fd) == small
    assert write(writer, LARGE)


def test_a_successor_keeps_the_region_until_it_is_released(fd, attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    small = file_bytes(fd)
    write(writer, LARGE)
    successor = attach(LaneWriter, writer.end, writer.end_number)
    assert not write(successor, LARGE)
    got = read(reader, writer.end, 0)
    assert got.values == [LARGE]
    reader.release(got)
    assert write(successor, b"next")
    assert file_bytes(fd) == small


def test_a_region_that_was_never_published_is_given_back(fd, attach):
    """Also by the successor of a fetcher that had published nothing at all (end 0)."""
    small = file_bytes(fd)
    write(attach(LaneWriter, 0, 0), LARGE)
    assert file_bytes(fd) > small
    successor = attach(LaneWriter, 0, 0)
    assert write(successor, b"small")
    assert file_bytes(fd) == small


def test_a_region_that_is_gone_or_too_small_stops_the_lane(fd, attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    small = file_bytes(fd)
    write(writer, LARGE)
    for size in (small, small + w.PAGE):
        os.ftruncate(fd, size)
        with pytest.raises(RingCorrupt, match="points to a region"):
            reader.next_frame(writer.end, None)


def test_damage_in_a_region_is_refused_or_stays_inside_the_frame(fd, attach):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    small = file_bytes(fd)
    write(writer, LARGE)
    for place in range(small, small + 24):
        (byte,) = os.pread(fd, 1, place)
        for bit in range(8):
            os.pwrite(fd, bytes([byte ^ 1 << bit]), place)
            try:
                got = read(reader, writer.end, 0)
            except RingCorrupt:
                continue
            assert (got.first, got.count, len(got.keys), len(got.values)) == (0, 1, 1, 1)
        os.pwrite(fd, bytes([byte]), place)
    assert read(reader, writer.end, 0).values == [LARGE]


# Successors of a processor.


@pytest.mark.parametrize("taken", range(4))
def test_a_successor_gets_the_frame_that_its_predecessor_had_in_hand(attach, taken):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    write(writer, b"released")
    reader.release(read(reader, writer.end, 0))
    write(writer, b"a", b"b", b"c")
    read(reader, writer.end, 1)
    reader.cursor_word[0] = 1 + taken
    got = read(attach(LaneReader), writer.end, None)
    assert (got.first, got.count) == (1, 3)


@pytest.mark.parametrize("cursor", [0, 5, 2**40])
def test_a_successor_refuses_a_frame_that_the_cursor_is_not_in(attach, cursor):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    write(writer, b"released")
    reader.release(read(reader, writer.end, 0))
    write(writer, b"a", b"b", b"c")
    reader.cursor_word[0] = cursor
    with pytest.raises(RingCorrupt, match=f"cursor {cursor} is not in"):
        attach(LaneReader).next_frame(writer.end, None)


def entry(number, state=lane.OPEN_PARKED):
    return number << 3 | state


def test_the_open_table_counts_below_the_cursor_only(attach):
    control, reader = attach(LaneControl), attach(LaneReader)
    for place, number in enumerate([4, 0, 2, 3]):
        reader.words[w.OPEN_TABLE + place + 7] = entry(number)
    assert control.open_numbers(0) == []
    assert control.open_numbers(3) == [0, 2]
    assert control.open_numbers(4) == [0, 2, 3]
    assert control.open_numbers(5) == [0, 2, 3, 4]


def test_the_whole_open_table_is_read_and_nothing_behind_it(fd, attach):
    control, reader = attach(LaneControl), attach(LaneReader)
    last = w.OPEN_TABLE + w.OPEN_ENTRIES_DEFAULT - 1
    reader.words[last] = entry(6)
    reader.words[last + 1] = entry(7)  # not part of this lane's table
    assert control.open_numbers(100) == [6]


def test_a_successor_voids_what_was_entered_but_not_taken(attach):
    """The predecessor was killed between writing the entry and moving the cursor."""
    control, reader = attach(LaneControl), attach(LaneReader)
    reader.cursor_word[0] = 5
    for place, number in enumerate([3, 5, 4, 9]):
        reader.words[w.OPEN_TABLE + place] = entry(number)
    reader.words[w.OPEN_TABLE + w.OPEN_ENTRIES_DEFAULT - 1] = entry(6)
    attach(LaneReader).adopt()
    assert control.open_numbers(2**60) == [3, 4]


def test_at_the_end_of_its_frame_a_processor_has_no_message_in_hand(attach):
    """What lies behind the frame may be published after the death: it is nobody's doing."""
    control, reader = attach(LaneControl), attach(LaneReader)
    reader.words[w.STATE] = 3
    reader.cursor_word[0] = 2
    assert control.in_frame
    reader.cursor_word[0] = 3
    assert not control.in_frame


def test_a_successor_starts_outside_a_frame_and_awake(attach):
    control, reader = attach(LaneControl), attach(LaneReader)
    writer = attach(LaneWriter, 0, 0)
    reader.words[w.STATE], reader.words[w.SLEEPING] = 1, 1
    assert control.in_frame
    assert writer.sleeping
    attach(LaneReader).adopt()
    assert not control.in_frame
    assert not writer.sleeping


# The coordinator's words.


def test_blame_reaches_the_next_processor(attach):
    control, reader = attach(LaneControl), attach(LaneReader)
    assert reader.attempts() == control.blamed() == (-1, 0)
    control.blame(0, 2)
    assert reader.attempts() == control.blamed() == (0, 2)
    control.blame(2**50, 1)
    assert reader.attempts() == (2**50, 1)


def test_a_half_written_blame_is_no_blame_of_another_message(attach):
    control, reader = attach(LaneControl), attach(LaneReader)
    control.blame(5, 3)
    for stores in range(3):
        watch(control, Steps(kill_at=stores))
        with pytest.raises(Killed):
            control.blame(6, 1)
        assert reader.attempts() in [(5, 3), (5, 0), (6, 0)]


def test_skipped_epochs_reach_the_next_processor(attach):
    control, reader = attach(LaneControl), attach(LaneReader)
    assert reader.skipped_epochs() == frozenset()
    control.skip({9, 2**63, 4})
    assert reader.skipped_epochs() == {4, 9, 2**63}
    control.skip([])
    assert reader.skipped_epochs() == frozenset()


def test_too_many_skipped_epochs_never_run_into_the_cursor(attach):
    control, reader = attach(LaneControl), attach(LaneReader)
    control.skip(range(1, w.SKIP_LIMIT + 1))
    assert reader.skipped_epochs() == set(range(1, w.SKIP_LIMIT + 1))
    with pytest.raises(InternalError, match="1017 epochs"):
        control.skip(range(w.SKIP_LIMIT + 1))
    assert reader.cursor == 0


def test_counters_and_histogram_are_those_that_the_processor_wrote(attach):
    control, reader = attach(LaneControl), attach(LaneReader)
    for value, word in enumerate(lane.COUNTERS.values(), 1):
        reader.words[word] = value
    assert list(control.counters().values()) == list(range(1, len(lane.COUNTERS) + 1))
    reader.words[w.HISTOGRAM] = 3
    reader.words[w.HISTOGRAM + w.HISTOGRAM_BUCKETS - 1] = 4
    assert control.histogram() == [3] + [0] * (w.HISTOGRAM_BUCKETS - 2) + [4]
    reader.words[w.HEARTBEAT] = 7
    assert control.heartbeat == 7


def test_the_coordinator_maps_the_control_pages_only(attach):
    control = attach(LaneControl)
    assert len(control._map.bytes_) == start_of_ring()


# Kills inside one write.


@pytest.mark.parametrize("published", [[], [b"published"]])
@pytest.mark.parametrize("value", [b"inline", LARGE], ids=["inline", "region"])
@pytest.mark.parametrize("kill_at", range(12))
def test_a_write_killed_at_any_store_leaves_what_was_there(attach, kill_at, value, published):
    writer, reader = attach(LaneWriter, 0, 0), attach(LaneReader)
    filling(writer, RING // 2 - frame.ALIGN)
    filling(writer, RING // 2)  # so that a pad comes next
    for number in range(2):
        reader.release(read(reader, writer.end, number))
    for text in published:
        write(writer, text)
    end, number = writer.end, writer.end_number
    steps = Steps(kill_at)
    watch(writer, steps)
    try:
        with watched_regions(steps):
            write(writer, value)
    except Killed:
        assert steps.done == kill_at
    else:
        # Two for each copy: a pad, the head, three columns; and one to make the region.
        assert steps.done == (0 if published else 2) + 8 + (value is LARGE)
    successor = attach(LaneWriter, end, number)
    got = reader.next_frame(end, 2)
    assert (got.values if got else []) == published
    if got is not None:
        reader.release(got)
    assert write(successor, value)
    assert read(reader, successor.end, number).values == [value]
