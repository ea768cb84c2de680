"""Messages larger than the lanes' rings and than MaxBytes pass like any other.

Method: a topic that allows 20 MiB, and among small messages of the same keys some of 5 MB (more
than the whole default ring of 4 MiB) and one of 12 MB (more than the default MaxBytes of 10 MiB).
Each arrives unaltered (checksum in the ledger), once, and in the order of its key.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.feed import uniform_keys
from tests.support.scene import FAST

pytestmark = pytest.mark.engine

LIMIT = 20 << 20


def test_messages_larger_than_ring_and_max_bytes_pass_unaltered(scene: SceneFactory) -> None:
    keys = uniform_keys(8)
    field = scene(partitions=2, config={"max.message.bytes": str(LIMIT)}, keys=keys)
    for megabytes in (5, 5, 12, 5):
        field.feed.send(100)
        for key in keys[:2]:
            field.feed.send_one(key, bytes(range(256)) * (megabytes * 1_000_000 // 256))
    field.feed.send(100)
    field.watch_commits()
    engine = field.engine(FAST)
    field.wait_all_handled(engine)
    engine.stop()
    verdict = field.verdict()
    verdict.assert_sound(duplicates_at_most=0)
    assert verdict.handled == 508
    assert field.committed() == field.ends()
