"""`kqmp demo` as a user runs it: small, from another directory, interrupted, killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.kafka import ROOT

pytestmark = pytest.mark.engine

#: What died takes all its children along within this time; a death signal takes a moment.
GONE_WITHIN_S = 2.0

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give what starts a demo in an empty directory without a terminal."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kqmp", "demo", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def row(output: str, name: str) -> list[str]:
    """Return the cells of a row of the table."""
    (line,) = [line for line in output.splitlines() if line.strip().startswith(name + "  ")]
    return line.strip().removeprefix(name).split()


def read_until(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Read the demo's lines up to one that matches."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if re.search(pattern, line):
            return line
    raise AssertionError(f"no line like {pattern!r}: {''.join(seen)}")


def test_a_small_demo_loses_nothing_and_says_so(start: Start, tmp_path: Path) -> None:
    process = start("--messages", "1000", "--processors", "2")
    output, errors = process.communicate(timeout=100)
    assert errors == ""
    assert process.returncode == 0, output
    assert row(output, "messages") == ["250", "1,000"]
    assert row(output, "processors killed") == ["-", "1"]
    assert row(output, "lost") == ["-", "0"]
    assert row(output, "order of each key") == ["-", "kept"]
    assert int(row(output, "repeated")[1]) <= 1
    assert float(row(output, "speed-up")[1]) > 0
    assert "kqmp run kqmp.cli.demo_handler:Handler --brokers 127.0.0.1:" in output
    assert output.splitlines()[-1].startswith("ok: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_torture_kills_again_and_again(start: Start) -> None:
    process = start("--messages", "3000", "--torture", "--processors", "2")
    output, errors = process.communicate(timeout=110)
    assert errors == ""
    assert process.returncode == 0, output
    kills = int(row(output, "processors killed")[1])
    assert kills >= 2
    assert int(row(output, "repeated")[1]) <= kills
    assert row(output, "lost") == ["-", "0"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_demo_ends_at_once_and_leaves_nothing(
    start: Start, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start("--messages", "4000")
    read_until(process, r"engine .* of 4,000")
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert errors == ""
    # The check for leaks follows; it would wait longer.
    wait_gone(tmp_path, GONE_WITHIN_S)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_demo_takes_all_its_processes_along(start: Start, tmp_path: Path) -> None:
    process = start("--messages", "4000")
    read_until(process, r"engine .* of 4,000")
    family = processes_in(tmp_path)
    assert len(family) >= 5  # itself, the broker, the coordinator, a fetcher, a processor
    process.kill()
    process.wait()
    wait_gone(tmp_path, 10)


def wait_gone(directory: Path, timeout_s: float) -> None:
    """Wait until no process works in this directory."""
    deadline = time.monotonic() + timeout_s
    while processes := processes_in(directory):
        assert time.monotonic() < deadline, processes
        time.sleep(0.05)


def processes_in(directory: Path) -> list[psutil.Process]:
    """Return the living processes whose working directory is this."""
    found = []
    for process in psutil.process_iter():
        try:
            lives = process.status() != psutil.STATUS_ZOMBIE
            if lives and process.cwd() == str(directory):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_output_that_nobody_reads_ends_the_demo_without_a_trace(start: Start) -> None:
    process = start("--messages", "2000")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("kqmp demo: 2,000 messages")
    process.stdout.close()
    assert process.wait(timeout=60) != 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("arguments", [["--messages", "999"], ["--processors", "0"], ["x"]])
def test_bad_flags_are_exit_2(start: Start, arguments: list[str]) -> None:
    process = start(*arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Error: " in errors


def test_the_help_names_the_exit_codes(start: Start) -> None:
    output, _ = start("--help").communicate(timeout=60)
    assert "--torture" in output
    assert "130" in output
    assert os.linesep in output
