"""scripts/kafka and its Cluster on real Kafka: they serve, survive kills, and leave nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from tests.support.kafka import cluster_module, create_topic

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KAFKA = Path(str(cluster_module().__file__)).with_name("kafka")


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    """Write one message and return when all replicas in sync have it."""
    failures: list[Any] = []
    producer = Producer(
        {"bootstrap.servers": bootstrap, "acks": "all", "message.max.bytes": 12_000_000}
    )
    producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(30) == 0
    assert failures == [None]


def read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """Read the first messages of a topic as a new group."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe([topic])
        messages = consumer.consume(count, timeout=30)
        assert [message.error() for message in messages] == [None] * count
        return [message.value() or b"" for message in messages]
    finally:
        consumer.close()


def jvms_below(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(True) if child.name() == "java"]


def pids_of(cluster: Any) -> list[int | None]:
    return [node.pid for node in cluster.status()]


def test_one_node_keeps_its_messages_over_a_kill():
    before = set(jvms_below(os.getpid()))
    with cluster_module().Cluster() as cluster:
        directory = cluster.directory
        # Another spelling of 127.0.0.1, which the project's first YAML file uses.
        bootstrap = cluster.bootstrap.replace("127.0.0.1", "127.0.1")
        admin = AdminClient({"bootstrap.servers": bootstrap})
        create_topic(admin, "kept", 1, None, 1)
        value = b"x" * 10_000_000
        produce(bootstrap, "kept", value)
        with pytest.raises(cluster_module().KafkaError, match="runs already"):
            cluster.start()
        cluster.kill(1)
        assert pids_of(cluster) == [None]
        cluster.restart(1)
        produce(bootstrap, "kept", b"after")
        assert read(bootstrap, "kept", 2) == [value, b"after"]
    assert set(jvms_below(os.getpid())) == before
    assert not directory.exists()


def test_three_nodes_take_messages_while_one_is_down():
    with cluster_module().Cluster(nodes=3) as cluster:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        create_topic(admin, "spread", 3, None, 3)
        produce(cluster.bootstrap, "spread", b"before")
        # Node 1 comes first in the bootstrap addresses.
        cluster.kill(1)
        produce(cluster.bootstrap, "spread", b"meanwhile")
        assert sorted(read(cluster.bootstrap, "spread", 2)) == [b"before", b"meanwhile"]
        cluster.restart(1)
        pids = pids_of(cluster)
        assert None not in pids
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in pids)


def test_a_node_that_cannot_start_shows_its_log_and_leaves_nothing():
    before = set(jvms_below(os.getpid()))
    cluster = cluster_module().Cluster(properties={"log.cleaner.threads": "none"})
    with pytest.raises(cluster_module().KafkaError) as caught:
        cluster.start()
    assert "log.cleaner.threads" in str(caught.value)
    assert cluster.status() == []
    assert set(jvms_below(os.getpid())) == before


def test_data_in_a_directory_of_ones_own_survive_stop(tmp_path: Path):
    first = cluster_module().Cluster(data=tmp_path / "data")
    with first:
        create_topic(AdminClient({"bootstrap.servers": first.bootstrap}), "kept", 1, None, 1)
        produce(first.bootstrap, "kept", b"value")
    second = cluster_module().Cluster(data=tmp_path / "data")
    with second:
        assert second.ports != first.ports
        assert read(second.bootstrap, "kept", 1) == [b"value"]


SESSION = """
import os, sys
sys.path.insert(0, sys.argv[1])
from kafka_cluster import Cluster
cluster = Cluster()
cluster.start()
print(cluster.status()[0].pid, flush=True)
sys.stdin.read()
"""


def test_a_killed_session_takes_its_brokers_along():
    command = [sys.executable, "-c", SESSION, str(KAFKA.parent)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdout is not None
        broker = psutil.Process(int(session.stdout.readline()))
        assert broker.name() == "java"
        session.kill()
        broker.wait(30)


# The command line

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kafka_command(tmp_path: Path) -> Iterator[Run]:
    """Give `scripts/kafka` with a state directory and a port of its own; stop it in the end."""
    port = cluster_module().choose_ports(1)[0]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KAFKA, arguments[0], f"--port={port}", *arguments[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    yield run
    run("stop")


def test_the_command_line_from_start_to_stop(kafka_command: Run):
    # `run` reads the outputs to their end, so this also shows that the broker does not hold them.
    started = kafka_command("start").stdout
    assert "Apache Kafka 4.3.1, 1 node, bootstrap 127.0.0.1:" in started
    again = kafka_command("start")
    assert "runs already" in again.stderr
    assert again.stdout == started == kafka_command("status").stdout
    assert "cluster of 1 node(s) runs" in kafka_command("start", "--nodes=3", code=1).stderr

    bootstrap = kafka_command("env").stdout.strip()
    create_topic(AdminClient({"bootstrap.servers": bootstrap}), "kept", 1, None, 1)
    produce(bootstrap, "kept", b"value")
    kafka_command("kill", "1")
    assert "down" in kafka_command("status", code=3).stdout
    kafka_command("kill", "1", code=3)
    assert "there is no node 2" in kafka_command("restart", "2", code=1).stderr
    kafka_command("restart", "1")
    assert read(bootstrap, "kept", 1) == [b"value"]

    assert "data removed" in kafka_command("stop").stderr
    assert "no cluster on port" in kafka_command("stop").stderr
    kafka_command("status", code=3)


def test_a_terminated_start_leaves_nothing(tmp_path: Path):
    port = cluster_module().choose_ports(1)[0]
    state = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [str(KAFKA), "start", f"--port={port}"]
    with subprocess.Popen(command, env=state, stderr=subprocess.PIPE, text=True) as start:
        link = tmp_path / "state" / "kqmp" / f"kafka-{port}"
        while not link.is_symlink():
            assert start.poll() is None
        directory = link.readlink()
        start.send_signal(signal.SIGTERM)
        _, err = start.communicate(timeout=60)
    assert (start.returncode, err) == (130, "kafka: interrupted\n")
    assert not link.is_symlink()
    assert not directory.exists()
    # A JVM that was sent SIGKILL takes a moment to go on a busy machine.
    deadline = time.monotonic() + 10
    while any(
        str(directory) in " ".join(p.info["cmdline"] or ())
        for p in psutil.process_iter(["cmdline"])
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
