"""A message that kills its processor is set aside after MaxAttempts; its neighbours do not notice.

Method: one message in the middle ends its process, by `os._exit` or by a segmentation fault. It is
begun exactly MaxAttempts times and never ends; all others, of its own key too, are handled once and
in order, and the log says in full what was set aside. A handler that always kills its processor is
no poison message: the engine gives up with exit code 6 and has set aside only a few.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.ledger import START

pytestmark = pytest.mark.engine

ATTEMPTS = 3

DEADLY = """
import ctypes, os
from tests.support.ledger import Ledger
ledger = Ledger()

def consume(message):
    with ledger.handling(message):
        if b"poison" in message.value:
            {death}
"""

ALWAYS_DEADLY = """
import os
from tests.support.ledger import Ledger
ledger = Ledger()

def consume(message):
    ledger.start(message)
    os._exit(9)
"""


@pytest.mark.parametrize(
    "death", ["os._exit(9)", "ctypes.string_at(0)"], ids=["exit", "segmentation-fault"]
)
def test_a_message_that_kills_is_set_aside(scene: SceneFactory, death: str) -> None:
    field = scene(partitions=2, keys=[b"a", b"b", b"c", b"d"])
    field.feed.send(300)
    poison = field.feed.send_one(b"a", b"poison 4711")
    field.feed.send(300)
    field.watch_commits()
    engine = field.engine(DEADLY.format(death=death), {"MaxAttempts": ATTEMPTS})
    field.wait_all_handled(engine, but={poison})
    engine.stop()
    field.tail.poll()
    tries = [record for record in field.tail.records if record.uid == poison]
    assert [record.kind for record in tries] == [START] * ATTEMPTS
    assert len({record.pid for record in tries}) == ATTEMPTS
    verdict = field.verdict(excused={poison})
    verdict.assert_sound(duplicates_at_most=ATTEMPTS - 1)
    assert set(verdict.repeats) == {poison}
    assert field.committed() == field.ends()
    message = next(message for message in field.feed.acked if message.uid == poison)
    place = f"{field.topic}[{message.partition}]@{message.offset}"
    aside = [line for line in engine.output.splitlines() if "set aside" in line and place in line]
    assert len(aside) == 1
    assert "poison 4711" in aside[0]


def test_a_handler_that_always_kills_ends_the_engine(scene: SceneFactory) -> None:
    field = scene(partitions=2)
    field.feed.send(2000)
    engine = field.engine(ALWAYS_DEADLY, {"MaxAttempts": 1, "Processors": 1})
    assert engine.wait() == 6
    field.tail.poll()
    assert len({record.uid for record in field.tail.records}) < 50
