"""Processes of the ring's litmus test: a fetcher and processors that only move frames.

`python -m tests.support.litmus fetcher|processor DISPATCH_FD MESSAGES INDEX LANE_FD...`

What a message holds follows from its lane and its number, so that every reader can tell it. The
exit code is 0 when all messages passed.
"""

import os
import sys
from array import array
from itertools import count

from kqmp.ring import lane
from kqmp.ring import words as w
from kqmp.ring.frame import Section, encode_payload
from kqmp.ring.lane import LaneReader, LaneWriter
from kqmp.ring.log import NOTHING_HELD, DispatchWriter, EndsReader, Run, Touched, encode_record

RING_BYTES = 4 * w.PAGE
LOG_BYTES = 2 * w.PAGE
#: Every so many messages one needs a region.
LARGE_EVERY = 4099


def create_lane() -> int:
    return lane.create(RING_BYTES)


def value_of(index: int, number: int) -> bytes:
    """Return the value of a message; its length goes up and down, its bytes name it."""
    if number % LARGE_EVERY == LARGE_EVERY - 1:
        return b"%d" % number * (RING_BYTES // 4)
    return b"%d:%d " % (index, number) * (number % 23)


def body_of(lane_count: int, record: int, runs: list[Run]) -> bytes:
    return encode_record([Touched(1, 0, lane_count, record, NOTHING_HELD, runs)])


def fetcher(dispatch_fd: int, messages: int, lane_fds: list[int]) -> None:
    """Write until each lane has had `messages`, from wherever a predecessor stopped."""
    dispatch = DispatchWriter(dispatch_fd)
    writers = [LaneWriter(fd, *end) for fd, end in zip(lane_fds, dispatch.lane_ends(), strict=True)]
    while any(writer.end_number < messages for writer in writers):
        runs = []
        for index, writer in enumerate(writers):
            first = writer.end_number
            size = min(first % 7 + 1, messages - first)
            offsets = array("q", range(first, first + size))
            values = [value_of(index, number) for number in offsets]
            payload = encode_payload(offsets, [b"%d" % number for number in offsets], values)
            if size and writer.write([Section(1, 0, index, size)], size, payload):
                runs.append(Run(index, first, offsets.tobytes()))
        if not runs:
            os.sched_yield()
            continue
        body = body_of(len(writers), dispatch.dispatched + 1, runs)
        ends = [word for writer in writers for word in (writer.end, writer.end_number)]
        while not dispatch.publish(body, ends):
            os.sched_yield()


def processor(dispatch_fd: int, messages: int, index: int, lane_fd: int) -> None:
    """Read `messages`, from wherever a predecessor stopped; each must be the right one."""
    reader, ends = LaneReader(lane_fd), EndsReader(dispatch_fd, index)
    reader.adopt()
    first: int | None = None
    while reader.cursor < messages:
        frame = reader.next_frame(ends.end(), first)
        if frame is None:
            os.sched_yield()
            continue
        rows = zip(count(frame.first), frame.offsets, frame.keys, frame.values, strict=False)
        for number, offset, key, value in rows:
            wrong = (offset, key) != (number, b"%d" % number) or value != value_of(index, number)
            if wrong:
                sys.exit(f"lane {index}: message {number} is {(offset, key, value)!r:.200}")
            if number >= reader.cursor:
                reader.cursor_word[0] = number + 1
        first = frame.first + frame.count
        reader.release(frame)


def main(role: str, *numbers: str) -> None:
    dispatch_fd, messages, index, *lane_fds = map(int, numbers)
    if role == "fetcher":
        fetcher(dispatch_fd, messages, lane_fds)
    else:
        processor(dispatch_fd, messages, index, lane_fds[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
