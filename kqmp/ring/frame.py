"""A frame: one columnar batch of messages for one lane, as bytes.

```
header (80 bytes)  magic, crc32 of header and sections, length, first message number, count,
                   sections, lengths of the columns, region
sections           (epoch, topic id, partition, count) each; messages of one section are adjacent
offsets            count x int64, little endian
keys, values       two msgpack arrays, nil for None
timestamps         count x int64 ms, then count x uint8 type; only if a handler form asks for them
headers            msgpack array; only if a handler form asks for it
```

The columns after the section table are the *payload*: it follows the header, or lies in the lane's
region when the message is larger than half the ring. A frame never wraps; what is left at the end
of the ring is covered by a pad frame.

A reader trusts nothing: magic, checksum, length, count and numbers are checked, the arrays must
fill their place exactly and hold `count` entries of the right type. Payload bytes carry no checksum
(it would cost a tenth of the engine): a flip inside a key or a value reaches the handler.
"""

import struct
import zlib
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from kqmp.errors import RingCorrupt

FRAME_MAGIC: Final = 0x4D465251
PAD_MAGIC: Final = 0x44415051
#: Frames begin and end at multiples of this, so that a pad header always fits.
ALIGN: Final = 64

_HEADER: Final = struct.Struct("<IIQQIIQQIIQQQ")
HEADER_BYTES: Final = _HEADER.size
_PREFIX: Final = struct.Struct("<IIQ")
_CHECKED: Final = struct.Struct("<QQIIQQIIQQQ")
_SECTION: Final = struct.Struct("<QIII4x")

#: Bits of the header's column word.
COLUMN_TIMESTAMPS: Final = 1
COLUMN_HEADERS: Final = 2

#: The headers of one message: None = it has none, which is not the same as an empty list.
Headers = list[tuple[str, bytes | None]] | None

_encode = msgspec.msgpack.Encoder().encode
_decode_bytes = msgspec.msgpack.Decoder(list[bytes | None]).decode
_decode_headers = msgspec.msgpack.Decoder(list[Headers]).decode


class Section(NamedTuple):
    """Adjacent messages of one partition under one epoch."""

    epoch: int
    topic_id: int
    partition: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A decoded frame: columns of `count` entries each.

    `timestamps` (ms), `timestamp_types` and `headers` are None where no handler form asks for them.
    """

    #: The lane's number of the first message.
    first: int
    count: int
    #: Bytes it takes in the ring, a multiple of `ALIGN`.
    length: int
    sections: list[Section]
    offsets: Sequence[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps: Sequence[int] | None
    timestamp_types: Sequence[int] | None
    headers: list[Headers] | None


class Payload(NamedTuple):
    """The encoded columns of a frame, ready to be copied into a lane."""

    parts: list[bytes]
    size: int
    keys_bytes: int
    values_bytes: int
    headers_bytes: int
    columns: int


def pack_int64(numbers: Sequence[int]) -> bytes:
    """Return numbers as int64, little endian: 5 ns a number, where `array` takes 15."""
    return struct.pack(f"<{len(numbers)}q", *numbers)


def encode_payload(
    offsets: Sequence[int],
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    timestamps: tuple[Sequence[int], bytes] | None = None,
    headers: Sequence[Headers] | None = None,
) -> Payload:
    """Encode the columns of a batch. Called by the fetcher.

    Args:
        offsets: (n,) int64 ("q").
        keys: n keys.
        values: n values.
        timestamps: (n,) int64 ms and n type bytes, or None.
        headers: n header lists (None = the message has none), or None.
    """
    key_bytes, value_bytes = _encode(keys), _encode(values)
    parts = [pack_int64(offsets), key_bytes, value_bytes]
    columns = header_bytes = 0
    if timestamps is not None:
        columns |= COLUMN_TIMESTAMPS
        parts += [pack_int64(timestamps[0]), timestamps[1]]
    if headers is not None:
        columns |= COLUMN_HEADERS
        encoded = _encode(headers)
        header_bytes = len(encoded)
        parts.append(encoded)
    size = sum(map(len, parts))
    return Payload(parts, size, len(key_bytes), len(value_bytes), header_bytes, columns)


def head_bytes(section_count: int) -> int:
    """Return the bytes of header and section table."""
    return HEADER_BYTES + section_count * _SECTION.size


def align(size: int) -> int:
    """Return `size` rounded up to whole `ALIGN` units."""
    return -(-size // ALIGN) * ALIGN


def encode_head(
    first: int, count: int, sections: Sequence[Section], payload: Payload, region_offset: int = 0
) -> bytes:
    """Return header and section table of a frame; `region_offset` 0 = the payload follows."""
    table = b"".join([_SECTION.pack(*section) for section in sections])
    inline = 0 if region_offset else payload.size
    length = align(HEADER_BYTES + len(table) + inline)
    checked = _CHECKED.pack(
        length,
        first,
        count,
        len(sections),
        payload.keys_bytes,
        payload.values_bytes,
        payload.columns,
        0,
        payload.headers_bytes,
        region_offset,
        payload.size,
    )
    crc = zlib.crc32(table, zlib.crc32(checked))
    return struct.pack("<II", FRAME_MAGIC, crc) + checked + table


def encode_pad(length: int) -> bytes:
    """Return the header of a pad that covers `length` bytes up to the ring's end."""
    return _PREFIX.pack(PAD_MAGIC, zlib.crc32(struct.pack("<Q", length)), length)


def pad_length(view: memoryview) -> int:
    """Return the length of the pad at the start of `view`, or 0 if none begins there.

    Raises:
        RingCorrupt: the pad's length does not carry its checksum, or `view` is too short.
    """
    if len(view) < _PREFIX.size:
        msg = f"{len(view)} bytes are too few for a frame"
        raise RingCorrupt(msg)
    magic, crc, length = _PREFIX.unpack_from(view)
    if magic != PAD_MAGIC:
        return 0
    if crc != zlib.crc32(struct.pack("<Q", length)):
        msg = "a pad frame's checksum does not match"
        raise RingCorrupt(msg)
    return int(length)


class Head(msgspec.Struct, frozen=True, gc=False):
    """A checked header with its section table."""

    first: int
    count: int
    length: int
    sections: list[Section]
    keys_bytes: int
    values_bytes: int
    columns: int
    headers_bytes: int
    region_offset: int
    payload_bytes: int


def decode_head(view: memoryview, expected_first: int | None) -> Head:
    """Read and check the header at the start of `view` (the published bytes up to the ring's end).

    Raises:
        RingCorrupt: it is damaged, truncated, or not the frame of message `expected_first`
            (None: any).
    """
    if len(view) < HEADER_BYTES:
        msg = f"{len(view)} bytes are too few for a frame header"
        raise RingCorrupt(msg)
    (
        magic,
        crc,
        length,
        first,
        count,
        section_count,
        keys,
        values,
        columns,
        _,
        headers,
        region,
        size,
    ) = _HEADER.unpack_from(view)
    if magic != FRAME_MAGIC:
        msg = f"frame magic is {magic:#x}"
        raise RingCorrupt(msg)
    end = HEADER_BYTES + section_count * _SECTION.size
    if end > len(view) or crc != zlib.crc32(view[_PREFIX.size - 8 : end]):
        msg = "a frame header's checksum does not match"
        raise RingCorrupt(msg)
    sections = [Section(*entry) for entry in _SECTION.iter_unpack(view[HEADER_BYTES:end])]
    inline = 0 if region else size
    if (
        (expected_first is not None and first != expected_first)
        or length != align(end + inline)
        or length > len(view)
        or count != sum(section.count for section in sections)
    ):
        msg = f"frame of {count} messages from {first}, {length} bytes: expected {expected_first}"
        raise RingCorrupt(msg)
    return Head(first, count, length, sections, keys, values, columns, headers, region, size)


def decode_payload(head: Head, view: memoryview) -> Frame:
    """Decode the columns of a checked head from `view`, exactly its payload. Copies everything.

    Raises:
        RingCorrupt: lengths or array framing do not fit.
    """
    count = head.count
    offsets_end = count * 8
    keys_end = offsets_end + head.keys_bytes
    values_end = keys_end + head.values_bytes
    stamps_end = values_end + (9 * count if head.columns & COLUMN_TIMESTAMPS else 0)
    if stamps_end + head.headers_bytes != head.payload_bytes or len(view) != head.payload_bytes:
        msg = f"the columns of frame {head.first} do not fill its {head.payload_bytes} bytes"
        raise RingCorrupt(msg)
    try:
        keys = _decode_bytes(view[offsets_end:keys_end])
        values = _decode_bytes(view[keys_end:values_end])
        headers = _decode_headers(view[stamps_end:]) if head.columns & COLUMN_HEADERS else None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the latter from a header's name
        msg = f"a column of frame {head.first} is damaged: {error}"
        raise RingCorrupt(msg) from None
    lengths = [len(column) for column in (keys, values, headers) if column is not None]
    if any(length != count for length in lengths):
        msg = f"frame {head.first} holds columns of {lengths} entries, not {count}"
        raise RingCorrupt(msg)
    offsets = array("q")
    offsets.frombytes(view[:offsets_end])
    stamps, types = None, None
    if head.columns & COLUMN_TIMESTAMPS:
        stamps = array("q")
        stamps.frombytes(view[values_end : values_end + 8 * count])
        types = bytes(view[values_end + 8 * count : stamps_end])
    return Frame(
        head.first, count, head.length, head.sections, offsets, keys, values, stamps, types, headers
    )
