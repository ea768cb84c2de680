"""The producer side of a scenario: messages with uids, and what the brokers acknowledged.

Values carry their uid, keys are uniform or Zipf distributed, and each key has its partition. With
acks=all and an idempotent producer the offsets of a partition follow the order of sending, also
across a broker's restart.
"""

import itertools
import random
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Producer

from tests.support.judge import Produced

#: Keys are drawn in portions, which is cheap.
PORTION = 2000


def uniform_keys(count: int) -> list[bytes]:
    """Return `count` keys, to be drawn with equal chance."""
    return [b"k%d" % number for number in range(count)]


def zipf_weights(count: int, exponent: float = 1.1) -> list[float]:
    """Return cumulative weights by which the first keys are drawn far more often."""
    return list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(count)))


class Feed:
    """Sends messages to one topic and keeps what was acknowledged.

    One thread at a time sends: either the caller of `send`, or the one that `keep_ahead` starts.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        keys: Sequence[bytes | None],
        *,
        weights: Sequence[float] | None = None,
        value_bytes: int = 100,
        seed: int = 0,
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._keys = keys
        self._weights = weights
        self._padding = b"." * value_bytes
        self._random = random.Random(seed)
        self._uid = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "queue.buffering.max.messages": 200_000,
                "message.max.bytes": 20 << 20,
                "delivery.timeout.ms": 120_000,
                "log_level": 0,
            }
        )
        #: In the order of acknowledgement.
        self.acked: list[Produced] = []
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def sent(self) -> int:
        """Messages given to the producer so far; the next uid."""
        return self._uid

    def partition_of(self, key: bytes | None) -> int:
        """Return the partition of a key; null keys go round."""
        chosen = self._uid if key is None else zlib.crc32(key)
        return chosen % self._partitions

    def send_one(self, key: bytes | None, body: bytes | None = None) -> int:
        """Send one message, unflushed; return its uid."""
        uid = self._uid
        partition = self.partition_of(key)
        self._uid += 1
        value = b"%d %s" % (uid, self._padding if body is None else body)
        crc = zlib.crc32(value)

        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                self.errors.append(str(error))
            else:
                self.acked.append(Produced(uid, partition, message.offset(), key, crc))

        while True:
            try:
                self._producer.produce(
                    self._topic, value, key, partition=partition, on_delivery=delivered
                )
                return uid
            except BufferError:
                self._producer.poll(0.1)

    def send(self, count: int) -> None:
        """Send `count` messages with drawn keys and wait until all are acknowledged."""
        for start in range(0, count, PORTION):
            for key in self._draw(min(PORTION, count - start)):
                self.send_one(key)
            self._producer.poll(0)
        self.flush()

    def flush(self, timeout_s: float = 60) -> None:
        """Wait until all is acknowledged."""
        left = self._producer.flush(timeout_s)
        assert left == 0, f"{left} messages are not acknowledged after {timeout_s} s"
        assert not self.errors, self.errors[:5]

    def _draw(self, count: int) -> list[bytes | None]:
        return self._random.choices(self._keys, cum_weights=self._weights, k=count)

    def keep_ahead(self, handled: Callable[[], int], backlog: int) -> None:
        """From now on send so much, in a thread, that `backlog` messages always wait.

        Args:
            handled: returns about how many were handled so far.
            backlog: messages that the topic holds beyond those.
        """
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._keep_ahead, args=(handled, backlog), name="feed"
        )
        self._thread.start()

    def _keep_ahead(self, handled: Callable[[], int], backlog: int) -> None:
        while not self._stop.is_set():
            missing = handled() + backlog - self._uid
            for key in self._draw(min(PORTION, max(0, missing))):
                self.send_one(key)
            self._producer.poll(0)
            if missing < PORTION:
                time.sleep(0.01)

    def finish(self) -> None:
        """End the thread of `keep_ahead` and wait until all is acknowledged. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()

    def abandon(self) -> None:
        """End the thread, whatever is not acknowledged (a failed test)."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._producer.purge()
