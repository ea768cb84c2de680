"""SystemExit, KeyboardInterrupt and MemoryError in a handler end its processor, not the engine.

Method: some messages raise the first time they are handled. Each such message is handled again by
the successor; nothing else is repeated, nothing is lost, and the fetcher stays the same process.
"""

import pytest

from tests.kafka.conftest import SceneFactory

pytestmark = pytest.mark.engine

RAISES_ONCE = """
import os
from pathlib import Path
from tests.support.ledger import Ledger
ledger = Ledger()

def consume(message):
    with ledger.handling(message):
        uid = int(message.value.split()[0])
        if uid % 100 == 50:
            try:
                Path(f"raised-{uid}").touch(exist_ok=False)
            except FileExistsError:
                return
            raise (SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit)[uid // 100 % 4]
"""


def test_what_is_no_exception_ends_the_processor_only(scene: SceneFactory) -> None:
    field = scene(partitions=2)
    field.feed.send(600)
    field.watch_commits()
    engine = field.engine(RAISES_ONCE)
    engine.wait_until(engine.fetchers, "a fetcher")
    fetchers = engine.fetchers()
    field.wait_all_handled(engine)
    assert engine.fetchers() == fetchers
    engine.stop()
    verdict = field.verdict()
    verdict.assert_sound()
    assert verdict.repeats == dict.fromkeys(range(50, 600, 100), 1)
    assert field.committed() == field.ends()
