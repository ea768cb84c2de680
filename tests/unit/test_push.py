"""`kqmp push` on librdkafka's mock cluster: what becomes of lines, exit codes, interrupts."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from click.testing import CliRunner

from kqmp.cli.blocks import StopRequests
from kqmp.cli.commands import cli
from kqmp.cli.pushing import Pushing
from kqmp.cli.screen import Screen
from kqmp.config import PusherConf
from kqmp.errors import BrokerError
from kqmp.kafka import asking
from kqmp.kafka.mock import MockHost
from kqmp.kafka.plain import log_bounds
from kqmp.pusher import Pusher
from tests.support.kafka import ROOT

TOPIC = "lines"
#: The mock knows no topic's limit, and waiting for its answer takes seconds.
LIMIT = ("-X", "message.max.bytes=50000")

pytestmark = pytest.mark.engine


@pytest.fixture
def host() -> Iterator[MockHost]:
    with MockHost(TOPIC, 1) as running:
        yield running


Push = Callable[..., tuple[int, str, str]]


@pytest.fixture
def push(host: MockHost, capfd: pytest.CaptureFixture[str]) -> Push:
    """Give the command, which returns exit code, stdout (written to the descriptor) and stderr."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        named = ("push", "-b", host.bootstrap, "-t", TOPIC, *LIMIT)
        done = CliRunner().invoke(cli, [*named, *map(str, arguments)])
        return done.exit_code, capfd.readouterr().out, done.stderr

    return run


def records(host: MockHost, count: int) -> list[tuple[bytes | None, bytes | None, Any]]:
    """Return key, value and headers of the first messages."""
    consumer = ck.Consumer({"bootstrap.servers": host.bootstrap, "group.id": "g"})
    try:
        consumer.assign([ck.TopicPartition(TOPIC, 0, 0)])
        found: list[ck.Message] = []
        while len(found) < count:
            found += consumer.consume(count - len(found), timeout=10)
        return [(record.key(), record.value(), record.headers()) for record in found]
    finally:
        consumer.close()


def test_each_line_of_each_file_is_a_message(host: MockHost, push: Push, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\n\ntwo\xff\n")
    (tmp_path / "b").write_bytes(b"three")
    code, out, _ = push(tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert re.fullmatch(
        r"4 messages delivered to lines \(16 bytes read\) in [0-9.]+ s: [0-9,]+/s\n", out
    )
    assert records(host, 4) == [
        (None, value, None) for value in (b"one", b"", b"two\xff", b"three")
    ]


def test_keys_headers_and_tombstones(host: MockHost, push: Push, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"k1\tv1\tmore\nno key\nk2\t\n")
    code, out, _ = push("-K", r"\t", "-H", "by=me", "-H", "by=", "-Z", tmp_path / "a")
    assert code == 0
    assert "3 messages delivered" in out
    assert "1 line without the separator had no key" in out
    headers = [("by", b"me"), ("by", b"")]
    assert records(host, 3) == [
        (b"k1", b"v1\tmore", headers),
        (None, b"no key", headers),
        (b"k2", None, headers),
    ]


def test_whole_files_with_one_key_quietly(host: MockHost, push: Push, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\ntwo\n")
    assert push("--whole", "-k", "key", "-q", tmp_path / "a") == (0, "", "")
    assert records(host, 1) == [(b"key", b"one\ntwo\n", None)]


def test_a_line_that_is_too_large_is_told_with_its_place_and_left_out(
    host: MockHost, push: Push, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one\n" + b"x" * 60_000 + b"\ntwo\n" + b"y" * 60_000 + b"\n")
    code, out, errors = push(path)
    assert code == 8
    assert f"kqmp push: {path}:2: topic lines: a message of 60,000 bytes" in errors
    assert f"kqmp push: {path}:4: " in errors
    assert "2 messages delivered" in out
    assert "; 2 NOT DELIVERED" in out
    assert [value for _, value, _ in records(host, 2)] == [b"one", b"two"]


def test_a_queue_that_is_full_is_waited_for(host: MockHost, push: Push, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"".join(b"%d,v%d\n" % (number % 3, number) for number in range(3000)))
    small = ("-X", "queue.buffering.max.messages=20", "-z", "lz4")
    for more in ((), ("-K", ",")):
        assert push(*small, *more, path)[0] == 0
    values = [value for _, value, _ in records(host, 6000)]
    assert values[:3000] == [b"%d,v%d" % (number % 3, number) for number in range(3000)]
    assert values[3000:] == [b"v%d" % number for number in range(3000)]


@pytest.mark.parametrize("name", ["compression.type", "compression.codec"])
def test_z_wins_over_the_section_by_either_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def look(conf: PusherConf, **_: Any) -> None:
        used.append({key: value for key, value in conf.kafka.items() if "compression" in key})
        raise BrokerError("seen")

    used: list[dict[str, str]] = []
    monkeypatch.setattr(Pusher, "from_config", look)
    path = tmp_path / "mq.yaml"
    path.write_text(f"Brokers: [h:1]\nTopic: t\nKafka: {{{name}: gzip}}\n")
    for more in (("-z", "zstd"), ()):
        done = CliRunner().invoke(cli, ["push", "-f", str(path), *more, str(path)])
        assert done.stderr == "error: seen\n"
    assert used[0] == {"compression.type": "zstd"}
    # The last of the two names is the one that librdkafka follows.
    assert list(used[1].items())[-1] == (name, "gzip")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-K", ",", "-k", "x"), "--key and --key-separator: choose one"),
        (("-K", ""), "--key-separator: empty"),
        (("-K", ",", "--whole"), "--key-separator is for lines"),
        (("-H", "nothing"), "--header 'nothing': write it as NAME=VALUE"),
        (("--section", "x"), "--section x: there is no file"),
        (("-X", "acks=1"), "-X acks: '1' is refused: "),
        (("--set", "Group=g"), "--set Group: unknown key"),
        (("no-such-file",), "no-such-file: cannot be read: No such file or directory"),
        ((".",), ".: is a directory; name files"),
    ],
)
def test_wrong_arguments_are_one_error_and_nothing_is_pushed(
    arguments: tuple[str, ...], said: str
) -> None:
    named = ("push", "-b", "127.0.0.1:1", "-t", TOPIC, *LIMIT)
    done = CliRunner().invoke(cli, [*named, *arguments])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_no_broker_is_exit_code_5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "REFUSED_S", 0.0)
    done = CliRunner().invoke(
        cli, ["push", "-b", "127.0.0.1:1", "-t", TOPIC, str(ROOT / "LICENSE")]
    )
    assert done.exit_code == 5
    assert done.stderr.startswith("error: no answer from 127.0.0.1:1: ")


def started(host: MockHost, *arguments: str) -> "subprocess.Popen[str]":
    """Start the command as a user does, with a pipe for its input."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "kqmp",
            "push",
            "-b",
            host.bootstrap,
            "-t",
            TOPIC,
            *LIMIT,
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "TERM": "dumb"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_delivers_what_was_read(host: MockHost) -> None:
    running = started(host, "--set", "FlushInterval=10ms")
    assert running.stdin is not None
    running.stdin.write("one\ntwo\n")
    running.stdin.flush()
    while log_bounds(host.bootstrap, TOPIC)[1] < 2:
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    out, _ = running.communicate()
    assert out.startswith("2 messages delivered to lines")
    assert out.endswith("; interrupted, the rest was not read\n")


def test_a_fifo_is_read_from_its_first_byte_and_its_writer_not_disturbed(
    host: MockHost, push: Push, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor() as pool:
        # Opening waits for a reader; writing fails if that one goes away.
        written = pool.submit(fifo.write_bytes, b"one\ntwo\n")
        code, out, _ = push(fifo)
        assert written.result(60) == 8
    assert code == 0
    assert "2 messages delivered to lines (8 bytes read)" in out
    assert [value for _, value, _ in records(host, 2)] == [b"one", b"two"]


def test_ctrl_c_ends_the_wait_for_a_fifos_writer(host: MockHost, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with started(host, str(fifo)) as running:
        assert running.stderr is not None
        # It waits for input as soon as there is progress.
        while "0 delivered, 0 on their way" not in (line := running.stderr.readline()):
            assert line
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out.startswith("0 messages delivered to lines")


def test_two_signals_give_up_and_say_what_was_not_delivered(host: MockHost) -> None:
    running = started(host, "--set", "FlushInterval=10ms")
    assert running.stdin is not None
    running.stdin.write("one\n")
    running.stdin.flush()
    while log_bounds(host.bootstrap, TOPIC)[1] < 1:
        assert running.poll() is None
    host.close()
    running.stdin.write("two\nthree\n")
    running.stdin.close()
    # Reading has ended as soon as progress says that two are on their way.
    assert running.stderr is not None
    while "2 on their way" not in (line := running.stderr.readline()):
        assert line
    # Not the same signal twice: two of one kind may become one.
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 8
    assert running.stdout is not None
    out, rest = running.stdout.read(), running.stderr.read()
    running.stdout.close()
    running.stderr.close()
    assert "1 message delivered" in out
    assert "; 2 NOT DELIVERED" in out
    assert rest.count("the pusher was closed before the brokers had acknowledged it") == 2


def cut_off(host: MockHost, *arguments: str) -> "subprocess.Popen[str]":
    """Start it with room for 20 messages; push one, end the broker and give 1,000 lines more."""
    running = started(host, "-X", "queue.buffering.max.messages=20", *arguments)
    assert running.stdin is not None
    running.stdin.write("x\n")
    running.stdin.flush()
    while log_bounds(host.bootstrap, TOPIC)[1] < 1:
        assert running.poll() is None
    host.close()
    # So few bytes that they are read at once.
    running.stdin.write("x\n" * 1000)
    running.stdin.flush()
    return running


def accounted(summary: str) -> int:
    """Return how many messages a summary knows of: delivered, or not."""
    found = re.match(r"([0-9,]+) messages? delivered .*; ([0-9,]+) NOT DELIVERED", summary)
    assert found, summary
    return sum(int(number.replace(",", "")) for number in found.groups())


@pytest.mark.parametrize("form", [(), ("-K", ",")])
def test_all_lines_read_are_in_the_summary_after_giving_up(
    host: MockHost, form: tuple[str, ...]
) -> None:
    with cut_off(host, "--set", "MaxBlock=300ms", *form) as running:
        out, errors = running.communicate(timeout=60)
    assert running.returncode == 8
    assert "(2,002 bytes read)" in out
    assert accounted(out) == 1001
    assert out.endswith("; given up, no more was read\n")
    assert "kqmp push: given up at stdin:2" in errors
    assert "there was no room for another in 0.3 s (MaxBlock)" in errors


@pytest.mark.parametrize("form", [(), ("-K", ",")])
def test_all_lines_read_are_in_the_summary_after_two_signals(
    host: MockHost, form: tuple[str, ...]
) -> None:
    with cut_off(host, *form) as running:
        assert running.stderr is not None
        while "20 on their way" not in (line := running.stderr.readline()):
            assert line
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 8
    assert accounted(out) == 1001
    assert out.endswith("; interrupted, the rest was not read\n")


def test_given_up_after_the_last_line_leaves_nothing_unread() -> None:
    with Screen(io.StringIO()) as screen:
        work = Pushing(screen, StopRequests(), 1.0, shows=False)
    work.gave_up, work.read_bytes = True, 10
    assert work.stopped_short  # of a pipe nobody knows
    work.whole_bytes = 11
    assert work.stopped_short
    work.whole_bytes = 10
    assert not work.stopped_short
