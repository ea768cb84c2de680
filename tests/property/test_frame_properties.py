"""Frames as bytes: what goes in comes out, and damage is refused or stays inside the frame."""

from array import array
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kqmp.errors import RingCorrupt
from kqmp.ring import frame as f

U64 = 2**64 - 1
U32 = 2**32 - 1

#: Around every length at which msgpack changes the framing of an entry.
edge_sizes = st.sampled_from([0, 1, 31, 32, 255, 256, 65_535, 65_536])
small = st.none() | st.binary(max_size=12)
any_size = small | edge_sizes.map(bytes)
header_list = st.none() | st.lists(st.tuples(st.text(max_size=4), small), max_size=3)
int64 = st.integers(-(2**63), 2**63 - 1)


class Batch(NamedTuple):
    first: int
    sections: list[f.Section]
    offsets: array
    keys: list
    values: list
    stamps: tuple | None
    headers: list | None

    @property
    def count(self):
        return len(self.keys)


@st.composite
def batches(draw, entries=small, max_count=6):
    counts = draw(st.lists(st.integers(0, max_count), min_size=1, max_size=3).filter(any))
    count = sum(counts)

    def column(of):
        return draw(st.lists(of, min_size=count, max_size=count))

    sections = [
        f.Section(draw(st.integers(0, U64)), draw(st.integers(0, U32)), index, size)
        for index, size in enumerate(counts)
    ]
    stamps = None
    if draw(st.booleans()):
        stamps = array("q", column(int64)), bytes(column(st.integers(0, 255)))
    return Batch(
        draw(st.integers(0, 2**60)),
        sections,
        array("q", column(int64)),
        column(entries),
        column(entries),
        stamps,
        column(header_list) if draw(st.booleans()) else None,
    )


def encode(batch):
    payload = f.encode_payload(batch.offsets, batch.keys, batch.values, batch.stamps, batch.headers)
    data = f.encode_head(batch.first, batch.count, batch.sections, payload)
    data += b"".join(payload.parts)
    return bytearray(data.ljust(f.align(len(data)), b"\xa5"))


def decode(data, first):
    """As `LaneReader` does: a pad, or else exactly one frame."""
    view = memoryview(data)
    if f.pad_length(view):
        return None
    head = f.decode_head(view, first)
    start = f.head_bytes(len(head.sections))
    return f.decode_payload(head, view[start : start + head.payload_bytes])


@given(batches(any_size))
def test_a_frame_comes_back_as_it_was(batch):
    data = encode(batch)
    got = decode(data, batch.first)
    assert got.length == len(data)
    assert (got.first, got.count, got.sections) == (batch.first, batch.count, batch.sections)
    assert list(got.offsets) == list(batch.offsets)
    assert (got.keys, got.values) == (batch.keys, batch.values)
    assert got.headers == batch.headers
    if batch.stamps is None:
        assert got.timestamps is got.timestamp_types is None
    else:
        assert list(got.timestamps) == list(batch.stamps[0])
        assert list(got.timestamp_types) == list(batch.stamps[1])


@given(batches(), batches())
def test_a_frame_ends_before_what_follows_it(batch, following):
    data, tail = encode(batch), encode(following)
    joined = data + tail
    got = decode(joined, batch.first)
    assert got == decode(data, batch.first)
    assert decode(joined[got.length :], following.first) == decode(tail, following.first)


@given(batches(), st.integers(0, 2**60))
def test_a_frame_is_only_taken_as_the_number_it_has(batch, other):
    if other != batch.first:
        with pytest.raises(RingCorrupt):
            decode(encode(batch), other)


@settings(max_examples=60)
@given(batches())
def test_a_frame_cut_at_any_length_is_refused(batch):
    data = encode(batch)
    for size in range(len(data)):
        with pytest.raises(RingCorrupt):
            decode(data[:size], batch.first)


def decode_or_refuse(data, batch):
    """Decode damaged bytes; what comes is a frame with the same numbers, or RingCorrupt."""
    try:
        got = decode(data, batch.first)
    except RingCorrupt:
        return None
    assert (got.first, got.count) == (batch.first, batch.count)
    assert got.sections == batch.sections
    for column in got.offsets, got.keys, got.values, got.timestamps, got.headers:
        assert column is None or len(column) == batch.count
    return got


@settings(max_examples=40)
@given(batches(max_count=3))
def test_one_flipped_bit_is_refused_or_stays_inside_the_frame(batch):
    """Every bit, those of keys and values too: they may reach the handler, but as one message."""
    data = encode(batch)
    head = f.head_bytes(len(batch.sections)) * 8
    offsets = head + batch.count * 64
    whole = decode(data, batch.first)
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        got = decode_or_refuse(data, batch)
        if bit < head:
            assert got is None, f"flip of bit {bit} of the header was not noticed"
        elif bit < offsets:
            assert got is not None
            assert (got.keys, got.values) == (whole.keys, whole.values)
        data[bit // 8] ^= 1 << bit % 8
    assert decode(data, batch.first) == whole


@given(batches(any_size), st.data())
def test_bytes_that_were_overwritten_are_refused_or_stay_inside_the_frame(batch, data):
    """Not one bit but whole stretches, in the columns, where no checksum stands guard."""
    damaged = encode(batch)
    start = data.draw(st.integers(f.head_bytes(len(batch.sections)), len(damaged) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=24))[: len(damaged) - start]
    damaged[start : start + len(junk)] = junk
    decode_or_refuse(damaged, batch)


@given(st.binary(max_size=200), st.integers(0, 3))
def test_bytes_that_never_were_a_frame_are_refused(junk, first):
    with pytest.raises(RingCorrupt):
        decode(junk, first)


@given(st.lists(st.integers(1, 2**20).map(lambda n: n * f.ALIGN), min_size=2, unique=True))
def test_a_pad_covers_its_own_length_only(lengths):
    for length, other in pairwise(lengths):
        pad = f.encode_pad(length)
        assert f.pad_length(memoryview(pad)) == length
        moved = pad[:8] + f.encode_pad(other)[8:]
        with pytest.raises(RingCorrupt, match="pad"):
            f.pad_length(memoryview(moved))
