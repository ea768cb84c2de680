"""The fixture `scene`: a topic, a group, a feed and a ledger for engines on real Kafka."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scene import FAST, SLOW, Scene, new_feed

#: Handlers of 0 and of 20 ms, the messages that always wait, and Conns. Half of the pairs do for
#: every day, since `test_kills_under_load` has the others in another way.
LOADS = [
    pytest.param(FAST, 10_000, 1, id="0ms-1", marks=pytest.mark.soak),
    pytest.param(FAST, 10_000, 2, id="0ms-2"),
    pytest.param(SLOW, 100, 1, id="20ms-1"),
    pytest.param(SLOW, 100, 2, id="20ms-2", marks=pytest.mark.soak),
]

#: `scene(partitions=4, config=None, **feed_options)`.
SceneFactory = Callable[..., Scene]


@pytest.fixture
def scene(
    kafka: Any, kafka_admin: Any, topic: Any, group: str, tmp_path: Path
) -> Iterator[SceneFactory]:
    """Give a factory of scenes; all their engines, threads and clients end with the test."""
    made: list[Scene] = []

    def create(
        partitions: int = 4, config: dict[str, str] | None = None, **feed_options: Any
    ) -> Scene:
        name = topic(partitions, config)
        feed = new_feed(kafka, name, partitions, **feed_options)
        place = tmp_path / f"scene-{len(made)}"
        place.mkdir()
        one = Scene(
            kafka, kafka_admin, name, group, directory=place, partitions=partitions, feed=feed
        )
        made.append(one)
        return one

    yield create
    for one in made:
        one.close()
