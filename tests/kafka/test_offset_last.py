"""Offset last reads nothing that was there before, and skips nothing that comes after.

Method: a topic with old messages. As soon as the group has committed start positions the engine is
killed, before it handled anything. What is produced while nobody runs must be handled by the next
engine, which has the same `Offset: last`: the start was committed, so it is not chosen anew.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.scene import FAST

pytestmark = pytest.mark.engine


def test_offset_last_starts_at_the_end_once_and_loses_nothing_after(scene: SceneFactory) -> None:
    field = scene(partitions=3)
    field.feed.send(900)
    old = {message.uid for message in field.feed.acked}
    ends = field.ends()
    first = field.engine(FAST, {"Offset": "last"})
    first.wait_until(lambda: len(field.committed()) == field.partitions, "start positions")
    assert field.committed() == ends
    first.kill()

    field.feed.send(300)
    field.watch_commits()
    second = field.engine(FAST, {"Offset": "last"})
    field.wait_all_handled(second, but=old)
    second.stop()
    verdict = field.verdict(excused=old)
    verdict.assert_sound(duplicates_at_most=0)
    assert not old & field.tail.ended
    assert verdict.handled == 300
    assert field.committed() == field.ends()
