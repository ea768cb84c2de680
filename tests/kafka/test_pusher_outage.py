"""A broker that is gone for a while under a `Pusher` costs time and nothing else.

Method: push numbers under some keys, so that some are acknowledged and some on their way; kill the
only node with SIGKILL; push on, as a program would that knows nothing of it; start the node again.
The log then shows each message once and those of a key in order, though some were sent twice.
"""

import time
from typing import Any

import confluent_kafka as ck
import pytest

from kqmp import Pusher

KEYS = 20
THIRD = 150


def push_third(pusher: Pusher, begin: int) -> None:
    for number in range(begin, begin + THIRD):
        for key in range(KEYS):
            pusher.push(str(number), key=str(key))


def numbers_by_key(bootstrap: str, topic: str, count: int) -> dict[bytes, list[int]]:
    """Return the numbers of each key in the order of the log, of `count` messages and no more."""
    consumer = ck.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe([topic])
        messages = consumer.consume(count, timeout=40)
        messages += consumer.consume(1, timeout=0.5)
    finally:
        consumer.close()
    found: dict[bytes, list[int]] = {}
    for message in messages:
        assert message.error() is None
        found.setdefault(message.key() or b"", []).append(int(message.value() or b""))
    return found


@pytest.mark.parametrize(
    "away_s",
    [
        pytest.param(3.0, id="3s"),
        pytest.param(60.0, id="60s", marks=pytest.mark.soak),
    ],
)
def test_a_broker_that_is_gone_for_a_while_costs_nothing(
    kafka: Any, topic: Any, away_s: float
) -> None:
    name = topic(4)
    failed: list[object] = []
    pusher = Pusher(kafka.bootstrap, name, on_error=lambda message, error: failed.append(error))
    with pusher:
        push_third(pusher, 0)
        assert pusher.flush(30) == 0
        push_third(pusher, THIRD)
        kafka.kill(1)
        try:
            push_third(pusher, 2 * THIRD)
            assert pusher.statistics().waiting > 0
            time.sleep(away_s)
        finally:
            kafka.restart(1)
        assert pusher.flush(90) == 0
    assert failed == []
    count = 3 * THIRD * KEYS
    told = pusher.statistics()
    assert (told.pushed, told.delivered, told.failed) == (count, count, 0)
    found = numbers_by_key(kafka.bootstrap, name, count)
    assert found == {b"%d" % key: list(range(3 * THIRD)) for key in range(KEYS)}
