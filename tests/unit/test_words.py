import mmap
import os
import platform
from itertools import pairwise

import pytest

from kqmp.errors import RingCorrupt, WorkerStartError
from kqmp.ring import lane, log
from kqmp.ring import words as w


@pytest.fixture
def memory():
    fds = []

    def create(*args, **kwargs):
        fds.append(w.create_memory(*args, **kwargs))
        return fds[-1]

    yield create
    for fd in fds:
        os.close(fd)


HEADER = {
    w.HEADER_MAGIC: w.LANE_MAGIC,
    w.HEADER_VERSION: w.LAYOUT_VERSION,
    w.HEADER_RING_BYTES: 8192,
    w.HEADER_ENTRIES: 64,
}

#: Every word and table of one memory, with its length in words.
LANE_TABLE = {
    "header": (w.HEADER_MAGIC, 4),
    "attempts number": (w.ATTEMPTS_NUMBER, 1),
    "attempts count": (w.ATTEMPTS_COUNT, 1),
    "skip count": (w.SKIP_COUNT, 1),
    "skip list": (w.SKIP_LIST, w.SKIP_LIMIT),
    "cursor": (w.CURSOR, 1),
    "released": (w.RELEASED, 1),
    "state": (w.STATE, 1),
    "sleeping": (w.SLEEPING, 1),
    "heartbeat": (w.HEARTBEAT, 1),
    **{name: (word, 1) for name, word in lane.COUNTERS.items()},
    "histogram": (w.HISTOGRAM, w.HISTOGRAM_BUCKETS),
    "open table": (w.OPEN_TABLE, w.OPEN_ENTRIES_MAX),
    "ring": (w.ring_start(w.OPEN_ENTRIES_MAX) // 8, 1),
}
LANES = 40
DISPATCH_TABLE = {
    "header": (w.HEADER_MAGIC, 4),
    "counted": (w.COUNTED, 1),
    "dispatched": (w.DISPATCHED, 1),
    "heartbeat": (w.FETCHER_HEARTBEAT, 1),
    "fetched count": (w.FETCHED_COUNT, 1),
    "fetched bytes": (w.FETCHED_BYTES, 1),
    "dropped": (w.DROPPED_COUNT, 1),
    "paused": (w.PAUSED_COUNT, 1),
    "held": (w.HELD_COUNT, 1),
    "slot 0": (w.SLOTS, 1 + 2 * LANES),
    "slot 1": (w.SLOTS + w.slot_words(LANES), 1 + 2 * LANES),
    "log": (w.log_start(LANES) // 8, 1),
}
WRITERS_OF_LANE = {
    "coordinator": ["attempts number", "attempts count", "skip count", "skip list"],
    "processor": [
        "cursor",
        "released",
        "state",
        "sleeping",
        "heartbeat",
        *lane.COUNTERS,
        "histogram",
        "open table",
    ],
    "fetcher": ["ring"],
}


@pytest.mark.parametrize("table", [LANE_TABLE, DISPATCH_TABLE], ids=["lane", "dispatch"])
def test_no_two_words_share_a_place(table):
    places = sorted((start, start + length, name) for name, (start, length) in table.items())
    for (_, end, name), (start, _, following) in pairwise(places):
        assert end <= start, f"{name} runs into {following}"


def test_writers_never_share_a_page():
    pages = {}
    for writer, names in WRITERS_OF_LANE.items():
        for name in names:
            start, length = LANE_TABLE[name]
            for page in range(start * 8 // w.PAGE, (start + length - 1) * 8 // w.PAGE + 1):
                assert pages.setdefault(page, writer) == writer, name
    assert w.COUNTED * 8 // w.PAGE != w.DISPATCHED * 8 // w.PAGE


@pytest.mark.parametrize("polled", ["cursor", "released", "state", "sleeping", "heartbeat"])
def test_a_polled_word_has_a_cache_line_of_its_own(polled):
    line = LANE_TABLE[polled][0] // w.LINE
    on_it = [name for name, (start, _) in LANE_TABLE.items() if start // w.LINE == line]
    assert on_it == [polled]


@pytest.mark.parametrize("entries", [1, 64, 512, 513, w.OPEN_ENTRIES_MAX])
def test_the_ring_begins_on_a_page_behind_the_open_table(entries):
    start = w.ring_start(entries)
    assert start % w.PAGE == 0
    assert w.OPEN_TABLE * 8 + entries * 8 <= start < w.OPEN_TABLE * 8 + entries * 8 + w.PAGE


@pytest.mark.parametrize("lanes", [1, 255, 256, 1000])
def test_a_slot_holds_the_ends_of_every_lane_and_the_log_begins_behind_both(lanes):
    assert w.slot_words(lanes) >= 1 + 2 * lanes
    assert w.log_start(lanes) == (w.SLOTS + 2 * w.slot_words(lanes)) * 8
    assert w.log_start(lanes) % w.PAGE == 0


def test_memory_has_its_header_is_otherwise_zero_and_closes_on_exec(memory):
    fd = memory("kqmp-test", 4 * w.PAGE, HEADER)
    assert w.read_header(fd, w.LANE_MAGIC) == (8192, 64)
    content = os.pread(fd, 5 * w.PAGE, 0)
    assert len(content) == 4 * w.PAGE
    assert not any(content[4 * 8 :])
    assert not os.get_inheritable(fd)


@pytest.mark.parametrize(
    "change",
    [
        {w.HEADER_MAGIC: w.DISPATCH_MAGIC},
        {w.HEADER_MAGIC: 0},
        {w.HEADER_VERSION: w.LAYOUT_VERSION + 1},
    ],
)
def test_memory_of_another_kind_or_version_is_refused(memory, change):
    fd = memory("kqmp-test", w.PAGE, {**HEADER, **change})
    with pytest.raises(RingCorrupt, match="header is"):
        w.read_header(fd, w.LANE_MAGIC)


def test_a_lane_is_not_taken_for_dispatch_memory():
    lane_fd, dispatch_fd = lane.create(w.PAGE), log.create(1, w.PAGE)
    try:
        with pytest.raises(RingCorrupt):
            log.DispatchWriter(lane_fd)
        with pytest.raises(RingCorrupt):
            lane.LaneReader(dispatch_fd)
    finally:
        os.close(lane_fd)
        os.close(dispatch_fd)


def test_two_mappings_share_their_memory(memory):
    fd = memory("kqmp-test", 2 * w.PAGE, HEADER)
    one, other = w.Mapping(fd, 2 * w.PAGE), w.Mapping(fd, w.PAGE)
    one.words[100] = 2**64 - 1
    assert other.words[100] == 2**64 - 1
    assert other.bytes_[800:808] == b"\xff" * 8
    one.close()
    other.close()


def test_a_read_only_mapping_refuses_stores(memory):
    mapping = w.Mapping(memory("kqmp-test", w.PAGE, HEADER), w.PAGE, writable=False)
    assert mapping.words[w.HEADER_MAGIC] == w.LANE_MAGIC
    with pytest.raises(TypeError):
        mapping.words[9] = 1
    mapping.close()


def test_closing_a_mapping_unmaps_it_and_may_be_repeated(memory):
    mapping = w.Mapping(memory("kqmp-test", w.PAGE, HEADER), w.PAGE)
    inner = mapping._memory
    mapping.close()
    mapping.close()
    assert inner.closed
    with pytest.raises(ValueError, match="released"):
        mapping.words[0]


def test_memory_that_is_too_small_for_its_header_is_no_silent_success(memory):
    fd = memory("kqmp-test", w.PAGE, HEADER)
    with pytest.raises(ValueError, match="mmap length"):
        w.Mapping(fd, 2 * w.PAGE)
    assert mmap.PAGESIZE == w.PAGE


@pytest.mark.parametrize("machine", ["aarch64", "arm64", "riscv64", "i686", ""])
def test_a_machine_with_another_store_order_is_refused_with_its_name(monkeypatch, machine):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(WorkerStartError, match=f"not tested on {machine}"):
        w.require_supported_machine()


def test_the_machine_the_order_was_tested_on_is_accepted(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    w.require_supported_machine()
