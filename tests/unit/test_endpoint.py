"""A cluster named by a file's section or by flags, and how the commands that take one end."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kqmp.cli.commands import cli
from kqmp.configfile import load_endpoint
from kqmp.errors import ConfigError

PUSHER = """\
Name: service
Mode: dev
KqPusherConf:
  Brokers: [127.0.0.1:9092, 127.0.0.1:9093]
  Topic: payments
  ChunkSize: 1048576
  FlushInterval: 1s
  Sync: true
  Username: me
  Password: ${SECRET}
  Kafka:
    acks: all
"""
CONSUMER = """\
KqConsumerConf:
  Brokers: [127.0.0.1:9094]
  Group: g
  Topic: t
  Conns: no-number
"""


def test_a_pusher_s_section_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "mq.yaml"
    file.write_text(PUSHER)
    found = load_endpoint(str(file), env={"SECRET": "word"})
    assert (found.topic, found.group) == ("payments", "")
    assert found.conf.brokers == ("127.0.0.1:9092", "127.0.0.1:9093")
    assert (found.conf.username, found.conf.password.reveal()) == ("me", "word")
    assert found.conf.kafka == {"acks": "all"}


def test_a_consumer_s_section_is_preferred_and_its_other_keys_are_not_judged(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mq.yaml"
    file.write_text(PUSHER + CONSUMER)
    found = load_endpoint(str(file), env={})
    assert (found.topic, found.group) == ("t", "g")
    named = load_endpoint(str(file), "kqpusherconf", env={"SECRET": "word"})
    assert (named.topic, named.group) == ("payments", "")


def test_flags_win_and_what_is_not_given_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "mq.yaml"
    file.write_text(CONSUMER)
    found = load_endpoint(
        str(file), overrides={"Group": "h"}, kafka_overrides={"a": "1"}, shortcuts={"topic": "u"}
    )
    assert (found.topic, found.group, found.conf.kafka) == ("u", "h", {"a": "1"})
    alone = load_endpoint(None, shortcuts={"brokers": "h:1"})
    assert (alone.topic, alone.group, alone.conf.brokers) == ("", "", ("h:1",))


def test_problems_say_where_they_are(tmp_path: Path) -> None:
    file = tmp_path / "mq.yaml"
    file.write_text("Section:\n  Broker: a:1\n  Topic: a b\n")
    with pytest.raises(ConfigError) as caught:
        load_endpoint(str(file), "Section")
    problems = caught.value.problems
    assert any(f"{file}:2:3: Broker: unknown key; did you mean Brokers?" in one for one in problems)
    assert any(f"{file}:3:10: Topic: 'a b' is not allowed" in one for one in problems)
    with pytest.raises(ConfigError, match=r"^--brokers: missing; use a list of host:port$"):
        load_endpoint(None)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="kqmp")


WRONG = [
    (["tail", "t"], "--brokers: missing; use a list of host:port"),
    (["tail", "--brokers", "a:1"], "no topic: name it as TOPIC, such as kqmp tail orders"),
    (["tail", "t", "--brokers", "a:1", "-o", "middle"], "-o 'middle': use beginning, end, -N"),
    (["tail", "t", "--section", "S"], "--section S: there is no file; add -f FILE"),
    (["tail", "t", "--brokers", "a:1", "--json", "--raw"], "--json and --raw: choose one"),
    (["tail", "t", "--brokers", "a:1", "-K", ":"], "--key-separator is for --raw: add it"),
    (["tail", "t", "--brokers", "a:1", "-X", "no.such=1"], 'property: "no.such"'),
    (["tail", "t", "-f", "no.yaml"], "no.yaml: cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG)
def test_wrong_flags_are_one_line_and_exit_2(arguments: list[str], text: str) -> None:
    done = command(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert text in line


def test_brokers_that_are_not_there_are_one_line_and_exit_5() -> None:
    done = command("tail", "t", "--brokers", "127.0.0.1:1")
    assert (done.exit_code, done.stdout) == (5, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no answer from 127.0.0.1:1: ")
