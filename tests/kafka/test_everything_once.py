"""Everything is handled once, and a restart consumes nothing.

Method: an engine on a topic full of messages (two fetchers: on one that fills), an outside observer
of the committed positions. When the ledger has everything, SIGTERM: exit 0, committed positions
equal the ends, no duplicate. A second engine on the same group then handles only what is new.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.scene import FAST

pytestmark = pytest.mark.engine

COUNT = 40_000

KEY_AND_VALUE = """
from tests.support.ledger import Ledger
ledger = Ledger()

def consume(key, value):
    with ledger.handling_value(key, value):
        pass
"""


@pytest.mark.parametrize(
    ("handler", "conns"), [(FAST, 2), (KEY_AND_VALUE, 1)], ids=["message-2", "key-value-1"]
)
def test_everything_once_and_a_restart_consumes_nothing(
    scene: SceneFactory, handler: str, conns: int
) -> None:
    field = scene(partitions=6)
    if conns == 1:
        field.feed.send(COUNT)
        field.watch_commits()
    engine = field.engine(handler, {"Conns": conns})
    if conns > 1:
        field.wait_settled(engine, conns)
        field.watch_commits()
        field.feed.send(COUNT)
    field.wait_all_handled(engine)
    engine.stop()
    verdict = field.verdict()
    verdict.assert_sound(duplicates_at_most=0)
    assert verdict.handled == COUNT
    assert field.committed() == field.ends()

    again = field.engine(handler)
    again.wait_until(again.processors, "processors")
    field.feed.send(10)
    field.wait_all_handled(again)
    again.stop()
    field.verdict().assert_sound(duplicates_at_most=0)
    assert field.committed() == field.ends()
