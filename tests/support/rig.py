"""A fetcher, its lanes, their processors and the coordinator in one process, beside a naive model.

The model is a list of messages for each lane and a deque of log records. Whatever a reader sees is
compared with it at once. Every actor may die between two stores (`stores.Steps`) and have a
successor.
"""

import os
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple, Protocol

from kqmp.ring import lane as lanes
from kqmp.ring import log
from kqmp.ring import words as w
from kqmp.ring.frame import Frame, Section, encode_payload
from kqmp.ring.lane import OPEN_PARKED, LaneControl, LaneReader, LaneWriter
from kqmp.ring.log import NOTHING_HELD, DispatchReader, DispatchWriter, EndsReader, Run, Touched
from tests.support.stores import Steps, watch, watched_regions

EPOCH, TOPIC_ID, PARTITION = 7, 0, 3


class Closing(Protocol):
    def close(self) -> None: ...


class Sent(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None


class Processor:
    """One processor: a reader with the frame in its hands."""

    def __init__(self, rig: "Rig", index: int) -> None:
        self.rig = rig
        self.index = index
        self.reader = LaneReader(rig.lane_fds[index])
        self.reader.adopt()
        self.ends = EndsReader(rig.dispatch_fd, index)
        self.first: int | None = None
        self.frame: Frame | None = None

    def read(self) -> bool:
        """Take the next frame in hand and compare it with what was sent."""
        assert self.frame is None
        self.frame = self.reader.next_frame(self.ends.end(), self.first)
        sent = self.rig.sent[self.index]
        if self.frame is None:
            assert self.reader.cursor == len(sent)
            return False
        first, stop = self.frame.first, self.frame.first + self.frame.count
        assert first <= self.reader.cursor <= stop
        assert [Sent(*row) for row in zip(*self._columns(), strict=True)] == sent[first:stop]
        assert [s.epoch for s in self.frame.sections] == [EPOCH]
        return True

    def _columns(self) -> tuple[Sequence[int], list[bytes | None], list[bytes | None]]:
        assert self.frame is not None
        return self.frame.offsets, self.frame.keys, self.frame.values

    @property
    def untaken(self) -> int:
        """Messages of the frame in hand above the cursor."""
        if self.frame is None:
            return 0
        return self.frame.first + self.frame.count - self.reader.cursor

    def take(self, count: int) -> None:
        for _ in range(count):
            self.reader.cursor_word[0] = self.reader.cursor + 1

    def park(self) -> None:
        """Take one message and leave it open."""
        number = self.reader.cursor
        table = range(w.OPEN_TABLE, w.OPEN_TABLE + w.OPEN_ENTRIES_DEFAULT)
        place = next(i for i in table if self.reader.words[i] == 0)
        self.reader.words[place] = number << 3 | OPEN_PARKED
        self.reader.cursor_word[0] = number + 1

    def finish(self, number: int) -> None:
        """Take a parked message out of the open table."""
        table = range(w.OPEN_TABLE, w.OPEN_TABLE + w.OPEN_ENTRIES_DEFAULT)
        place = next(i for i in table if self.reader.words[i] == number << 3 | OPEN_PARKED)
        self.reader.words[place] = 0

    def release(self) -> None:
        assert self.frame is not None
        assert self.untaken == 0
        self.reader.release(self.frame)
        self.first = self.frame.first + self.frame.count
        self.frame = None

    def close(self) -> None:
        self.reader.close()
        self.ends.close()


class Rig:
    """The memory, its actors and the model."""

    def __init__(
        self, lane_count: int = 2, ring_bytes: int = w.PAGE, log_bytes: int = w.PAGE
    ) -> None:
        self.lane_fds = [lanes.create(ring_bytes) for _ in range(lane_count)]
        self.dispatch_fd = log.create(lane_count, log_bytes)
        self.file_bytes = os.fstat(self.lane_fds[0]).st_size
        self.sent: list[list[Sent]] = [[] for _ in self.lane_fds]
        self.unpublished: list[list[Sent]] = [[] for _ in self.lane_fds]
        #: Published, not yet read by the coordinator.
        self.records: deque[list[Touched]] = deque()
        #: The lane ends of each record, the one being published included.
        self.ends_of_record = [[(0, 0)] * lane_count]
        self.offset = 0
        self.controls = [LaneControl(fd) for fd in self.lane_fds]
        self.coordinator = DispatchReader(self.dispatch_fd)
        self.ends = [EndsReader(self.dispatch_fd, i) for i in range(lane_count)]
        self.processors = [Processor(self, i) for i in range(lane_count)]
        self.start_fetcher()

    # The fetcher.

    def start_fetcher(self, steps: Steps | None = None) -> None:
        """Attach a fetcher; it must find exactly what counts."""
        self.dispatch = DispatchWriter(self.dispatch_fd)
        ends = self.dispatch.lane_ends()
        assert ends == self.ends_of_record[self.dispatch.dispatched]
        assert [number for _, number in ends] == [len(sent) for sent in self.sent]
        self.writers = [LaneWriter(fd, *end) for fd, end in zip(self.lane_fds, ends, strict=True)]
        self.unpublished = [[] for _ in self.lane_fds]
        self.watch_fetcher(steps or Steps())

    def watch_fetcher(self, steps: Steps) -> None:
        self.steps = steps
        for owner in (self.dispatch, *self.writers):
            watch(owner, steps)

    def kill_fetcher(self) -> None:
        """Let the fetcher vanish and attach its successor."""
        self.dispatch.close()
        for writer in self.writers:
            writer.close()
        self.start_fetcher()

    def message(self, value: bytes | None, key: bytes | None = b"k") -> Sent:
        self.offset += 2
        return Sent(self.offset, key, value)

    def write(self, index: int, values: Sequence[bytes | None]) -> bool:
        """Write one frame, unpublished."""
        batch = [self.message(value, key) for key, value in zip(cycle_keys(), values)]  # noqa: B905
        offsets, keys, column = (list(part) for part in zip(*batch, strict=True))
        payload = encode_payload(array("q", offsets), keys, column)
        sections = [Section(EPOCH, TOPIC_ID, PARTITION, len(batch))]
        with watched_regions(self.steps):
            written = self.writers[index].write(sections, len(batch), payload)
        if written:
            self.unpublished[index] += batch
        return written

    def publish(self) -> bool:
        """Publish everything written."""
        runs = [
            Run(index, len(self.sent[index]), array("q", [m.offset for m in batch]).tobytes())
            for index, batch in enumerate(self.unpublished)
            if batch
        ]
        touched = [Touched(EPOCH, TOPIC_ID, PARTITION, self.offset + 1, NOTHING_HELD, runs)]
        ends = [(writer.end, writer.end_number) for writer in self.writers]
        self.ends_of_record.append(ends)
        body = log.encode_record(touched)
        try:
            return self.dispatch.publish(body, [word for end in ends for word in end])
        finally:
            # A kill may come after the one store that publishes: then it counts.
            if self.dispatched == len(self.ends_of_record) - 1:
                for sent, batch in zip(self.sent, self.unpublished, strict=True):
                    sent.extend(batch)
                self.unpublished = [[] for _ in self.lane_fds]
                self.records.append(touched)
            else:
                self.ends_of_record.pop()

    @property
    def dispatched(self) -> int:
        return int(self.coordinator.words[w.DISPATCHED])

    def check_visible(self) -> None:
        """What a reader sees at this very moment belongs to one record, whole."""
        ends = self.ends_of_record[self.dispatched]
        assert [reader.end() for reader in self.ends] == [end for end, _ in ends]
        assert self.coordinator.end_numbers() == [number for _, number in ends]

    # The coordinator.

    def count(self) -> None:
        """Read the log."""
        assert self.coordinator.read() == list(self.records)
        self.records.clear()

    # Processors.

    def kill_processor(self, index: int) -> None:
        self.processors[index].close()
        self.processors[index] = Processor(self, index)

    def handle_all(self, index: int) -> None:
        """Let a processor take and release whatever is there."""
        processor = self.processors[index]
        while processor.frame is not None or processor.read():
            processor.take(processor.untaken)
            processor.release()

    def drain(self) -> None:
        """Read everything to the end; the model and the memory must agree on what there is."""
        self.count()
        for index, sent in enumerate(self.sent):
            self.handle_all(index)
            assert self.controls[index].cursor == len(sent)

    def go_on(self) -> None:
        """After any death: publish on every lane, twice, and read it all."""
        for round_ in range(2):
            self.drain()
            for index in range(len(self.lane_fds)):
                assert self.write(index, [b"after %d" % round_, None, b""])
            assert self.publish()
        self.drain()

    def close(self) -> None:
        with ExitStack() as stack:
            for fd in (*self.lane_fds, self.dispatch_fd):
                stack.callback(os.close, fd)
            owners: list[Closing] = [*self.writers, *self.controls, *self.processors, *self.ends]
            for owner in (*owners, self.coordinator, self.dispatch):
                stack.callback(owner.close)


def cycle_keys():
    """Keys of every kind, again and again."""
    while True:
        yield from (b"k", None, b"")
