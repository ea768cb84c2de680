"""10,000 keys with Zipf skew: everything once, each key in order, also while keys change lanes.

Method: the hottest key has a good tenth of all messages, thousands of keys have one or two. Four
processors, handlers of 0 ms. Null keys, which owe no order, are among them.
"""

import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.feed import uniform_keys, zipf_weights
from tests.support.scene import FAST

pytestmark = pytest.mark.engine

KEYS = 10_000


def test_ten_thousand_skewed_keys_keep_their_order(scene: SceneFactory) -> None:
    keys = [*uniform_keys(5), None, *uniform_keys(KEYS)[6:]]
    field = scene(partitions=4, keys=keys, weights=zipf_weights(KEYS))
    field.feed.send(40_000)
    field.watch_commits()
    engine = field.engine(FAST, {"Processors": 4})
    field.wait_all_handled(engine)
    engine.stop()
    verdict = field.verdict()
    verdict.assert_sound(duplicates_at_most=0)
    assert len({message.key for message in field.feed.acked}) > KEYS / 3
    workers = {record.pid for record in field.tail.records}
    assert len(workers) == 4
