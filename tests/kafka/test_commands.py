"""`kqmp tail`, `topic` and `lag` on real Kafka, as processes of their own."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest

from tests.support.kafka import ROOT, unique_name
from tests.support.terminal import Session

PUSHER = """\
KqPusherConf:
  Brokers: [{bootstrap}]
  Topic: {topic}
  ChunkSize: 1048576
  FlushInterval: 1s
"""


class Commands:
    """Runs commands against one cluster."""

    def __init__(self, bootstrap: str, directory: Path) -> None:
        self.bootstrap = bootstrap
        self.directory = directory
        self.producer = ck.Producer({"bootstrap.servers": bootstrap, "log_level": 0})

    def line(self, *arguments: str) -> list[str]:
        named = [] if "-f" in arguments else ["--brokers", self.bootstrap]
        return [sys.executable, "-P", "-m", "kqmp", *arguments, *named]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit code, output and errors."""
        done = subprocess.run(
            self.line(*arguments),
            cwd=self.directory,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def out(self, *arguments: str) -> list[str]:
        """Return the lines of a command that ends well."""
        code, output, errors = self.run(*arguments)
        assert (code, errors) == (0, "")
        return output.splitlines()

    def produce(self, topic: str, partition: int, *values: bytes | None, **more: Any) -> None:
        answers: list[ck.KafkaError | None] = []
        more["on_delivery"] = lambda error, _: answers.append(error)
        for value in values:
            self.producer.produce(topic, value, partition=partition, **more)
        assert self.producer.flush(30) == 0
        assert answers == [None] * len(values)


@pytest.fixture
def commands(kafka: Any, tmp_path: Path) -> Commands:
    return Commands(kafka.bootstrap, tmp_path)


@pytest.fixture
def terminal(commands: Commands) -> Iterator[Callable[..., Session]]:
    """Give what starts a command in a terminal of its own."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> Session:
            session = Session(commands.line(*arguments), ROOT, {"NO_COLOR": "1"}, (160, 30))
            stack.callback(session.close)
            return session

        yield start


def test_tail_shows_what_is_there_by_a_pusher_s_section(commands: Commands, topic: Any) -> None:
    name = topic(2, {"retention.ms": "-1"})
    (commands.directory / "mq.yaml").write_text(
        PUSHER.format(bootstrap=commands.bootstrap, topic=name)
    )
    headers = [("h", b"1"), ("h", b"\xff")]
    commands.produce(name, 0, b"a\nb", None, key=b"k", headers=headers, timestamp=1_700_000_000_000)
    commands.produce(name, 1, b"c", b"d", b"\xff", timestamp=1_710_000_000_000)
    source = ("tail", "-f", "mq.yaml", "-e")
    rows = [json.loads(line) for line in commands.out(*source, "-o", "beginning", "--json")]
    assert len(rows) == 5
    by_place = {(row["partition"], row["offset"]): row for row in rows}
    assert sorted(by_place) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert by_place[0, 0] == {
        "topic": name,
        "partition": 0,
        "offset": 0,
        "timestamp": 1_700_000_000_000,
        "timestamp_type": "create",
        "key": "k",
        "value": "a\nb",
        "headers": [["h", "1"], ["h", {"base64": "/w=="}]],
    }
    assert by_place[0, 1]["value"] is None
    assert by_place[1, 2]["value"] == {"base64": "/w=="}
    # From other places than the beginning.
    assert commands.out(*source, "-o", "-1", "-p", "0") == [
        "0\t1\t2023-11-14T22:13:20.000Z\tk\t-\th=1,h=\\xff"
    ]
    assert commands.out(*source, "-o", "1", "-p", "1", "--raw", "-c", "1") == ["d"]
    later = commands.out(*source, "-o", "@1705000000")
    assert [line.split("\t")[:2] for line in later] == [["1", "0"], ["1", "1"], ["1", "2"]]
    assert commands.out(*source) == []
    code, _, errors = commands.run(*source, "-p", "2")
    assert (code, errors) == (2, f"error: -p 2: topic {name} has 2 partitions, numbered from 0\n")


def test_tail_follows_until_ctrl_c_and_joins_no_group(
    commands: Commands, topic: Any, terminal: Any, kafka_admin: Any
) -> None:
    name = topic(2)
    commands.produce(name, 0, b"old")
    session = terminal("tail", name)
    session.read_until("only what comes now; Ctrl-C ends it")
    commands.produce(name, 1, b"new", key=b"k")
    session.read_until("new")
    session.type("\x03")
    assert session.wait() in (130, -signal.SIGINT)
    assert "old" not in session.text
    assert "Traceback" not in session.text
    listed = kafka_admin.list_consumer_groups(request_timeout=30).result()
    assert "kqmp-tail" not in [group.group_id for group in listed.valid]


@pytest.mark.parametrize("count", [1, 50_000], ids=["quiet", "busy"])
def test_a_reader_that_is_gone_ends_tail_quietly(
    commands: Commands, topic: Any, count: int
) -> None:
    name = topic(1)
    commands.produce(name, 0, *([b"x" * 20] * count))
    process = subprocess.Popen(
        commands.line("tail", name, "-o", "beginning", "--raw"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(21) == b"x" * 20 + b"\n"
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_a_topic_is_created_and_shown(commands: Commands, kafka_admin: Any) -> None:
    name = unique_name("test-topic")
    create = ("topic", "create", name)
    made = commands.out(
        *create, "--partitions", "2", "--replication", "1", "--config", "retention.ms=1000"
    )
    try:
        assert made == [f"created {name}: 2 partitions, replication 1"]
        commands.produce(name, 1, b"a", b"b")
        assert commands.out("topic", "show", name) == [
            "partition\t0\t1\t1\t1\t0\t0\t0",
            "partition\t1\t1\t1\t1\t0\t2\t2",
            "config\tretention.ms\t1000",
        ]
        listed = commands.out("topic", "show")
        assert f"{name}\t2\t1\t2" in listed
        assert not [line for line in listed if line.startswith("__")]
        code, output, errors = commands.run(*create)
        assert (code, output) == (5, "")
        assert errors == f"error: topic {name} exists already; kqmp topic show {name}\n"
        assert commands.out(*create, "--if-missing") == [f"topic {name} exists already"]
    finally:
        kafka_admin.delete_topics([name])[name].result(timeout=30)
    code, _, errors = commands.run("topic", "create", f"{name}-2", "--replication", "3")
    assert code == 2
    assert "the brokers refuse it" in errors


def test_a_missing_topic_is_one_line_that_guesses(commands: Commands, topic: Any) -> None:
    name = topic(1)
    for arguments in (["tail", name[:-1]], ["topic", "show", name[:-1]]):
        code, output, errors = commands.run(*arguments)
        assert (code, output) == (5, "")
        assert errors.startswith(f"error: topic {name[:-1]} does not exist at")
        assert f"did you mean {name}?" in errors
        assert errors.count("\n") == 1


def test_lag_of_any_group(commands: Commands, topic: Any, group: str) -> None:
    name = topic(3)
    commands.produce(name, 0, *([b"x"] * 10))
    commands.produce(name, 1, *([b"x"] * 5))
    consumer = ck.Consumer({"bootstrap.servers": commands.bootstrap, "group.id": group})
    places = [ck.TopicPartition(name, 0, 4), ck.TopicPartition(name, 1, 5)]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()
    assert commands.out("lag", group, "--over", "0") == [
        f"{name}\t0\t4\t10\t6\t-\t-\t-\t-",
        f"{name}\t1\t5\t5\t0\t-\t-\t-\t-",
    ]
    (line,) = commands.out("lag", group, "--over", "0.1", "--json", "--topic", name)
    told = json.loads(line)
    assert (told["group"], told["state"], told["members"]) == (group, "empty", 0)
    assert (told["lag"], told["committed_per_s"], told["produced_per_s"]) == (6, 0.0, 0.0)
    assert [part["drain_s"] for part in told["partitions"]] == [None, 0.0]
    assert f"{group}\tempty" in commands.out("lag")
    code, output, errors = commands.run("lag", group[:-1])
    assert (code, output) == (5, "")
    assert errors.startswith(f"error: group {group[:-1]} does not exist at")
    assert errors.count("\n") == 1


def test_lag_names_the_member_that_owns_a_partition(
    commands: Commands, topic: Any, group: str, terminal: Any
) -> None:
    name = topic(1)
    commands.produce(name, 0, b"x")
    consumer = ck.Consumer(
        {
            "bootstrap.servers": commands.bootstrap,
            "group.id": group,
            "group.instance.id": "mq-0",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    try:
        consumer.subscribe([name])
        message = consumer.poll(60)
        assert message is not None
        consumer.commit(message=message, asynchronous=False)
        session = terminal("lag", group, "--watch=0.1")
        session.read_until("mq-0@127.0.0.1")
        session.read_until("produced 0.0/s")
        assert f"group {group}: stable, 1 member, lag 0" in session.text
        session.type("\x03")
        assert session.wait() in (130, -signal.SIGINT)
    finally:
        consumer.close()
