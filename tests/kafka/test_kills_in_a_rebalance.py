"""Kills in the middle of a rebalance: nothing is lost, order is kept between two engines.

Method: while a second engine joins, a random fetcher and a random processor of the first one are
killed at random moments; then the second engine leaves, by SIGTERM or by kill -9 of its
coordinator. Judged like every kill: see `test_kills_under_load`.
"""

import os
import time

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.scene import SLOW, Killer

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SEED = int(os.environ.get("KQMP_TEST_SEED", time.time_ns() % 1_000_000))


@pytest.mark.parametrize(
    "rounds", [1, pytest.param(10, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
def test_kills_in_the_middle_of_a_rebalance(scene: SceneFactory, rounds: int) -> None:
    field = scene(partitions=6)
    first = field.engine(SLOW, {"Conns": 2})
    field.wait_settled(first, 2)
    field.feed.keep_ahead(field.handled, 200)
    field.watch_commits()
    field.wait_handled(100, first)
    killer = Killer(field, SEED)
    for number in range(rounds):
        killer.note("rebalance")
        second = field.engine(SLOW)
        time.sleep(killer.chance.uniform(0.5, 2.0))
        killer.child(first, "fetcher", 0, 0.3)
        killer.child(first, "processor", 0, 0.3)
        field.wait_handled(field.handled() + 100, first)
        killer.note("rebalance")
        if number % 2:
            killer.coordinator(second)
        else:
            second.stop()
    field.wait_handled(field.handled() + 200, first)
    field.feed.finish()
    field.wait_all_handled(first)
    first.stop()
    verdict = field.verdict()
    verdict.assert_sound()
    killer.assert_bounded(verdict)
    assert field.committed() == field.ends()
