"""SIGTERM under load drains, commits and exits 0: no duplicate and no loss over restarts.

Method: while a producer keeps the topic full, start an engine, stop it in the middle of the work,
start the next one, three times over. The last one handles what is left. No message has a second
start in the ledger, and the committed positions equal the ends. Where the handlers do not finish
within DrainTimeout, the stop says so (exit code 7), and only what was in their hands is repeated.
"""

import random
import signal
import time

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.scene import FAST, GATED, SLOW

pytestmark = pytest.mark.engine

STOPS = 3


@pytest.mark.parametrize(("handler", "backlog"), [(FAST, 10_000), (SLOW, 100)], ids=["0ms", "20ms"])
def test_sigterm_under_load_repeats_and_loses_nothing(
    scene: SceneFactory, handler: str, backlog: int
) -> None:
    field = scene(partitions=4)
    chance = random.Random(1)
    field.feed.keep_ahead(field.handled, backlog)
    field.watch_commits()
    for _ in range(STOPS):
        engine = field.engine(handler)
        field.wait_handled(field.handled() + backlog, engine)
        time.sleep(chance.uniform(0, 0.3))
        engine.stop()
    field.feed.finish()
    last = field.engine(handler)
    field.wait_all_handled(last)
    last.stop()
    field.verdict().assert_sound(duplicates_at_most=0)
    assert field.committed() == field.ends()


def test_what_outlasts_the_drain_timeout_is_repeated(scene: SceneFactory, tmp_path) -> None:
    field = scene(partitions=4)
    gate = tmp_path / "gate"
    field.feed.send(300)
    field.watch_commits()
    engine = field.engine(GATED, {"DrainTimeout": "1s"}, GATE=str(gate))
    engine.wait_until(lambda: field.tail.written >= 2, "a message in each handler")
    engine.signal(signal.SIGTERM)
    assert engine.wait() == 7
    assert "DrainTimeout passed" in engine.output
    gate.touch()
    again = field.engine(GATED, GATE=str(gate))
    field.wait_all_handled(again)
    again.stop()
    field.verdict().assert_sound(duplicates_at_most=2)
    assert field.committed() == field.ends()
