"""A partition that cannot be drained in time is taken by force, and no one touches it afterwards.

Method: the first engine handles messages at full speed, so that its lanes become deep; then every
handler of it stands still, with messages of all partitions in both lanes. A second engine joins,
so that the first one has to give partitions up, which it cannot within its DrainTimeout of a
second: it kills the processors that hold their messages. The second engine handles these
partitions; then the first one's handlers are let go. Its new processors must pass over what went
elsewhere: nothing is handled by both, order holds, and only what was in the hands of the killed
is begun twice.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.ledger import END
from tests.support.scene import FAST, GATED

pytestmark = pytest.mark.engine

#: Handled at full speed; these make the lanes deep.
WARM_UP = 2000
#: Few enough to be in the lanes whole, enough to be of all partitions in both.
IN_LANES = 100
#: What follows once the handlers stand still.
BEHIND = 300


def test_what_was_taken_by_force_is_left_alone(scene: SceneFactory, tmp_path) -> None:
    field = scene(partitions=4)
    gate = tmp_path / "gate"
    first = field.engine(GATED, {"DrainTimeout": "1s"}, GATE=str(gate))
    field.wait_settled(first, 1)
    field.watch_commits()
    gate.touch()
    field.feed.send(WARM_UP)
    field.wait_all_handled(first)
    gate.unlink()
    field.feed.send(IN_LANES)
    started = 2 * WARM_UP + 2
    first.wait_until(lambda: field.tail.written >= started, "a message in each handler")
    field.feed.send(BEHIND)
    before = set(first.processors())
    second = field.engine(FAST)
    second.wait_until(second.processors, "processors of the second engine")

    def settled_and_idle() -> bool:
        """Whether the second engine has handled all of the partitions that it was given."""
        ends, committed = field.ends(), field.committed()
        return sum(committed[p] == end for p, end in ends.items()) == 2

    second.wait_until(settled_and_idle, "two partitions handled by the second engine")
    assert before.isdisjoint(first.processors())
    gate.touch()
    field.wait_all_handled(first)
    second.stop()
    first.stop()
    verdict = field.verdict()
    verdict.assert_sound(duplicates_at_most=len(before))
    ends = [record.uid for record in field.tail.records if record.kind == END]
    assert len(ends) == len(set(ends)) == WARM_UP + IN_LANES + BEHIND
    assert field.committed() == field.ends()
