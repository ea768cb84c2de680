"""A partition that cannot be drained in time is taken by force, and no one touches it afterwards.

Method: every handler of the first engine stands still. A second engine joins, so that the first one
has to give partitions up, which it cannot within its DrainTimeout of a second: it kills the
processors that hold their messages. The second engine handles these partitions; then the first
one's handlers are let go. Its new processors must pass over what went elsewhere: nothing is handled
by both, order holds, and only what was in the hands of the killed is begun twice.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.ledger import END
from tests.support.scene import FAST, GATED

pytestmark = pytest.mark.engine

COUNT = 400


def test_what_was_taken_by_force_is_left_alone(scene: SceneFactory, tmp_path) -> None:
    field = scene(partitions=4)
    gate = tmp_path / "gate"
    first = field.engine(GATED, {"DrainTimeout": "1s"}, GATE=str(gate))
    field.wait_settled(first, 1)
    field.watch_commits()
    field.feed.send(COUNT)
    first.wait_until(lambda: field.tail.written >= 2, "a message in each handler")
    before = set(first.processors())
    second = field.engine(FAST)
    second.wait_until(second.processors, "processors of the second engine")

    def settled_and_idle() -> bool:
        """Whether the second engine has handled all of the partitions that it was given."""
        field.tail.poll()
        ends, committed = field.ends(), field.committed()
        return sum(committed[p] == end for p, end in ends.items()) == 2

    second.wait_until(settled_and_idle, "two partitions handled by the second engine")
    assert before.isdisjoint(first.processors())
    handled_by_second = set(field.tail.ended)
    assert handled_by_second
    gate.touch()
    field.wait_all_handled(first)
    second.stop()
    first.stop()
    verdict = field.verdict()
    verdict.assert_sound(duplicates_at_most=len(before))
    ends = [record.uid for record in field.tail.records if record.kind == END]
    assert len(ends) == len(set(ends)) == COUNT
    assert field.committed() == field.ends()
