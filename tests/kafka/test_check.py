"""`kqmp check` on real Kafka: each thing that can be wrong, and all that can be looked at is."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest

from tests.support.kafka import ROOT

HANDLERS = """\
from kqmp import KqConf, Queue

def consume(key, value):
    pass

def nothing():
    pass

def queue():
    return Queue(KqConf(brokers=["BROKERS"], group="GROUP", topic="TOPIC", processors=1), consume)
"""


class Check:
    """`kqmp check` in a directory with handlers."""

    def __init__(self, directory: Path, bootstrap: str, group: str) -> None:
        self.directory = directory
        self.bootstrap = bootstrap
        self.group = group
        self.topic = "no-topic"

    def run(self, *arguments: str) -> tuple[int, str]:
        """Return exit code and output."""
        text = HANDLERS.replace("BROKERS", self.bootstrap).replace("GROUP", self.group)
        (self.directory / "mqs.py").write_text(text.replace("TOPIC", self.topic))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "kqmp", "check", *arguments],
            cwd=self.directory,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    def with_flags(self, *more: str, target: str = "mqs:consume") -> tuple[int, str]:
        named = ["--brokers", self.bootstrap, "--group", self.group, "--topic", self.topic]
        return self.run(target, *named, *more)


@pytest.fixture
def check(kafka: Any, group: str, tmp_path: Path) -> Check:
    return Check(tmp_path, kafka.bootstrap, group)


@pytest.fixture
def member(check: Check) -> Iterator[Callable[..., None]]:
    """Give what adds a member to the group, with extra properties, and waits until it is in."""
    members: list[ck.Consumer] = []

    def join(**properties: Any) -> None:
        names = {name.replace("_", "."): value for name, value in properties.items()}
        consumer = ck.Consumer(
            {
                "bootstrap.servers": check.bootstrap,
                "group.id": check.group,
                "auto.offset.reset": "earliest",
                **names,
            }
        )
        members.append(consumer)
        assigned: list[int] = []
        consumer.subscribe([check.topic], on_assign=lambda _, parts: assigned.append(len(parts)))
        deadline = time.monotonic() + 40
        while not assigned:
            assert time.monotonic() < deadline, "no assignment"
            consumer.poll(0.1)

    yield join
    for consumer in members:
        consumer.close()


def produce(check: Check, count: int) -> None:
    producer = ck.Producer({"bootstrap.servers": check.bootstrap})
    for _ in range(count):
        producer.produce(check.topic, b"value")
    assert producer.flush(30) == 0


def lines(output: str, status: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(f"{status} ")]


def test_all_is_ok(check: Check, topic: Any) -> None:
    check.topic = topic(12)
    code, output = check.with_flags("--processors", "auto", "--set", "Offset=first")
    assert code == 0, output
    assert lines(output, "error") == lines(output, "note") == []
    assert f"topic     {check.topic}: 12 partitions" in output
    assert f"group     {check.group}: no active members" in output
    assert "offsets   0 of 0 messages wait to be handled" in output
    assert output.endswith("all is ok: kqmp run can start\n")


def test_check_joins_no_group_and_commits_nothing(check: Check, topic: Any) -> None:
    check.topic = topic(2)
    assert check.with_flags()[0] == 0
    consumer = ck.Consumer({"bootstrap.servers": check.bootstrap, "group.id": check.group})
    asked = [ck.TopicPartition(check.topic, number) for number in range(2)]
    assert [part.offset for part in consumer.committed(asked, 10)] == [ck.OFFSET_INVALID] * 2
    consumer.close()


def test_a_new_group_that_begins_at_the_end_is_told_what_it_misses(
    check: Check, topic: Any
) -> None:
    check.topic = topic(2)
    produce(check, 250)
    code, output = check.with_flags()
    assert code == 0
    (note,) = [line for line in lines(output, "note") if "offsets" in line]
    assert "group is new, Offset last: 250 existing messages will not be read" in note
    assert "Offset: first reads them" in note
    code, output = check.with_flags("--set", "Offset=first")
    assert "250 of 250 messages wait to be handled" in output
    assert not [line for line in lines(output, "note") if "offsets" in line]


def test_more_fetchers_than_partitions_is_a_note(check: Check, topic: Any) -> None:
    check.topic = topic(2)
    code, output = check.with_flags("--conns", "3", "--processors", "1")
    assert code == 0
    assert "Conns 3, 2 partitions: 1 of the fetchers get none; set Conns: 2" in output


def test_a_missing_topic_is_exit_5_and_names_a_close_one(check: Check, topic: Any) -> None:
    name = topic(1)
    check.topic = name[:-1]
    code, output = check.with_flags()
    assert code == 5
    (error,) = lines(output, "error")
    assert f"{check.topic} (Topic) does not exist" in error
    assert repr(name) in error
    # One failure does not hide what else there is.
    assert lines(output, "ok")[-1].split()[1] == "group"


def test_a_bad_handler_is_exit_4_and_the_brokers_are_looked_at_all_the_same(
    check: Check, topic: Any
) -> None:
    check.topic = topic(1)
    code, output = check.with_flags(target="mqs:nothing")
    assert code == 4
    assert len(lines(output, "error")) == 1
    assert f"topic     {check.topic}: 1 partition" in output
    code, output = check.with_flags(target="mqs:consumer")
    assert code == 4
    assert "did you mean 'consume'?" in output


def test_a_bad_property_is_exit_2_in_the_words_of_librdkafka(check: Check, topic: Any) -> None:
    check.topic = topic(1)
    code, output = check.with_flags("-X", "fetch.mni.bytes=1")
    assert code == 2
    assert 'No such configuration property: "fetch.mni.bytes"' in output


@pytest.mark.parametrize("strategy", ["range", "roundrobin"])
def test_active_members_of_an_eager_strategy_are_an_error(
    check: Check, topic: Any, member: Callable[..., None], strategy: str
) -> None:
    check.topic = topic(2)
    member(partition_assignment_strategy=strategy)
    code, output = check.with_flags()
    assert code == 5
    (error,) = lines(output, "error")
    assert f"1 active member with the strategy '{strategy}'" in error
    assert "cooperative-sticky" in error


def test_active_members_that_kqmp_can_join_are_a_note(
    check: Check, topic: Any, member: Callable[..., None]
) -> None:
    check.topic = topic(2)
    member(partition_assignment_strategy="cooperative-sticky", group_instance_id="mq-0")
    code, output = check.with_flags("--set", "InstanceId=mq", "--set", "Offset=first")
    assert code == 0
    assert "1 active member, with which the partitions will be shared" in output
    assert "InstanceId mq: mq-0 is a member already" in output


def test_a_queue_brings_its_own_configuration(check: Check, topic: Any) -> None:
    check.topic = topic(1)
    code, output = check.run("mqs:queue")
    assert code == 0, output
    assert f"topic     {check.topic}: 1 partition" in output
    code, output = check.run("mqs:queue", "--topic", f"{check.topic}-no")
    assert code == 5
    # What is no Queue needs the rest of the flags.
    code, output = check.run("mqs:consume", "--topic", check.topic)
    assert code == 2
    assert "not looked at" in lines(output, "note")[-1]


def test_a_file_with_problems_tells_them_all_and_the_handler_is_imported(
    check: Check, topic: Any
) -> None:
    check.topic = topic(1)
    (check.directory / "mq.yaml").write_text(
        f"Brokers: ['{check.bootstrap}']\nGroup: {check.group}\nTopic: {check.topic}\nConns: 0\n"
        "Offset: middle\n"
    )
    code, output = check.run("mqs:consume", "-f", "mq.yaml")
    assert code == 2
    assert ["mq.yaml:4" in line or "mq.yaml:5" in line for line in lines(output, "error")] == [
        True,
        True,
    ]
    assert "mqs:consume can be imported" in output
