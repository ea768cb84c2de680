"""kqmp's real roles, with what the ledger has to be told on the way."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kqmp.core.batch import Chunk, Part
from kqmp.ring import words as w
from kqmp.ring.frame import Frame
from kqmp.roles import assignment, dispatch, processor
from kqmp.roles.positions import Positions
from kqmp.roles.tree import FetcherSlot, LaneSlot
from tests.model.consumer import Consumer
from tests.model.ledger import Ledger, Message
from tests.model.world import Violation

if TYPE_CHECKING:
    from tests.model.engine import Host


class ModelPositions(Positions):
    """The real books; forced closes are told to the ledger."""

    ledger: Ledger

    def _force(self, lane: LaneSlot, epoch: int, fetcher: FetcherSlot) -> None:
        partition = fetcher.inflight._epochs[epoch].partition
        self.ledger.excuse(partition, "forced close")
        super()._force(lane, epoch, fetcher)


class ModelProcessor(processor.Processor):
    """The real processor; what it sets aside is told to the ledger."""

    host: "Host"

    def message_at_cursor(self) -> Message | None:
        """The message that a death is blamed on: its state word and its cursor say so."""
        lane, words = self._lane, self._words
        if words[w.CURSOR] >= words[w.STATE]:
            return None
        end = self._ends.end()
        while (frame := lane.next_frame(end, None)) is not None:
            if words[w.CURSOR] < frame.first + frame.count:
                return self._message_of(frame, words[w.CURSOR] - frame.first)
            lane.position += frame.length
        return None

    def _message_of(self, frame: Frame, index: int) -> Message:
        value = frame.values[index]
        assert value is not None
        return self.host.ledger.messages[int(value.split(b":")[0])]

    def _set_aside(self, frame: Frame, index: int) -> None:
        self.host.ledger.set_aside(self._message_of(frame, index), self._spec.max_attempts)
        super()._set_aside(frame, index)


class ModelDispatcher(dispatch.Dispatcher):
    """The real dispatcher; it remembers what it is writing to a lane."""

    in_writing: Sequence[Part] = ()

    def _write(self, index: int, chunk: Chunk) -> bool:
        self.in_writing = chunk.parts
        is_written = super()._write(index, chunk)
        self.in_writing = ()
        return is_written


class ModelAssignment(assignment.Assignment):
    """The real assignment; a revoke that was not answered in time is told to the ledger."""

    host: "Host"
    _dispatcher: ModelDispatcher

    def _drop(self, partitions: list[int]) -> list[int]:
        excuse_held(self.host.ledger, self._dispatcher, partitions)
        return super()._drop(partitions)

    def _await_final(self, waiting: set[int]) -> dict[int, tuple[int, int]]:
        started_s = self.host.world.now_s
        final = super()._await_final(waiting)
        consumer: Consumer = self.member._consumer  # type: ignore[assignment]
        waited_s = self.host.world.now_s - started_s
        if waiting and waited_s < self._conf.drain_timeout_ms / 1000 and not self._channel.closed:
            raise Violation(f"partitions {waiting} given up without waiting for their close")
        for partition in waiting:
            self.host.ledger.excuse(partition, "no final position", consumer.engine)
            self.host.ledger.logs[partition].fenced.add(consumer.engine)
        return final


def excuse_held(ledger: Ledger, dispatcher: ModelDispatcher, partitions: Iterable[int]) -> None:
    """What is finished above a held message repeats when it is dropped: there is no done set yet.

    Held is also what is in a lane and not published.
    """
    held = {opening.partition for bay in dispatcher._bays for opening in bay.openings()}
    held.update(opening.partition for opening in dispatcher._runs)
    held.update(opening.partition for opening, _ in dispatcher.in_writing)
    if dispatcher.pending:
        held.update(partitions)
    for partition in held.intersection(partitions):
        ledger.excuse(partition, "held messages dropped")
