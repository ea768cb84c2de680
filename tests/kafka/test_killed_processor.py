"""A processor killed with SIGKILL repeats at most the message in its hands, and nothing is lost.

Method: under steady load kill random processors at random moments. The ledger must hold every
message, in order; each repeat is the last message that one of the killed had begun; the fetchers
are the same processes throughout (nothing was fetched again, the group did not notice).
"""

import pytest

from tests.kafka.conftest import LOADS, SceneFactory
from tests.support.scene import Killer

pytestmark = pytest.mark.engine

KILLS = 6


@pytest.mark.parametrize(("handler", "backlog", "conns"), LOADS)
def test_a_killed_processor_repeats_only_what_was_in_its_hands(
    scene: SceneFactory, handler: str, backlog: int, conns: int
) -> None:
    field = scene(partitions=4)
    engine = field.engine(handler, {"Conns": conns})
    field.wait_settled(engine, conns)
    field.feed.keep_ahead(field.handled, backlog)
    field.watch_commits()
    field.wait_handled(200, engine)
    fetchers = engine.fetchers()
    killer = Killer(field, seed=conns)
    for _ in range(KILLS):
        killer.child(engine, "processor")
    field.feed.finish()
    field.wait_all_handled(engine)
    assert engine.fetchers() == fetchers
    engine.stop()
    verdict = field.verdict()
    verdict.assert_sound(duplicates_at_most=KILLS)
    killer.assert_bounded(verdict)
