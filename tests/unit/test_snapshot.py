"""A snapshot says what is so in shared memory and the books, and health what is wrong with it."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from kqmp.config import KqConf
from kqmp.obs.snapshot import (
    DOWN_S,
    REFUSED_S,
    STALE_S,
    STALL_FIRST_S,
    STALL_S,
    Partition,
    health,
    pack,
    unpack,
)
from kqmp.ring import words as w
from kqmp.ring.log import NOTHING_HELD
from kqmp.roles import control
from kqmp.roles.coordinator import Coordinator, Stage
from kqmp.roles.snapshots import Snapshots
from kqmp.roles.tree import Plan
from tests.support.snapshots import processor, snapshot, waiting


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"partitions": [waiting()], "stalled_s": STALL_S - 1}, ""),
        ({"at_s": 100 - STALE_S - 1}, "the coordinator has not turned its loop for 11 s"),
        ({"running": False}, "stopping"),
        ({"started": False}, "starting: handlers are set up, brokers are asked"),
        ({"assigned": False}, "group g has assigned nothing yet"),
        ({"processors": [processor(down_s=DOWN_S)]}, ""),
        (
            {"processors": [processor(), processor(index=1, down_s=DOWN_S + 1)]},
            "processor 0.1 has not been up for 31 s",
        ),
        ({"partitions": [waiting()], "refused_s": REFUSED_S + 1}, "commits are refused for 61 s"),
        ({"partitions": [waiting(committed=15)], "refused_s": REFUSED_S + 1}, ""),
        (
            {
                "partitions": [waiting()],
                "stalled_s": STALL_S + 1,
                "processors": [processor(timed=2, timed_ns=2 * 10**9)],
            },
            "no message was finished for 61 s, 5 are in flight",
        ),
    ],
)
def test_health_says_what_is_wrong(changes: dict[str, Any], reason: str) -> None:
    assert health(snapshot(**changes), 100.0) == reason


def test_slow_handlers_get_the_time_that_they_take() -> None:
    first = snapshot(partitions=[waiting()], stalled_s=STALL_FIRST_S - 1)
    assert health(first, 100.0) == ""
    slow = [processor(timed=3, timed_ns=3 * 60 * 10**9)]
    for stalled_s, is_well in ((599, True), (601, False)):
        made = snapshot(partitions=[waiting()], stalled_s=stalled_s, processors=slow)
        assert (health(made, 100.0) == "") is is_well


def test_lag_is_above_the_committed_position_and_not_known_before_a_fetch() -> None:
    unknown = Partition(1, 0, position=5, committed_position=5, fetched_position=5, end=-1)
    assert (waiting().lag, waiting().in_flight, unknown.lag, unknown.in_flight) == (90, 5, None, 0)
    assert snapshot(partitions=[waiting(), unknown]).lag == 90


def test_a_snapshot_crosses_processes_whole() -> None:
    made = snapshot(partitions=[waiting()], processors=[processor(consumed=3)])
    assert unpack(pack(made)) == made


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    """Give one of an engine of two lanes, none of whose processes is started."""
    conf = KqConf(brokers=["b:1"], group="g", topic="t", processors=2, ring_bytes="64KiB")
    made = Coordinator(
        Plan(conf=conf, handler=b"", handler_name="m:f", columns=[], label="KqConsumerConf")
    )
    yield made
    made.tree.close()


def store(coordinator: Coordinator, lane: int, **counts: int) -> None:
    """Write a lane's words as its processor would."""
    memory = w.Mapping(coordinator.tree.fetchers[0].lanes[lane].fd, w.OPEN_TABLE * 8)
    for name, count in counts.items():
        memory.words[getattr(w, name)] = count
    memory.close()


def dispatch(coordinator: Coordinator, offsets: range) -> int:
    """Have the offsets of the one open partition on lane 0; return its epoch."""
    inflight = coordinator.tree.fetchers[0].inflight
    ((_, epoch),) = coordinator.positions.partitions.openings(1)
    inflight.dispatched(epoch, 0, 0, struct.pack(f"<{len(offsets)}q", *offsets))
    inflight.note(epoch, offsets.stop, NOTHING_HELD)
    return epoch


def test_a_snapshot_is_read_from_shared_memory_and_the_books(coordinator: Coordinator) -> None:
    fetcher = coordinator.tree.fetchers[0]
    fetcher.member = 1
    positions = coordinator.positions
    for message in (control.Joined(1), control.Claims(1, [(7, 100)]), control.Ends([(7, 500)])):
        positions.hear(fetcher, message)
    epoch = dispatch(coordinator, range(100, 103))
    store(coordinator, 0, CURSOR=1, FAILED=1, TIMED_COUNT=1, TIMED_NS=3)
    store(coordinator, 1, CURSOR=5, SKIPPED=4, RETRIED=2, SET_ASIDE=1)
    positions.hear(fetcher, control.Committed([(7, epoch, 101)]))
    positions.hear(fetcher, control.Committed([], "no"))
    made = Snapshots().take(coordinator, 50.0)
    assert (made.name, made.section, made.running) == ("g", "KqConsumerConf", True)
    assert (made.assigned, made.started) == (True, False)
    assert (made.commits, made.commits_refused) == (1, 1)
    assert made.partitions == [Partition(7, 0, 101, 101, 103, 500)]
    assert [(p.consumed, p.failed, p.retried, p.set_aside) for p in made.processors] == [
        (1, 1, 0, 0),
        (1, 0, 2, 1),
    ]
    whole = made.sample()
    assert (whole.consumed, whole.failed, whole.timed_ns) == (2, 1, 3)
    assert made.fetchers[0].assignments == 1


def test_what_lasts_is_told_with_how_long_it_lasts(coordinator: Coordinator) -> None:
    snapshots = Snapshots()
    fetcher = coordinator.tree.fetchers[0]
    fetcher.member = 1
    coordinator.positions.hear(fetcher, control.Claims(1, [(0, 0)]))
    dispatch(coordinator, range(9))
    store(coordinator, 0, CURSOR=1)
    fetcher.child, fetcher.ready_s = object(), 0.0  # type: ignore[assignment]
    first = snapshots.take(coordinator, 10.0)
    later = snapshots.take(coordinator, 14.0)
    assert (first.stalled_s, later.stalled_s) == (0.0, 4.0)
    assert (later.fetchers[0].down_s, later.processors[0].down_s) == (0.0, 4.0)
    store(coordinator, 0, CURSOR=2)
    coordinator.stage = Stage.DRAINING
    moved = snapshots.take(coordinator, 15.0)
    assert (moved.stalled_s, moved.running) == (0.0, False)
