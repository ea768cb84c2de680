"""A handler that raises: passed over and counted, or retried in place, as ForceCommit says.

Method: every tenth message raises. With ForceCommit true each is tried once, the rest of its key
follows, and the engine tells the number at its end. With ForceCommit false each is tried until it
succeeds, here the third time, and nothing of its key overtakes it.
"""

from collections import Counter

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.ledger import END, FAILED

pytestmark = pytest.mark.engine

PASSED_OVER = """
from tests.support.ledger import Ledger
ledger = Ledger()

def consume(message):
    with ledger.handling(message):
        if int(message.value.split()[0]) % 10 == 0:
            raise ValueError("every tenth")
"""

RETRIED = """
from collections import Counter
from tests.support.ledger import Ledger
ledger = Ledger()
tries = Counter()

def consume(message):
    with ledger.handling(message):
        uid = int(message.value.split()[0])
        tries[uid] += 1
        if uid % 10 == 0 and tries[uid] < 3:
            raise ValueError("not yet")
"""


def test_failures_are_passed_over_and_counted(scene: SceneFactory) -> None:
    field = scene(partitions=2, keys=[b"a", b"b", b"c", b"d"])
    field.feed.send(3000)
    field.watch_commits()
    engine = field.engine(PASSED_OVER)
    field.wait_all_handled(engine)
    engine.stop()
    field.verdict().assert_sound(duplicates_at_most=0)
    kinds = Counter(record.kind for record in field.tail.records)
    assert (kinds[FAILED], kinds[END]) == (300, 2700)
    assert "failed 300 (passed over)" in engine.output
    assert "ValueError: every tenth" in engine.output
    assert field.committed() == field.ends()


def test_failures_are_retried_in_place(scene: SceneFactory) -> None:
    field = scene(partitions=2, keys=[b"a", b"b", b"c", b"d"])
    field.feed.send(100)
    field.watch_commits()
    engine = field.engine(RETRIED, {"ForceCommit": False})

    def all_ended() -> bool:
        field.tail.poll()
        return sum(record.kind == END for record in field.tail.records) == 100

    engine.wait_until(all_ended, "all handled, at the third try where need be")
    engine.stop()
    field.verdict(final={END}).assert_sound(duplicates_at_most=0)
    kinds = Counter(record.kind for record in field.tail.records)
    assert (kinds[FAILED], kinds[END]) == (20, 100)
    assert field.committed() == field.ends()
