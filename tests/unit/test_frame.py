import zlib
from array import array

import pytest

from kqmp.errors import RingCorrupt
from kqmp.ring import frame as f

SECTIONS = [f.Section(9, 0, 4, 2), f.Section(8, 1, 0, 1)]
OFFSETS = array("q", [10, 12, 2**62])
KEYS = [None, b"", b"key"]
VALUES = [b"value", None, b""]
STAMPS = array("q", [1_700_000_000_000, -1, 0])
HEADERS = [None, [], [("a", b"1"), ("a", None), ("ä", b"")]]


def whole(first=5, *, stamps=True, headers=True, sections=SECTIONS):
    """Return the bytes of a frame, padded as in the ring."""
    payload = f.encode_payload(
        OFFSETS,
        KEYS,
        VALUES,
        (STAMPS, bytes([1, 0, 2])) if stamps else None,
        HEADERS if headers else None,
    )
    data = f.encode_head(first, 3, sections, payload) + b"".join(payload.parts)
    return bytearray(data.ljust(f.align(len(data)), b"\xa5"))


def decode(data, first=5):
    view = memoryview(data)
    head = f.decode_head(view, first)
    start = f.head_bytes(len(head.sections))
    return f.decode_payload(head, view[start : start + head.payload_bytes])


def resigned(data, change):
    """Let `change` alter the header and give it a checksum that fits again."""
    change(data)
    section_count = int.from_bytes(data[28:32], "little")
    data[4:8] = zlib.crc32(data[8 : f.head_bytes(section_count)]).to_bytes(4, "little")
    return data


def test_a_frame_comes_back_as_it_was():
    got = decode(whole())
    assert (got.first, got.count, got.sections) == (5, 3, SECTIONS)
    assert list(got.offsets) == list(OFFSETS)
    assert got.keys == KEYS
    assert got.values == VALUES
    assert list(got.timestamps) == list(STAMPS)
    assert list(got.timestamp_types) == [1, 0, 2]
    assert got.headers == HEADERS


def test_columns_that_nobody_asked_for_are_not_built():
    got = decode(whole(stamps=False, headers=False))
    assert got.timestamps is got.timestamp_types is got.headers is None
    assert len(whole(stamps=False, headers=False)) < len(whole())


def test_the_length_is_what_it_takes_in_the_ring():
    data = whole()
    assert decode(data).length == len(data)
    assert len(data) % f.ALIGN == 0


def test_a_decoded_frame_keeps_nothing_of_the_ring():
    data = whole()
    got = decode(data)
    data[:] = bytes(len(data))
    assert (got.keys, got.values, got.headers) == (KEYS, VALUES, HEADERS)
    assert list(got.offsets) == list(OFFSETS)
    assert list(got.timestamp_types) == [1, 0, 2]


def test_any_first_number_is_taken_where_none_is_expected():
    assert decode(whole(first=5), first=None).first == 5


@pytest.mark.parametrize("expected", [0, 4, 6])
def test_a_frame_with_another_number_is_refused(expected):
    with pytest.raises(RingCorrupt, match=f"from 5.*expected {expected}"):
        decode(whole(first=5), first=expected)


def test_a_frame_does_not_count_more_than_its_sections():
    def one_more(data):
        data[24:28] = (4).to_bytes(4, "little")

    with pytest.raises(RingCorrupt, match="frame of 4 messages"):
        decode(resigned(whole(), one_more))


def test_columns_must_hold_the_frames_count():
    """A section table for two messages over columns of three."""
    sections = [f.Section(9, 0, 4, 2)]
    payload = f.encode_payload(array("q", [1, 2]), [b"k"] * 3, [b"v"] * 3)
    data = f.encode_head(0, 2, sections, payload) + b"".join(payload.parts)
    with pytest.raises(RingCorrupt, match=r"\[3, 3\] entries, not 2"):
        decode(data.ljust(f.align(len(data))), first=0)


def test_an_empty_headers_column_is_not_taken_for_three_messages():
    payload = f.encode_payload(OFFSETS, KEYS, VALUES, None, [])
    data = f.encode_head(5, 3, SECTIONS, payload) + b"".join(payload.parts)
    with pytest.raises(RingCorrupt, match="entries, not 3"):
        decode(data.ljust(f.align(len(data))))


def test_a_header_name_that_is_no_text_is_refused():
    """It is payload, but must not reach the processor as a UnicodeDecodeError."""
    data = whole()
    place = data.rindex("ä".encode())
    data[place] ^= 0x40
    with pytest.raises(RingCorrupt, match="column of frame 5 is damaged"):
        decode(data)


def test_the_columns_must_fill_the_payload_exactly():
    data = whole()
    view = memoryview(data)
    head = f.decode_head(view, 5)
    start = f.head_bytes(2)
    for size in (0, head.payload_bytes - 1, head.payload_bytes + 1):
        with pytest.raises(RingCorrupt, match="do not fill"):
            f.decode_payload(head, view[start : start + size])


@pytest.mark.parametrize("size", [0, 1, 15, 16, 79])
def test_too_few_bytes_for_a_header_are_refused(size):
    view = memoryview(whole())[:size]
    with pytest.raises(RingCorrupt, match="too few"):
        f.decode_head(view, 5)


@pytest.mark.parametrize("size", range(16))
def test_too_few_bytes_for_a_pad_are_refused(size):
    with pytest.raises(RingCorrupt, match="too few"):
        f.pad_length(memoryview(f.encode_pad(64))[:size])


@pytest.mark.parametrize("length", [64, 128, 4096, 2**40])
def test_a_pad_says_its_length_and_a_frame_is_none(length):
    assert f.pad_length(memoryview(f.encode_pad(length))) == length
    assert f.pad_length(memoryview(whole())) == 0


def test_a_pad_is_no_frame():
    with pytest.raises(RingCorrupt, match="magic"):
        f.decode_head(memoryview(f.encode_pad(128).ljust(128)), 5)


def test_every_flipped_bit_of_a_pad_is_refused_by_one_of_the_two():
    pad = bytearray(f.encode_pad(128).ljust(128, b"\0"))
    for bit in range(16 * 8):
        pad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RingCorrupt):
            f.pad_length(memoryview(pad)) or f.decode_head(memoryview(pad), 5)
        pad[bit // 8] ^= 1 << bit % 8


def test_a_payload_in_a_region_leaves_the_head_alone_in_the_ring():
    payload = f.encode_payload(OFFSETS, KEYS, VALUES)
    data = f.encode_head(5, 3, SECTIONS, payload, region_offset=1 << 20)
    head = f.decode_head(memoryview(data.ljust(f.align(len(data)))), 5)
    assert head.length == f.align(f.head_bytes(2))
    assert (head.region_offset, head.payload_bytes) == (1 << 20, payload.size)
    got = f.decode_payload(head, memoryview(b"".join(payload.parts)))
    assert got.values == VALUES


def test_a_head_that_ends_after_the_view_is_refused():
    data = whole()
    for size in range(f.HEADER_BYTES, len(data)):
        with pytest.raises(RingCorrupt):
            f.decode_head(memoryview(data)[:size], 5)


@pytest.mark.parametrize(("size", "aligned"), [(0, 0), (1, 64), (64, 64), (65, 128)])
def test_sizes_are_rounded_up(size, aligned):
    assert f.align(size) == aligned
