"""A broker that is killed and comes back ends nothing and loses nothing.

Method: under steady load kill the only node with SIGKILL, start it again some seconds later. Every
process of the engine is the same as before; the ledger is whole and in order. The session with the
group may have ended meanwhile: what is repeated lies at or above the committed position that was
read just before the kill. A second run kills the broker when all is handled and not yet committed:
the engine knows what it has done, commits that when the broker is back, and repeats nothing.
"""

import time

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.scene import FAST, SLOW, Killer

pytestmark = pytest.mark.engine

BACKLOG = 200
#: Longer than the session: the group is lost, not only out of sight.
AWAY_S = 3.0


def test_a_broker_restart_under_load_loses_nothing(scene: SceneFactory) -> None:
    field = scene(partitions=4)
    engine = field.engine(SLOW, {"Conns": 2})
    field.wait_settled(engine, 2)
    field.feed.keep_ahead(field.handled, BACKLOG)
    field.watch_commits()
    field.wait_handled(BACKLOG, engine)
    family = {(process.pid, process.create_time()) for process in engine.children()}
    causes = Killer(field, seed=1)
    causes.note("broker")
    field.cluster.kill(1)
    try:
        time.sleep(AWAY_S)
    finally:
        field.cluster.restart(1)
    field.wait_handled(field.handled() + BACKLOG, engine)
    field.feed.finish()
    field.wait_all_handled(engine)
    assert {(process.pid, process.create_time()) for process in engine.children()} == family
    engine.stop()
    verdict = field.verdict()
    verdict.assert_sound()
    causes.assert_bounded(verdict)
    assert field.committed() == field.ends()


def test_what_was_finished_while_the_broker_was_away_is_not_repeated(scene: SceneFactory) -> None:
    field = scene(partitions=4)
    engine = field.engine(FAST, {"Kafka": {"session.timeout.ms": 3000}})
    field.wait_settled(engine, 1)
    field.watch_commits()
    field.feed.send(4000)
    field.wait_all_handled(engine)
    field.cluster.kill(1)
    try:
        time.sleep(AWAY_S + 1)
    finally:
        field.cluster.restart(1)
    engine.wait_until(lambda: field.committed() == field.ends(), "all committed after all")
    engine.stop()
    field.verdict().assert_sound(duplicates_at_most=0)
