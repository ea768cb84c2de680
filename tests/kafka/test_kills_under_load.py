"""The claim in one run: kill anything, at any moment; nothing is lost, order is kept.

Method: two fetchers, a topic that a producer keeps full until the last kill has recovered, and
kill -9 of random processors, fetchers and the coordinator (whose engine the test starts again), in
random order at random moments. The ledger must be whole and in order; every repeat must be
accounted for: by a killed processor, which had that message in its hands, or by a killed fetcher or
coordinator, at or above the committed position that was read just before the kill.

The everyday runs have a fifth of the kills. `-m soak -s` has all of them and prints the summary.
KQMP_TEST_SEED=n repeats a schedule (not the moments: those are the machine's).
"""

import os
import time

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.scene import FAST, SLOW, Killer

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SEED = int(os.environ.get("KQMP_TEST_SEED", time.time_ns() % 1_000_000))

EVERYDAY = {"processor": 4, "fetcher": 1, "coordinator": 1}
FULL = {"processor": 20, "fetcher": 3, "coordinator": 2}


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(EVERYDAY, id="fifth"),
        pytest.param(FULL, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
)
@pytest.mark.parametrize(("handler", "backlog"), [(FAST, 10_000), (SLOW, 200)], ids=["0ms", "20ms"])
def test_kill_anything_at_any_moment(
    scene: SceneFactory, handler: str, backlog: int, kills: dict[str, int]
) -> None:
    field = scene(partitions=6)
    engine = field.engine(handler, {"Conns": 2})
    field.wait_settled(engine, 2)
    field.feed.keep_ahead(field.handled, backlog)
    field.watch_commits()
    field.wait_handled(backlog // 2, engine)
    killer = Killer(field, SEED)
    schedule = [role for role, count in kills.items() for _ in range(count)]
    killer.chance.shuffle(schedule)
    for role in schedule:
        if killer.chance.random() < 0.8:  # now and then kill what has not recovered yet
            field.wait_handled(field.handled() + backlog // 10, engine)
        if role == "coordinator":
            killer.coordinator(engine)
            engine = field.engine(handler, {"Conns": 2})
        else:
            killer.child(engine, role)
    # The last kill has recovered when every process is there and handles messages.
    engine.wait_until(lambda: len(engine.processors()) == 4, "all processors")
    field.wait_handled(field.handled() + backlog, engine)
    field.feed.finish()
    field.wait_all_handled(engine)
    engine.stop()
    verdict = field.verdict()
    verdict.assert_sound()
    killer.assert_bounded(verdict)
    assert field.committed() == field.ends()
