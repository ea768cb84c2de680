"""A fetcher killed with SIGKILL is replaced while its lanes drain; nothing is lost or reordered.

Method: under steady load kill random fetchers. Processors stay the same processes. Whatever is
repeated lies at or above the committed position that was read just before the kill: at most the
span of 200,000 a partition, in practice what was finished out of order.
"""

import pytest

from tests.kafka.conftest import LOADS, SceneFactory
from tests.support.scene import Killer

pytestmark = pytest.mark.engine

KILLS = 2


@pytest.mark.parametrize(("handler", "backlog", "conns"), LOADS)
def test_a_killed_fetcher_is_replaced_and_repeats_only_what_was_not_committed(
    scene: SceneFactory, handler: str, backlog: int, conns: int
) -> None:
    field = scene(partitions=4)
    engine = field.engine(handler, {"Conns": conns})
    field.wait_settled(engine, conns)
    field.feed.keep_ahead(field.handled, backlog)
    field.watch_commits()
    field.wait_handled(200, engine)
    processors = engine.processors()
    killer = Killer(field, seed=conns)
    for _ in range(KILLS):
        killer.child(engine, "fetcher")
        field.wait_handled(field.handled() + backlog, engine)
    field.feed.finish()
    field.wait_all_handled(engine)
    assert engine.processors() == processors
    engine.stop()
    verdict = field.verdict()
    verdict.assert_sound()
    killer.assert_bounded(verdict)
    assert field.committed() == field.ends()
