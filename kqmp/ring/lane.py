"""A lane: the ring of frames from one fetcher to one processor, and its control words.

Three views of the same memory, one per process, so that who may write what shows in the type:
`LaneControl` (coordinator; maps the control pages only), `LaneWriter` (fetcher), `LaneReader`
(processor). Positions are bytes, monotonic; numbers count the lane's messages from 0.
"""

import mmap
import os
from collections.abc import Iterable
from typing import Final

from kqmp.errors import InternalError, RingCorrupt
from kqmp.ring import words as w
from kqmp.ring.frame import (
    ALIGN,
    Frame,
    Payload,
    Section,
    align,
    decode_head,
    decode_payload,
    encode_head,
    encode_pad,
    head_bytes,
    pad_length,
)

#: Counter name -> word, all written by the processor; the coordinator adds them up.
COUNTERS: Final = {
    "handled": w.HANDLED,
    "failed": w.FAILED,
    "set_aside": w.SET_ASIDE,
    "skipped": w.SKIPPED,
    "retried": w.RETRIED,
    "timed_count": w.TIMED_COUNT,
    "timed_ns": w.TIMED_NS,
}
#: States of an open-table entry (message number << 3 | state).
OPEN_RUNNING: Final = 1
OPEN_PARKED: Final = 2


def create(ring_bytes: int, open_entries: int = w.OPEN_ENTRIES_DEFAULT) -> int:
    """Create the memory of a lane and return its descriptor. Called by the coordinator.

    Args:
        ring_bytes: size of the frame ring, a multiple of the page size.
        open_entries: 1..4096, entries of the open table.
    """
    header = {
        w.HEADER_MAGIC: w.LANE_MAGIC,
        w.HEADER_VERSION: w.LAYOUT_VERSION,
        w.HEADER_RING_BYTES: ring_bytes,
        w.HEADER_ENTRIES: open_entries,
    }
    return w.create_memory("kqmp-lane", w.ring_start(open_entries) + ring_bytes, header)


class LaneControl:
    """The coordinator's view: reads the processor's words, writes attempts and skip list."""

    __slots__ = ("_entries", "_map", "_words")

    def __init__(self, fd: int) -> None:
        """Map the control pages of the lane `fd`."""
        _, self._entries = w.read_header(fd, w.LANE_MAGIC)
        self._map = w.Mapping(fd, w.ring_start(self._entries))
        self._words = self._map.words

    @property
    def cursor(self) -> int:
        """Messages taken. Load it before `open_numbers`."""
        return self._words[w.CURSOR]

    @property
    def in_frame(self) -> bool:
        """Whether the processor has (or died with) the message at the cursor in hand."""
        return self._words[w.CURSOR] < self._words[w.STATE]

    @property
    def heartbeat(self) -> int:
        """Rises while the processor's loop turns."""
        return self._words[w.HEARTBEAT]

    def open_numbers(self, cursor: int) -> list[int]:
        """Return the ascending numbers in the open table below `cursor`; others are void."""
        table = self._words[w.OPEN_TABLE : w.OPEN_TABLE + self._entries]
        if not any(table):
            return []
        return sorted(entry >> 3 for entry in table if entry and entry >> 3 < cursor)

    def counters(self) -> dict[str, int]:
        """Return the processor's counters; each only rises, across its successors too."""
        return {name: self._words[word] for name, word in COUNTERS.items()}

    def histogram(self) -> list[int]:
        """Return the bucket counts of the timed handler calls."""
        return self._words[w.HISTOGRAM : w.HISTOGRAM + w.HISTOGRAM_BUCKETS].tolist()

    def blame(self, number: int, attempts: int) -> None:
        """Record that message `number` has killed `attempts` processors (0 clears).

        Only while the lane has no processor: the next one reads it when it attaches.
        """
        # SAFETY: sole writer. The count goes to 0 first, so that a reader which attached early
        # could at worst see "killed nobody".
        self._words[w.ATTEMPTS_COUNT] = 0
        self._words[w.ATTEMPTS_NUMBER] = number + 1
        self._words[w.ATTEMPTS_COUNT] = attempts

    def blamed(self) -> tuple[int, int]:
        """Return (message number, attempts) of the last message that killed its processor."""
        number = self._words[w.ATTEMPTS_NUMBER]
        return (number - 1, self._words[w.ATTEMPTS_COUNT]) if number else (-1, 0)

    def skip(self, epochs: Iterable[int]) -> None:
        """Write the epochs whose messages the next processor passes over.

        Only while the lane has no processor.

        Raises:
            InternalError: more than `words.SKIP_LIMIT`; they would run into the processor's words.
        """
        listed = sorted(epochs)
        if len(listed) > w.SKIP_LIMIT:
            msg = f"{len(listed)} epochs to skip on one lane, at most {w.SKIP_LIMIT} fit"
            raise InternalError(msg)
        # SAFETY: sole writer; the count is stored last, so that a reader sees whole entries only.
        self._words[w.SKIP_COUNT] = 0
        for index, epoch in enumerate(listed):
            self._words[w.SKIP_LIST + index] = epoch
        self._words[w.SKIP_COUNT] = len(listed)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


class LaneWriter:
    """The fetcher's view: writes frames behind the published end.

    `end` and `end_number` run ahead of what is published; `DispatchWriter.publish` makes them
    count. A fetcher killed before that has written into free space only.
    """

    __slots__ = (
        "_base",
        "_fd",
        "_map",
        "_region_until",
        "_start",
        "_words",
        "end",
        "end_number",
        "ring_bytes",
    )

    def __init__(self, fd: int, end: int, end_number: int) -> None:
        """Attach to the lane `fd` at its published ends."""
        self.ring_bytes, entries = w.read_header(fd, w.LANE_MAGIC)
        self._fd = fd
        self._start = w.ring_start(entries)
        self._base = self._start + self.ring_bytes
        self._map = w.Mapping(fd, self._base)
        self._words = self._map.words
        self.end = end
        self.end_number = end_number
        #: While a region exists: the end of its frame, else None. A predecessor's region counts as
        #: in use until everything it published is released.
        self._region_until = end if os.fstat(fd).st_size > self._base else None

    @property
    def cursor(self) -> int:
        """Messages taken by the processor."""
        return self._words[w.CURSOR]

    @property
    def outstanding(self) -> int:
        """Messages written that the processor has not finished."""
        return self.end_number - self.cursor

    @property
    def sleeping(self) -> bool:
        """Whether the processor waits on its doorbell (or is about to)."""
        return self._words[w.SLEEPING] == 1

    def free_bytes(self) -> int:
        """Return the bytes that may be written now."""
        return self.ring_bytes - (self.end - self._words[w.RELEASED])

    def write(self, sections: list[Section], count: int, payload: Payload) -> bool:
        """Write one frame behind the end, unpublished.

        A payload of more than half the ring goes to a region of its own, one at a time.

        Returns:
            False, with nothing written that counts, if there is no room at present.
        """
        self._drop_released_region()
        inline = align(head_bytes(len(sections)) + payload.size)
        if inline > self.ring_bytes // 2:
            return self._write_region(sections, count, payload)
        place = self._reserve(inline)
        if place is None:
            return False
        head = encode_head(self.end_number, count, sections, payload)
        self._copy(place, head, *payload.parts)
        self._advance(inline, count)
        return True

    def close(self) -> None:
        """Unmap."""
        self._map.close()

    def _reserve(self, length: int) -> int | None:
        """Return where `length` bytes may go, padding to the ring's start if need be."""
        index = self.end % self.ring_bytes
        tail = self.ring_bytes - index
        pad = tail if tail < length else 0
        if pad + length > self.free_bytes():
            return None
        if pad:
            # SAFETY: sole writer of the ring; readers stop at the published end, which lies
            # before this pad.
            self._copy(self._start + index, encode_pad(pad))
            self.end += pad
            index = 0
        return self._start + index

    def _copy(self, place: int, *parts: bytes) -> None:
        """Copy parts into the ring."""
        # SAFETY: sole writer of the ring, and only between the unpublished end and the released
        # position plus ring_bytes: nobody reads there until `publish`.
        view = self._map.bytes_
        for part in parts:
            view[place : place + len(part)] = part
            place += len(part)

    def _advance(self, length: int, count: int) -> None:
        self.end += length
        self.end_number += count

    def _write_region(self, sections: list[Section], count: int, payload: Payload) -> bool:
        """Write a large payload behind the ring and its head into the ring."""
        length = align(head_bytes(len(sections)))
        if self._region_until is not None or self.free_bytes() < self.ring_bytes // 2:
            return False
        place = self._reserve(length)
        if place is None:
            return False
        size = -(-payload.size // w.PAGE) * w.PAGE
        os.ftruncate(self._fd, self._base + size)
        with mmap.mmap(self._fd, size, offset=self._base) as region:
            # SAFETY: nobody maps the region before its frame is published.
            for part in payload.parts:
                region.write(part)
        self._copy(place, encode_head(self.end_number, count, sections, payload, self._base))
        self._advance(length, count)
        self._region_until = self.end
        return True

    def _drop_released_region(self) -> None:
        """Give a region's memory back once its frame was released."""
        if self._region_until is not None and self._words[w.RELEASED] >= self._region_until:
            os.ftruncate(self._fd, self._base)
            self._region_until = None


class LaneReader:
    """The processor's view: reads frames up to the published end, owns cursor and released."""

    __slots__ = (
        "_entries",
        "_fd",
        "_map",
        "_start",
        "cursor_word",
        "position",
        "ring_bytes",
        "words",
    )

    def __init__(self, fd: int) -> None:
        """Attach to the lane `fd` at its released position, after a predecessor too."""
        self.ring_bytes, self._entries = w.read_header(fd, w.LANE_MAGIC)
        self._fd = fd
        self._start = w.ring_start(self._entries)
        self._map = w.Mapping(fd, self._start + self.ring_bytes)
        self.words = self._map.words
        #: A one-word view for the handler loop, the cheapest store Python has.
        self.cursor_word = self.words[w.CURSOR : w.CURSOR + 1]
        self.position = self.words[w.RELEASED]

    @property
    def cursor(self) -> int:
        """Messages taken."""
        return self.words[w.CURSOR]

    def adopt(self) -> None:
        """Void what a predecessor left in the open table at or above the cursor.

        A predecessor killed between writing an entry and moving the cursor leaves one; it was not
        taken, so it will be read again from its frame.
        """
        cursor = self.cursor
        for index in range(w.OPEN_TABLE, w.OPEN_TABLE + self._entries):
            if self.words[index] >> 3 >= cursor:
                # SAFETY: sole writer now that the predecessor is reaped.
                self.words[index] = 0
        self.words[w.STATE] = w.STATE_OUTSIDE
        self.words[w.SLEEPING] = 0

    def attempts(self) -> tuple[int, int]:
        """Return (message number, how often it killed its processor), (-1, 0) if none."""
        number = self.words[w.ATTEMPTS_NUMBER]
        return (number - 1, self.words[w.ATTEMPTS_COUNT]) if number else (-1, 0)

    def skipped_epochs(self) -> frozenset[int]:
        """Return the epochs whose messages are passed over unrun."""
        count = min(self.words[w.SKIP_COUNT], w.SKIP_LIMIT)
        return frozenset(self.words[w.SKIP_LIST : w.SKIP_LIST + count].tolist())

    def next_frame(self, end: int, first: int | None) -> Frame | None:
        """Decode the frame at `position`, or return None when `end` is reached.

        Args:
            end: published end of this lane in bytes, as read from the dispatch memory.
            first: number that its first message must have; None for the first frame after
                attaching, which must hold the cursor (or end at it).

        Raises:
            RingCorrupt: what lies there is not that frame.
        """
        while self.position < end:
            index = self.position % self.ring_bytes
            stop = min(self.ring_bytes, index + end - self.position)
            # Released also when it raises: a view in a traceback keeps the map from closing.
            with self._map.bytes_[self._start + index : self._start + stop] as view:
                pad = pad_length(view)
                if not pad:
                    return self._frame(view, first)
            if pad % ALIGN or pad != self.ring_bytes - index:
                msg = f"a pad of {pad} bytes at {self.position} does not end the ring"
                raise RingCorrupt(msg)
            self.position += pad
        return None

    def _frame(self, view: memoryview, first: int | None) -> Frame:
        head = decode_head(view, first)
        if first is None and not head.first <= self.cursor <= head.first + head.count:
            msg = f"cursor {self.cursor} is not in the frame of {head.count} from {head.first}"
            raise RingCorrupt(msg)
        if not head.region_offset:
            start = head_bytes(len(head.sections))
            with view[start : start + head.payload_bytes] as payload:
                return decode_payload(head, payload)
        base = self._start + self.ring_bytes
        size = os.fstat(self._fd).st_size - base
        if head.region_offset != base or head.payload_bytes > size:
            wanted = head.payload_bytes
            msg = f"frame {head.first} points to a region of {wanted} bytes, it has {size}"
            raise RingCorrupt(msg)
        with (
            mmap.mmap(self._fd, size, offset=base, prot=mmap.PROT_READ) as region,
            memoryview(region) as whole,
            whole[: head.payload_bytes] as large,
        ):
            return decode_payload(head, large)

    def release(self, frame: Frame) -> None:
        """Give the bytes of `frame`, the last one read, back to the fetcher.

        Every message of it is taken and none stands in the open table.
        """
        self.position += frame.length
        # SAFETY: sole writer; the frame's columns were copied out, so that overwriting is harmless.
        self.words[w.RELEASED] = self.position

    def close(self) -> None:
        """Unmap."""
        self.cursor_word.release()
        self._map.close()
