"""A coordinator killed with SIGKILL takes everything along; the next engine goes on where it was.

Method: under steady load, or with handlers that stand still for ever, kill the coordinator of a
running engine. Within 2 seconds every process
of it is gone and nothing lies in /dev/shm. A new engine handles the rest: nothing lost, order kept,
and what is repeated lies at or above the committed position that was read just before the kill.
"""

import time
from pathlib import Path

import psutil
import pytest

from tests.kafka.conftest import LOADS, SceneFactory
from tests.support.engine import is_alive, wait_until
from tests.support.scene import GATED, Killer

pytestmark = pytest.mark.engine

GONE_WITHIN_S = 2.0


def assert_all_gone(family: set[psutil.Process], shared_memory: set[Path]) -> None:
    """Fail unless nothing is left 2 seconds after the kill."""
    killed = time.monotonic()
    wait_until(
        lambda: not any(map(is_alive, family)), "every process gone", GONE_WITHIN_S, every_s=0.01
    )
    assert set(Path("/dev/shm").iterdir()) <= shared_memory
    print(f"all gone after {time.monotonic() - killed:.3f} s")


@pytest.mark.parametrize(("handler", "backlog", "conns"), LOADS)
def test_a_killed_coordinator_leaves_nothing_and_its_successor_loses_nothing(
    scene: SceneFactory, handler: str, backlog: int, conns: int
) -> None:
    field = scene(partitions=4)
    shared_memory = set(Path("/dev/shm").iterdir())
    engine = field.engine(handler, {"Conns": conns})
    field.wait_settled(engine, conns)
    field.feed.keep_ahead(field.handled, backlog)
    field.watch_commits()
    field.wait_handled(backlog, engine)
    killer = Killer(field, seed=conns)
    family = killer.coordinator(engine, 0.5, 1.5)
    assert len(family) >= 1 + conns * 3
    assert_all_gone(family, shared_memory)

    successor = field.engine(handler, {"Conns": conns})
    field.wait_handled(field.handled() + backlog, successor)
    field.feed.finish()
    field.wait_all_handled(successor)
    successor.stop()
    verdict = field.verdict()
    verdict.assert_sound()
    killer.assert_bounded(verdict)
    assert field.committed() == field.ends()


def test_handlers_that_stand_still_end_with_their_coordinator(
    scene: SceneFactory, tmp_path: Path
) -> None:
    field = scene(partitions=2)
    shared_memory = set(Path("/dev/shm").iterdir())
    field.feed.send(100)
    engine = field.engine(GATED, GATE=str(tmp_path / "never"))
    engine.wait_until(lambda: field.tail.written >= 2, "a message in each handler")
    assert_all_gone(engine.kill(), shared_memory)
