"""Real Kafka for one run of the script, its loaded topics, and what a group has committed."""

import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from perf.lib.processes import ROOT, RunFailed, Tree

sys.path.append(str(ROOT / "scripts"))  # its modules import each other by name

from kafka_cluster import Cluster

#: A group's first rebalance waits so long for further members, so that the processes of one engine
#: get their partitions in one go; a member that came later would cause repeats.
REBALANCE_DELAY_MS = 300
#: What an idle node does all the time takes 4.6% of a core as tests want it (it notices within
#: seconds what died), and 1.2% so: it shares the cores with what is measured.
CALM = {
    "broker.heartbeat.interval.ms": "2000",
    "broker.session.timeout.ms": "9000",
    "metadata.max.idle.interval.ms": "0",
}
#: The first JIT compiler alone: the second works for minutes, beside what is measured.
HEAP = "-Xms256m -Xmx1g -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
LOAD_TIMEOUT_S = 300.0
REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Load:
    """What lies in a topic."""

    count: int
    partitions: int
    keys: int
    #: Number of the message that makes `perf.handlers.slow` sleep, -1 = none.
    sleeper_at: int = -1


class Broker:
    """One Kafka node of our own on a free port, gone at the end with all its data."""

    def __init__(self, properties: Mapping[str, str] | None = None) -> None:
        """Describe it; `with` starts it.

        Args:
            properties: broker settings beyond the usual ones.
        """
        delay = {"group.initial.rebalance.delay.ms": str(REBALANCE_DELAY_MS)}
        settings = {**CALM, **delay, **(properties or {})}
        self._cluster = Cluster(nodes=1, properties=settings, heap=HEAP)
        self._topics: dict[Load, str] = {}

    def __enter__(self) -> Self:
        """Start it."""
        self._cluster.say = lambda line: print(line, file=sys.stderr)
        self._cluster.start()
        self.address = self._cluster.bootstrap
        # Silent: it would complain of the end of the broker.
        self._admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and remove its data."""
        self._cluster.stop()

    def topic(self, load: Load) -> str:
        """Return a topic with exactly this load, made at the first call.

        Raises:
            RunFailed: the producer did not deliver all.
        """
        if load not in self._topics:
            name = f"perf-{len(self._topics)}-{load.count}x{load.partitions}"
            new = NewTopic(name, num_partitions=load.partitions, replication_factor=1)
            self._admin.create_topics([new])[name].result(REQUEST_TIMEOUT_S)
            self._fill(name, load)
            self._topics[load] = name
        return self._topics[load]

    def new_topic(self, partitions: int) -> str:
        """Make an empty topic; return when every partition of it answers."""
        name = f"perf-{uuid.uuid4().hex[:8]}"
        new = NewTopic(name, num_partitions=partitions, replication_factor=1)
        self._admin.create_topics([new])[name].result(REQUEST_TIMEOUT_S)
        deadline_s = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            try:
                self.end_sum(name, partitions)
            except KafkaException:  # it has no leader yet
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)
            else:
                return name

    def drop_topic(self, name: str) -> None:
        """Remove a topic."""
        self._admin.delete_topics([name])[name].result(REQUEST_TIMEOUT_S)

    def _fill(self, name: str, load: Load) -> None:
        command = [sys.executable, "-m", "perf.lib.load", name, "--brokers", self.address]
        for option in ("count", "keys", "sleeper_at"):
            command += [f"--{option.replace('_', '-')}", str(getattr(load, option))]
        tree = Tree(command, {})
        try:
            if tree.wait(LOAD_TIMEOUT_S):
                raise RunFailed(tree.complaint(f"loading {name} failed"))
        finally:
            tree.kill()
        found = self.end_sum(name, load.partitions)
        if found != load.count:
            raise RunFailed(f"{name} holds {found} messages instead of {load.count}")

    def new_group(self, stem: str) -> str:
        """Return a group's name that nobody has used."""
        return f"perf-{stem}-{uuid.uuid4().hex[:8]}"

    def committed_sum(self, group: str, topic: str, partitions: int) -> int:
        """Return how many messages the group has committed; all its partitions begin at 0."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        try:
            asked = [TopicPartition(topic, p) for p in range(partitions)]
            answer = consumer.committed(asked, timeout=REQUEST_TIMEOUT_S)
        finally:
            consumer.close()
        return sum(max(0, part.offset) for part in answer)

    def end_sum(self, topic: str, partitions: int) -> int:
        """Return how many messages a topic holds that never lost any."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "perf"})
        try:
            return sum(
                consumer.get_watermark_offsets(
                    TopicPartition(topic, p), timeout=REQUEST_TIMEOUT_S, cached=False
                )[1]
                for p in range(partitions)
            )
        finally:
            consumer.close()
