"""An outside observer of a group's committed positions, for invariants 1 and 6.

It asks as a client that never joins the group. (AdminClient.list_consumer_group_offsets would do,
but librdkafka 2.16 ends the process with SIGSEGV when the group's coordinator is not ready: the
answer's error is handed to a consumer group that an admin client does not have.)
"""

import threading
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.support.judge import Observation

EVERY_S = 0.1


class Observer:
    """Asks for the committed positions of one topic in one group."""

    def __init__(self, bootstrap: str, group: str, topic: str, partitions: int) -> None:
        self._asked = [TopicPartition(topic, number) for number in range(partitions)]
        self._client = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )

    def committed(self, timeout_s: float = 10) -> dict[int, int]:
        """Return partition -> committed position of those that have one.

        Raises:
            KafkaException: no answer within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                answer = self._client.committed(self._asked, timeout=min(2.0, timeout_s))
            except KafkaException:  # the group's coordinator is starting or moving
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return {part.partition: part.offset for part in answer if part.offset >= 0}

    def close(self) -> None:
        """Free the client."""
        self._client.close()


class CommitWatch:
    """Looks every 100 ms, in a thread, until `stop`. Broker outages only leave gaps."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.observations: list[Observation] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="commit-watch")
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                positions = self._observer.committed(timeout_s=0.5)
            except KafkaException:
                continue
            self.observations.append(Observation(time.monotonic_ns(), positions))

    def stop(self) -> None:
        """Look no more. Idempotent."""
        self._stop.set()
        self._thread.join()
