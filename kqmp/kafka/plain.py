"""What `kqmp demo` needs of Kafka besides the engine: a producer, a plain loop, a look at offsets.

The plain loop is what a Python consumer usually looks like, and what the engine is compared with.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import confluent_kafka as ck

#: Messages between two reports of progress.
_REPORT_EVERY: Final = 5000
#: Bound of a request to the brokers.
_REQUEST_S: Final = 10.0


def _client(bootstrap: str) -> dict[str, str | int | bool]:
    # Silent: a demo that is interrupted ends its broker before its clients.
    return {"bootstrap.servers": bootstrap, "log_level": 0}


def produce(bootstrap: str, topic: str, messages: Iterable[tuple[bytes, bytes]]) -> Iterator[int]:
    """Produce (key, value) pairs, compressed; yield how many were handed over, now and then.

    When it is exhausted the brokers have acknowledged all. A key goes to one partition, in order.

    Raises:
        ck.KafkaException: a message was refused, or not acknowledged in time.
    """
    failed: list[ck.KafkaError] = []

    def delivered(error: ck.KafkaError | None, _message: ck.Message) -> None:
        if error is not None:
            failed.append(error)

    producer = ck.Producer(
        {
            **_client(bootstrap),
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 20,
            "on_delivery": delivered,
        }
    )
    count = 0
    for key, value in messages:
        while not _enqueue(producer, topic, key, value):
            producer.poll(0.1)
        count += 1
        if count % _REPORT_EVERY == 0:
            producer.poll(0)
            yield count
    while producer.flush(0.2):
        yield count
    if failed:
        raise ck.KafkaException(failed[0])


def _enqueue(producer: ck.Producer, topic: str, key: bytes, value: bytes) -> bool:
    """Hand a message over; return False if the producer's queue is full."""
    try:
        producer.produce(topic, value, key)
    except BufferError:
        return False
    return True


def log_bounds(bootstrap: str, topic: str) -> tuple[int, int]:
    """Return the first offsets and the ends of all partitions' logs, each added up.

    Raises:
        ck.KafkaException: the brokers did not answer.
    """
    consumer = ck.Consumer({**_client(bootstrap), "group.id": "kqmp-look"})
    try:
        partitions = consumer.list_topics(topic, _REQUEST_S).topics[topic].partitions
        bounds = [
            consumer.get_watermark_offsets(ck.TopicPartition(topic, p), _REQUEST_S)
            for p in partitions
        ]
    finally:
        consumer.close()
    return sum(low for low, _ in bounds), sum(high for _, high in bounds)


def committed_sum(bootstrap: str, topic: str, group: str) -> int:
    """Return the group's committed positions of all partitions, added up (none counts as 0).

    Raises:
        ck.KafkaException: the brokers did not answer.
    """
    consumer = ck.Consumer({**_client(bootstrap), "group.id": group})
    try:
        partitions = consumer.list_topics(topic, _REQUEST_S).topics[topic].partitions
        asked = [ck.TopicPartition(topic, p) for p in partitions]
        answer = consumer.committed(asked, _REQUEST_S)
    finally:
        consumer.close()
    return sum(max(0, part.offset) for part in answer)


def poll_loop(
    bootstrap: str,
    topic: str,
    group: str,
    handle: Callable[..., object],
    count: int,
) -> None:
    """Call `handle(key, value)` for `count` messages, one after another, from the beginning."""
    consumer = ck.Consumer(
        {
            **_client(bootstrap),
            "group.id": group,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.subscribe([topic])
    while count:
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        handle(message.key(), message.value())
        count -= 1
    consumer.close()
