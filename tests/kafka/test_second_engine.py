"""A second engine joins and leaves under load: nothing is lost, and one key is never in two places.

Method: one engine under steady load; a second one of the same group joins, works, and is stopped
with SIGTERM (exit 0); the first takes everything back. The ledger of both together must be whole
and in order. A rebalance drains what was dispatched; what it repeats (held back or finished out of
order) lies at or above the committed position that was read just before it.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.ledger import START
from tests.support.scene import FAST, SLOW, Killer

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(("handler", "backlog"), [(FAST, 10_000), (SLOW, 100)], ids=["0ms", "20ms"])
def test_a_second_engine_joins_and_leaves_under_load(
    scene: SceneFactory, handler: str, backlog: int
) -> None:
    field = scene(partitions=4)
    first = field.engine(handler)
    field.wait_settled(first, 1)
    field.feed.keep_ahead(field.handled, backlog)
    field.watch_commits()
    field.wait_handled(backlog, first)
    causes = Killer(field, seed=1)
    causes.note("rebalance")
    second = field.engine(handler)
    second.wait_until(second.processors, "processors of the second engine")
    workers = {process.pid for process in second.processors()}

    def works() -> bool:
        return any(record.pid in workers for record in field.tail.poll())

    second.wait_until(works, "the second engine handles messages")
    field.wait_handled(field.handled() + backlog, second)
    causes.note("rebalance")
    second.stop()
    field.wait_handled(field.handled() + backlog, first)
    field.feed.finish()
    field.wait_all_handled(first)
    first.stop()
    verdict = field.verdict()
    verdict.assert_sound()
    causes.assert_bounded(verdict)
    assert field.committed() == field.ends()
    shares = {record.pid in workers for record in field.tail.records if record.kind == START}
    assert shares == {True, False}
