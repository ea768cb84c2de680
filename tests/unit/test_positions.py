"""The coordinator's books: what is committed when, what a final answer confirms, forced closes."""

import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kqmp.config import KqConf
from kqmp.core.batch import SPAN_MAX
from kqmp.core.inflight import Inflight, LaneState
from kqmp.ring.log import NOTHING_HELD, Run, Touched
from kqmp.ring.words import SKIP_LIMIT
from kqmp.roles import control
from kqmp.roles.coordinator import Coordinator
from kqmp.roles.positions import Positions
from kqmp.roles.tree import FetcherSlot, LaneSlot, Tree


class Engine:
    """One fetcher with one lane, none of them a process; `told` is what the fetcher was told."""

    def __init__(self, **values: Any) -> None:
        self.told: list[control.Message] = []
        self.records: list[list[Touched]] = []
        self.cursor = 0
        self.end = 0
        self.killed: list[LaneSlot] = []
        self.lane = cast(
            "LaneSlot",
            SimpleNamespace(index=0, child=None, skip={}, forced=set(), title="processor 0.0"),
        )
        self.fetcher = cast(
            "FetcherSlot",
            SimpleNamespace(
                index=0,
                member=1,
                child=object(),
                commit_sent_s=None,
                inflight=Inflight(1),
                lanes=[self.lane],
                lane_states=lambda: [LaneState(self.cursor)],
                reader=SimpleNamespace(read=self._read, end_numbers=lambda: [self.end]),
            ),
        )
        tree = SimpleNamespace(fetchers=[self.fetcher], kill=self.killed.append)
        conf = KqConf(brokers=["b:1"], group="g", topic="t", **values)
        tell = lambda _, message: self.told.append(message)  # noqa: E731 - one line
        self.positions = Positions(conf, cast("Tree", tree), tell)

    def _read(self) -> list[list[Touched]]:
        records, self.records = self.records, []
        return records

    def open(self, partition: int) -> int:
        """Have the fetcher claim a partition at 0 and return its epoch."""
        self.hear(control.Claims(1, [(partition, 0)]))
        opens = self.told.pop()
        assert isinstance(opens, control.Opens)
        return opens.items[0][1]

    def hear(self, message: control.Message) -> None:
        self.positions.hear(self.fetcher, message)

    def dispatch(self, partition: int, epoch: int, offsets: list[int], fetched: int) -> None:
        run = Run(0, self.end, struct.pack(f"<{len(offsets)}q", *offsets))
        self.end += len(offsets)
        self.records.append([Touched(epoch, 0, partition, fetched, NOTHING_HELD, [run])])

    def commits(self) -> list[list[tuple[int, int, int]]]:
        told, self.told = self.told, []
        return [message.items for message in told if isinstance(message, control.Commit)]


def test_an_answer_to_an_earlier_commit_does_not_confirm_the_final_one() -> None:
    engine = Engine()
    epoch = engine.open(0)
    engine.dispatch(0, epoch, [0, 1], 2)
    engine.cursor = 2
    engine.positions.look(0.0)
    engine.positions.finish()
    engine.hear(control.Committed([(0, epoch, 1)]))
    assert engine.positions.unconfirmed == {(0, epoch): 2}
    engine.hear(control.Committed([(0, epoch, 2)]))
    assert not engine.positions.unconfirmed


def test_a_long_span_is_committed_when_what_held_it_is_done_not_an_interval_later() -> None:
    engine = Engine(commit_interval="1h")
    epoch = engine.open(0)
    engine.positions.commit(10_000.0)
    engine.dispatch(0, epoch, [0, SPAN_MAX], SPAN_MAX + 1)
    engine.positions.look(10_001.0)
    engine.positions.commit(10_001.0)
    assert engine.commits() == []
    engine.cursor = 2
    engine.positions.look(10_002.0)
    engine.positions.commit(10_002.0)
    assert engine.commits() == [[(0, epoch, SPAN_MAX + 1)]]
    engine.hear(control.Committed([(0, epoch, SPAN_MAX + 1)]))
    engine.dispatch(0, epoch, [SPAN_MAX + 1], SPAN_MAX + 2)
    engine.cursor = 3
    engine.positions.look(10_003.0)
    engine.positions.commit(10_003.0)
    engine.positions.commit(10_004.0)
    assert engine.commits() == []


@pytest.mark.parametrize("is_dead", [True, False])
def test_more_closes_by_force_than_a_lane_can_skip_wait_for_it_to_drain(*, is_dead: bool) -> None:
    engine = Engine()
    engine.lane.child = None if is_dead else cast("Any", object())
    partitions = list(range(SKIP_LIMIT + 3))
    for partition in partitions:
        epoch = engine.open(partition)
        engine.dispatch(partition, epoch, [0], 1)
    engine.hear(control.Released(1, partitions, answered=False, lost=True))
    engine.positions.look(float("inf"))
    assert len(engine.lane.skip if is_dead else engine.lane.forced) == SKIP_LIMIT
    if not is_dead:
        # Its burial: what was forced is skipped from now on.
        engine.lane.skip = dict.fromkeys(engine.lane.forced, engine.end)
        engine.lane.forced.clear()
        engine.lane.child = None
    engine.positions.look(float("inf"))
    engine.positions.look(float("inf"))
    assert len(engine.lane.skip) == SKIP_LIMIT
    assert len(engine.positions.partitions.draining()) == 3


def test_a_late_stop_answers_a_fetcher_that_waits_in_its_revoke_callback() -> None:
    engine = Engine()
    epoch = engine.open(0)
    engine.dispatch(0, epoch, [0, 1], 2)
    engine.cursor = 1
    engine.hear(control.Released(1, [0], answered=True))
    coordinator = Coordinator.__new__(Coordinator)
    coordinator.tree = engine.positions._tree
    coordinator.positions = engine.positions
    coordinator._leave_late(0.0)
    assert engine.told == [control.Closes(1, [(0, epoch, 1)]), control.Finish([])]
