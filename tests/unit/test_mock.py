"""The mock cluster in its own process: partitions, producing, groups as kqmp uses them, its end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import confluent_kafka as ck
import psutil
import pytest

from kqmp.errors import WorkerStartError
from kqmp.kafka.mock import MockCluster, MockHost, end_helper, first_line, start_helper
from kqmp.kafka.plain import committed_sum, log_bounds, poll_loop, produce
from tests.support.kafka import ROOT

TOPIC = "orders"
PARTITIONS = 20

pytestmark = pytest.mark.engine


@pytest.fixture
def host() -> Iterator[MockHost]:
    with MockHost(TOPIC, PARTITIONS) as running:
        yield running


def pairs(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"key %d" % (number % 50), b"value %d" % number) for number in range(count)]


def produce_all(host: MockHost, count: int) -> None:
    for _ in produce(host.bootstrap, TOPIC, pairs(count)):
        pass


def wait_until(reached: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_topic_has_the_partitions_it_was_made_with(host: MockHost) -> None:
    consumer = ck.Consumer({"bootstrap.servers": host.bootstrap, "group.id": "g"})
    metadata = consumer.list_topics(timeout=10)
    consumer.close()
    assert host.bootstrap.startswith("127.0.0.1:")
    assert {name: len(topic.partitions) for name, topic in metadata.topics.items()} == {
        TOPIC: PARTITIONS
    }


def test_what_was_produced_is_all_there_and_spread(host: MockHost) -> None:
    produce_all(host, 6000)
    assert log_bounds(host.bootstrap, TOPIC) == (0, 6000)


def test_retention_drops_in_silence_and_the_bounds_tell() -> None:
    """Why the demo compares them: one partition keeps 5 MiB, and the producer hears nothing."""
    with MockHost(TOPIC, 1) as host:
        producer = ck.Producer({"bootstrap.servers": host.bootstrap})
        for _ in range(300):
            producer.produce(TOPIC, bytes(50_000))
        assert producer.flush(30) == 0
        low, high = log_bounds(host.bootstrap, TOPIC)
    assert high == 300
    assert low > 0


def test_the_plain_loop_handles_and_commits_what_it_is_given(host: MockHost) -> None:
    produce_all(host, 500)
    got: list[tuple[bytes, bytes]] = []
    poll_loop(host.bootstrap, TOPIC, "plain", lambda key, value: got.append((key, value)), 500)
    assert sorted(got) == sorted(pairs(500))
    of_key = [value for key, value in got if key == b"key 7"]
    assert of_key == [value for key, value in pairs(500) if key == b"key 7"]
    assert committed_sum(host.bootstrap, TOPIC, "plain") == 500


def test_a_cooperative_group_shares_and_a_rebalance_takes_the_session_timeout(
    host: MockHost,
) -> None:
    """The protocol kqmp uses; the mock ends a rebalance a second before the session timeout."""
    session_s = 2.0
    assigned: dict[str, set[int]] = {"first": set(), "second": set()}

    def member(name: str) -> ck.Consumer:
        def gained(consumer: ck.Consumer, parts: list[ck.TopicPartition]) -> None:
            consumer.incremental_assign(parts)
            assigned[name].update(part.partition for part in parts)

        def gave_up(consumer: ck.Consumer, parts: list[ck.TopicPartition]) -> None:
            consumer.incremental_unassign(parts)
            assigned[name].difference_update(part.partition for part in parts)

        consumer = ck.Consumer(
            {
                "bootstrap.servers": host.bootstrap,
                "group.id": "shared",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": int(session_s * 1000),
                "heartbeat.interval.ms": 300,
            }
        )
        consumer.subscribe([TOPIC], on_assign=gained, on_revoke=gave_up)
        return consumer

    def poll(*members: ck.Consumer) -> None:
        for one in members:
            one.poll(0.02)

    everything = set(range(PARTITIONS))
    first = member("first")
    # Alone it joins at once: the delay of a first rebalance is 0 here, 3 s by default.

    def has_all() -> bool:
        poll(first)
        return assigned["first"] == everything

    wait_until(has_all)
    second = member("second")

    def are_shared() -> bool:
        poll(first, second)
        union = assigned["first"] | assigned["second"]
        return bool(assigned["second"]) and union == everything

    began_s = time.monotonic()
    wait_until(are_shared)
    assert time.monotonic() - began_s >= session_s - 1
    assert assigned["first"].isdisjoint(assigned["second"])
    assert abs(len(assigned["first"]) - len(assigned["second"])) <= 1
    first.close()
    second.close()


def test_it_ends_with_its_block_and_a_second_close_is_harmless() -> None:
    with MockHost(TOPIC, 1) as host:
        process = psutil.Process(host.pid)
        assert host.is_alive()
    assert not host.is_alive()
    assert not process.is_running()
    host.close()


def test_it_ends_when_its_starter_is_killed() -> None:
    program = (
        "import os; from kqmp.kafka.mock import MockHost;"
        " host = MockHost('t', 1); print(host.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not _runs(int(done.stdout)))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_cluster_that_cannot_be_made_is_one_error() -> None:
    with pytest.raises(WorkerStartError, match="cannot create topic"):
        MockHost(TOPIC, 0)


def test_a_cluster_can_be_hosted_in_this_process_too() -> None:
    cluster = MockCluster(rebalance_delay_ms=10)
    cluster.create_topic("a", 3)
    with pytest.raises(WorkerStartError, match="'a'"):
        cluster.create_topic("a", 3)
    assert log_bounds(cluster.bootstrap, "a") == (0, 0)
    cluster.close()


def test_a_helper_that_ends_without_a_word_is_noticed() -> None:
    process = start_helper("time", [])  # it has no main(): the process ends at once
    assert first_line(process, 30.0) == ""
    end_helper(process)
    assert process.returncode == 1
