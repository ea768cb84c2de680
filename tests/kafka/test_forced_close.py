"""A partition that cannot be drained in time is taken by force, and no one touches it afterwards.

Method: the first engine handles messages at full speed, so that its lanes become deep; then every
handler of it stands still, with messages of all partitions in both lanes. A second engine joins,
so that the first one has to give partitions up, which it cannot within its DrainTimeout of a
second: it kills the processors that hold their messages. The second engine handles these
partitions; then the first one's handlers are let go. Its new processors must pass over what went
elsewhere: nothing is handled by both, order holds, and only what was in the hands of the killed
is begun twice.
"""

import time
from pathlib import Path

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.engine import POLL_S, Engine
from tests.support.ledger import END
from tests.support.scene import FAST, GATED, Scene

pytestmark = pytest.mark.engine

#: Handled at full speed; these make the lanes deep. So many that a moment in which one processor
#: had no core does not make it look slow for long.
WARM_UP = 20_000
#: Few enough to be in the lanes whole, enough to be of all partitions in both.
IN_LANES = 100
#: What follows once the handlers stand still.
BEHIND = 300

#: Seconds within which they come to both handlers, if they come to both.
SHARED_WITHIN_S = 5.0


def fill_lanes(field: Scene, engine: Engine, gate: Path) -> None:
    """Leave each handler standing still, with messages behind it.

    If a busy machine made one processor look much slower than the other, all go to the other one:
    then both are measured anew.
    """
    for _ in range(5):
        gate.touch()
        field.feed.send(WARM_UP)
        field.wait_all_handled(engine)
        gate.unlink()
        started = field.tail.written + 2
        field.feed.send(IN_LANES)
        deadline = time.monotonic() + SHARED_WITHIN_S
        while time.monotonic() < deadline:
            if field.tail.written >= started:
                return
            time.sleep(POLL_S)
    pytest.fail("never a message in each handler")


def test_what_was_taken_by_force_is_left_alone(scene: SceneFactory, tmp_path) -> None:
    field = scene(partitions=4)
    gate = tmp_path / "gate"
    first = field.engine(GATED, {"DrainTimeout": "1s"}, GATE=str(gate))
    field.wait_settled(first, 1)
    field.watch_commits()
    fill_lanes(field, first, gate)
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
    assert len(ends) == len(set(ends)) == field.feed.sent
    assert field.committed() == field.ends()
