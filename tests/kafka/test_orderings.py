"""The other orderings: one partition after another in offset order, and none at all.

Method: for `partition` (also as kq's CommitInOrder) the ledger is judged with a partition as one
line, under a kill of a processor. For `unordered` everything is handled once, and all processors
share a single key of a single partition.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.feed import uniform_keys
from tests.support.ledger import START
from tests.support.scene import SLOW, Killer

pytestmark = pytest.mark.engine

TWO_MS = SLOW.replace("0.02", "0.002")


@pytest.mark.parametrize("conf", [{"Ordering": "partition"}, {"CommitInOrder": True}])
def test_a_partition_is_handled_in_offset_order(scene: SceneFactory, conf) -> None:
    field = scene(partitions=4, keys=[None, *uniform_keys(20)])
    engine = field.engine(TWO_MS, {"Processors": 3, **conf})
    field.wait_settled(engine, 1)
    field.watch_commits()
    field.feed.send(2000)
    killer = Killer(field, seed=1)
    field.wait_handled(100, engine)
    killer.child(engine, "processor")
    field.wait_all_handled(engine)
    engine.stop()
    verdict = field.verdict(ordering="partition")
    verdict.assert_sound(duplicates_at_most=1)
    killer.assert_bounded(verdict)
    assert field.committed() == field.ends()


def test_unordered_shares_one_key_among_all_processors(scene: SceneFactory) -> None:
    field = scene(partitions=1, keys=[b"only"])
    field.feed.send(3000)
    field.watch_commits()
    engine = field.engine(TWO_MS, {"Processors": 4, "Ordering": "unordered"})
    field.wait_all_handled(engine)
    engine.stop()
    field.verdict(ordering="unordered").assert_sound(duplicates_at_most=0)
    pids = [record.pid for record in field.tail.records if record.kind == START]
    assert len(set(pids)) == 4
    assert min(map(pids.count, set(pids))) > 300
    assert field.committed() == field.ends()
