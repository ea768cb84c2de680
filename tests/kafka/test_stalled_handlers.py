"""Handlers that all stand still past max.poll.interval.ms cost no membership and no repeat.

Method: every handler waits for a file. With `max.poll.interval.ms` at 11 seconds they stand still
for 13, while the topic holds far more than the lanes. The group has the same members with the same
partitions before and after; then the file appears, and everything is handled once.
"""

import time

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.scene import GATED

pytestmark = [pytest.mark.engine, pytest.mark.slow]

INTERVAL_S = 11.0
STALL_S = INTERVAL_S + 2


def test_stalled_handlers_keep_their_membership(scene: SceneFactory, tmp_path) -> None:
    field = scene(partitions=4)
    gate = tmp_path / "gate"
    conf = {
        "Conns": 2,
        "DrainTimeout": "1s",
        "Kafka": {"max.poll.interval.ms": int(INTERVAL_S * 1000)},
    }
    engine = field.engine(GATED, conf, GATE=str(gate))
    members = field.wait_settled(engine, 2)
    field.watch_commits()
    field.feed.send(30_000)
    engine.wait_until(lambda: field.tail.written >= 4, "a message in each handler")
    time.sleep(STALL_S)
    assert field.wait_settled(engine, 2) == members
    gate.touch()
    field.wait_all_handled(engine)
    assert field.wait_settled(engine, 2) == members
    engine.stop()
    field.verdict().assert_sound(duplicates_at_most=0)
    assert field.committed() == field.ends()
