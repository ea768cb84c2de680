"""The fixture `scene`: a topic, a group, a feed and a ledger for engines on real Kafka."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scene import Scene, new_feed

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
