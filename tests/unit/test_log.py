import os
from array import array
from itertools import islice, product

import pytest

from kqmp.errors import RingCorrupt
from kqmp.ring import log
from kqmp.ring import words as w
from kqmp.ring.log import NOTHING_HELD, DispatchReader, DispatchWriter, EndsReader, Run, Touched
from tests.support.rig import Rig
from tests.support.stores import Killed, Steps

LANES = 2
LOG = w.PAGE


@pytest.fixture
def fd():
    fd = log.create(LANES, LOG)
    yield fd
    os.close(fd)


@pytest.fixture
def attach(fd):
    owners = []

    def attach(kind, *args):
        owners.append(kind(fd, *args))
        return owners[-1]

    yield attach
    for owner in owners:
        owner.close()


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.close()


def touched(number, size=2):
    offsets = array("q", range(number, number + size)).tobytes()
    return [Touched(number, 0, 3, number + size, NOTHING_HELD, [Run(1, number, offsets)])]


def ends_of(number):
    """Lane ends that name the record they belong to, in every word."""
    return [number * 100 + word for word in range(2 * LANES)]


def publish(writer, size=2):
    number = writer.dispatched + 1
    return writer.publish(log.encode_record(touched(number, size)), ends_of(number))


def fill(writer, size=2):
    """Publish until there is no room."""
    begin = writer.dispatched
    while publish(writer, size):
        assert writer.dispatched - begin < LOG // 16, "more than a log can hold"


def test_a_record_comes_back_with_all_it_says(attach):
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    record = [
        Touched(2**64 - 1, 9, 0, 2**63 - 1, 17, [Run(0, 5, b"\1" * 16), Run(1, 2**60, b"\2" * 8)]),
        Touched(1, 0, 2**31, 12, NOTHING_HELD, []),
    ]
    assert reader.read() == []
    assert writer.publish(log.encode_record(record), [1, 2, 3, 4])
    assert reader.read() == [record]
    assert reader.read() == []


def test_a_batch_whose_messages_were_all_dropped_still_publishes(attach):
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    assert writer.publish(log.encode_record([]), [0] * 2 * LANES)
    assert reader.read() == [[]]


def test_publishing_shows_the_ends_to_everyone(attach):
    writer = attach(DispatchWriter)
    reader, ends = attach(DispatchReader), [attach(EndsReader, i) for i in range(LANES)]
    assert [end.end() for end in ends] == reader.end_numbers() == [0, 0]
    for number in range(1, 4):
        assert publish(writer)
        assert reader.end_numbers() == ends_of(number)[1::2]
        assert [end.end() for end in ends] == ends_of(number)[::2]
        flat = ends_of(number)
        assert writer.lane_ends() == list(zip(flat[::2], flat[1::2], strict=True))


def test_processors_cannot_write_to_it(attach):
    ends = attach(EndsReader, 0)
    with pytest.raises(TypeError):
        ends._map.words[w.DISPATCHED] = 1


# Space.


def test_a_full_log_publishes_nothing_until_the_coordinator_has_read(attach):
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    fill(writer)
    full = writer.dispatched
    assert full > 20
    assert reader.words[w.DISPATCHED] == full
    assert not publish(writer)
    assert reader.end_numbers() == ends_of(full)[1::2]
    assert reader.read() == [touched(number) for number in range(1, full + 1)]
    assert publish(writer)
    assert reader.read() == [touched(full + 1)]


@pytest.mark.parametrize("step", range(1, 60, 7))
def test_what_room_promises_is_taken_and_nothing_unread_is_lost(attach, step):
    """Records of every size, also ones that fill the log to its last byte, at every place in it."""
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    unread = []
    empty = len(log.encode_record(touched(1, 0)))
    for turn in range(400):
        room = writer.room()
        count = max(0, (room - empty - 12) // 8)
        count = count if turn % 3 == 0 else min(count, turn * step % 61)
        record = touched(writer.dispatched + 1, count)
        body = log.encode_record(record)
        fits = len(body) <= room
        assert writer.publish(body, ends_of(1)) == fits
        if fits:
            unread.append(record)
        if not fits or turn % 11 == 0:
            assert reader.read() == unread
            unread.clear()
    assert reader.read() == unread
    assert writer.log_end > 3 * LOG


def test_an_empty_log_takes_half_of_it_wherever_its_end_lies(attach):
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    for turn in range(200):
        assert writer.room() >= LOG // 2 - 32
        size = 250 if turn % 2 else turn % 7
        assert publish(writer, size)
        assert len(log.encode_record(touched(turn + 1, 250))) > LOG // 2 - 64
        assert reader.read() == [touched(turn + 1, size)]


def test_a_record_larger_than_the_log_is_refused_and_harmless(attach):
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    assert not publish(writer, LOG)
    assert writer.dispatched == 0
    assert reader.read() == []
    assert publish(writer)
    assert reader.read() == [touched(1)]


def test_records_count_only_after_they_were_read(attach, monkeypatch):
    """While the coordinator reads, the fetcher publishes as much as it can."""
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    fill(writer)
    full = writer.dispatched
    decode = log._decode

    def flooded(body):
        fill(writer, 9)
        return decode(body)

    monkeypatch.setattr(log, "_decode", flooded)
    assert reader.read() == [touched(number) for number in range(1, full + 1)]
    assert writer.dispatched == full
    assert publish(writer)


def test_a_record_published_during_the_read_is_read_too(attach, monkeypatch):
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    publish(writer)
    decode = log._decode

    def one_more(body):
        if writer.dispatched < 3:
            publish(writer)
        return decode(body)

    monkeypatch.setattr(log, "_decode", one_more)
    assert reader.read() == [touched(1), touched(2), touched(3)]


# Successors.


@pytest.mark.parametrize("unread", range(0, 60, 3))
def test_a_successor_overwrites_nothing_that_is_not_counted(fd, attach, unread):
    """It does not know where they lie: none is overwritten before all are counted."""
    predecessor, reader = attach(DispatchWriter), attach(DispatchReader)
    for _ in range(30):
        publish(predecessor)
        reader.read()
    while predecessor.dispatched < 30 + unread and publish(predecessor):
        pass
    successor = attach(DispatchWriter)
    assert successor.dispatched == predecessor.dispatched
    fill(successor)
    records = [touched(number) for number in range(31, successor.dispatched + 1)]
    assert reader.read() == records
    assert publish(successor)
    assert reader.read() == [touched(successor.dispatched)]


def test_a_successor_goes_on_at_the_published_ends(attach):
    predecessor = attach(DispatchWriter)
    for _ in range(3):
        publish(predecessor)
    successor = attach(DispatchWriter)
    assert successor.lane_ends() == predecessor.lane_ends()
    assert (successor.dispatched, successor.log_end) == (3, predecessor.log_end)


# The two slots.


class LoadView:
    """A memoryview whose every load of a word may let the writer do some stores before it."""

    def __init__(self, words, before_load):
        self.words = words
        self.before_load = before_load

    def __getitem__(self, key):
        if isinstance(key, int):
            self.before_load()
            return self.words[key]
        return Loads(self, key)


class Loads:
    def __init__(self, view, key):
        self.view = view
        self.key = key

    def tolist(self):
        return [self.view[i] for i in range(self.key.start, self.key.stop)]


class StoreList:
    """Keeps the stores to words instead of doing them (its own loads see what was there)."""

    def __init__(self, words):
        self.words = words
        self.stores = []

    def __getitem__(self, key):
        return self.words[key]

    def __setitem__(self, key, value):
        self.stores.append((key, value))


RECORDS = 3


@pytest.fixture
def publishing(fd, attach):
    """Return (words before, the stores of `RECORDS` publications, one by one)."""
    writer, coordinator = attach(DispatchWriter), attach(DispatchReader)
    for _ in range(2):
        publish(writer)
    coordinator.read()
    before = array("Q", bytes(os.pread(fd, w.log_start(LANES), 0)))
    stores = StoreList(before)
    writer.words, real = stores, writer.words
    for _ in range(RECORDS):
        assert publish(writer)
    writer.words = real
    return before, stores.stores


def test_the_publishing_store_is_the_last_of_each_record(publishing):
    _, stores = publishing
    slot_size = 1 + 2 * LANES
    assert len(stores) == RECORDS * (slot_size + 1)
    for index in range(RECORDS):
        number = 3 + index
        mine = stores[index * (slot_size + 1) : (index + 1) * (slot_size + 1)]
        assert mine[-1] == (w.DISPATCHED, number)
        start = w.SLOTS + (number & 1) * w.slot_words(LANES)
        assert [word for word, _ in mine[:-1]] == list(range(start, start + slot_size))
        assert [value for _, value in mine[1:-1]] == ends_of(number)


def read_slot(before, stores, bursts):
    """Read the slot while the writer does `bursts[n]` stores before the reader's load n."""
    words = array("Q", before)
    pending, left = iter(stores), list(bursts)
    dispatched = [words[w.DISPATCHED]]

    def before_load():
        for key, value in islice(pending, left.pop(0) if left else 0):
            words[key] = value
        dispatched.append(words[w.DISPATCHED])

    number, ends = log._stable_slot(LoadView(words, before_load), LANES, 1, 2 * LANES)
    return number, ends, dispatched


def test_a_reader_never_sees_a_mixed_slot(publishing):
    """The writer runs a burst before one load and another before a later one: all of them."""
    before, stores = publishing
    loads = 2 + 2 * LANES
    for first, second in product(range(loads), repeat=2):
        for one, other in product(range(len(stores) + 1), repeat=2):
            bursts = [0] * loads
            bursts[first] += one
            bursts[second] += other
            number, ends, dispatched = read_slot(before, stores, bursts)
            assert ends == ends_of(number)
            assert dispatched[0] <= number <= dispatched[-1]


@pytest.mark.parametrize("pace", range(1, 8))
def test_a_reader_never_sees_a_mixed_slot_of_a_steady_writer(publishing, pace):
    before, stores = publishing
    for start in range(len(stores)):
        number, ends, _ = read_slot(before, stores, [start] + [pace] * len(stores))
        assert ends == ends_of(number)


# Kills and looks between any two stores of write and publish.

SCENARIOS = {
    "inline": [(0, [b"a", None]), (1, [b""])],
    "one lane": [(1, [b"a"])],
    "two frames": [(0, [b"a"]), (0, [b"b", b"c"])],
    "region": [(0, [b"L" * 9000]), (1, [b"b"])],
    "region between": [(1, [b"a"]), (1, [b"L" * 9000]), (1, [b"c"])],
    "half a ring": [(0, [b"h" * 1800]), (1, [b"h" * 1800])],
}
#: Batches before the scenario: few enough that nothing wraps, or so many that lanes and log did.
HISTORIES = {"fresh": 0, "lapped": 60}


def lap(rig, batches):
    """Publish, handle and count `batches` times; the last record stays unread, its frames too."""
    for _ in range(batches):
        for index in range(LANES):
            assert rig.write(index, [b"history" * 10, None])
        assert rig.publish()
        rig.drain()
    assert rig.write(0, [b"unread"])
    assert rig.publish()


def perform(rig, scenario):
    for index, values in scenario:
        assert rig.write(index, values)
    assert rig.publish()


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_nothing_half_is_visible_at_any_store(rig, scenario, history):
    lap(rig, history)
    steps = Steps(look=rig.check_visible)
    rig.watch_fetcher(steps)
    perform(rig, scenario)
    rig.check_visible()
    assert steps.done > 10
    rig.go_on()


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_fetcher_killed_at_any_store_has_published_all_or_nothing(scenario, history):
    for kill_at in range(200):
        rig = Rig()
        try:
            lap(rig, history)
            before = rig.dispatched
            rig.watch_fetcher(Steps(kill_at))
            try:
                perform(rig, scenario)
            except Killed:
                assert rig.dispatched == before
            else:
                assert rig.dispatched == before + 1
                assert kill_at > 10
                break
            rig.kill_fetcher()
            rig.check_visible()
            rig.go_on()
        finally:
            rig.close()
    else:
        pytest.fail("the scenario never came to its end")


def test_successors_killed_one_after_another_lose_nothing(rig):
    lap(rig, 3)
    for kill_at in range(40):
        rig.count()
        rig.watch_fetcher(Steps(kill_at))
        try:
            perform(rig, SCENARIOS["inline"])
        except Killed:
            rig.kill_fetcher()
    rig.kill_fetcher()
    rig.go_on()


# Damage.


def damage(fd, place, value):
    os.pwrite(fd, value, w.log_start(LANES) + place)


@pytest.mark.parametrize("place", range(16))
def test_a_damaged_record_header_stops_the_log(fd, attach, place):
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    publish(writer)
    (byte,) = os.pread(fd, 1, w.log_start(LANES) + place)
    for bit in range(8):
        damage(fd, place, bytes([byte ^ 1 << bit]))
        with pytest.raises(RingCorrupt, match="record 1"):
            reader.read()
    damage(fd, place, bytes([byte]))
    assert reader.read() == [touched(1)]


def test_a_damaged_record_is_refused_or_stays_one_record(fd, attach):
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    publish(writer)
    refused = read = 0
    for bit in range(16 * 8, (16 + len(log.encode_record(touched(1)))) * 8):
        (byte,) = os.pread(fd, 1, w.log_start(LANES) + bit // 8)
        damage(fd, bit // 8, bytes([byte ^ 1 << bit % 8]))
        probe = DispatchReader(fd)
        try:
            assert len(probe.read()) == 1
            read += 1
        except RingCorrupt:
            refused += 1
        probe.close()
        damage(fd, bit // 8, bytes([byte]))
    assert refused
    assert read
    assert reader.read() == [touched(1)]


def test_a_pad_that_does_not_end_the_log_stops_it(fd, attach):
    writer, reader = attach(DispatchWriter), attach(DispatchReader)
    publish(writer)
    damage(fd, 0, log._RECORD.pack(log.PAD_MAGIC, 0, LOG - 16))
    with pytest.raises(RingCorrupt, match="record 1 at 0"):
        reader.read()


def test_the_log_closes_after_damage_while_the_error_is_handled(fd, attach):
    writer, reader = attach(DispatchWriter), DispatchReader(fd)
    publish(writer)
    damage(fd, 16, b"\xc1")
    try:
        reader.read()
    except RingCorrupt:
        reader.close()
    else:
        pytest.fail("the damage was not noticed")
