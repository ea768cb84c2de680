"""One slow key delays itself and the little work behind it in its lane, not the partition.

Method: one partition, 10,000 keys. The handler of the key `slow` waits for a file; those of the
others take a millisecond. The file appears only when nine tenths of the others have been handled,
most of them with higher offsets than the slow one: without bays that never happens, and the test
fails. (What is left shares a lane with the slow message, or a key with something behind it.) All
the while no committed position passes the slow message.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.feed import uniform_keys
from tests.support.ledger import END, START

pytestmark = pytest.mark.engine

COUNT = 6000

ONE_SLOW_KEY = """
import os, time
from tests.support.ledger import Ledger
ledger = Ledger()

def consume(message):
    with ledger.handling(message):
        if message.key == b"slow":
            while not os.path.exists(os.environ["GATE"]):
                time.sleep(0.02)
        else:
            time.sleep(0.001)
"""


def test_others_go_on_while_one_key_is_slow(scene: SceneFactory, tmp_path) -> None:
    field = scene(partitions=1, keys=uniform_keys(10_000))
    gate = tmp_path / "gate"
    engine = field.engine(ONE_SLOW_KEY, {"Processors": 4}, GATE=str(gate))
    field.feed.send(COUNT // 6)
    field.wait_all_handled(engine)
    field.watch_commits()
    slow = [field.feed.send_one(b"slow")]
    field.feed.send(COUNT // 2)
    slow.append(field.feed.send_one(b"slow"))
    field.feed.send(COUNT // 2)

    def most_are_handled() -> bool:
        field.tail.poll()
        return len(field.tail.ended) >= COUNT // 6 + COUNT * 0.9

    engine.wait_until(most_are_handled, "nine tenths of the others handled")
    kinds = [(record.kind, record.uid) for record in field.tail.records if record.uid in slow]
    assert kinds == [(START, slow[0])]
    first = next(message for message in field.feed.acked if message.uid == slow[0])
    assert field.committed()[0] <= first.offset
    gate.touch()
    field.wait_all_handled(engine)
    engine.stop()
    field.verdict().assert_sound(duplicates_at_most=0)
    kinds = [(record.kind, record.uid) for record in field.tail.records if record.uid in slow]
    assert kinds == [(START, slow[0]), (END, slow[0]), (START, slow[1]), (END, slow[1])]
    assert field.committed() == field.ends()
