"""What is printed after its reader is gone is no error, and until then nothing changes."""

import os
import subprocess
import sys

import pytest

from tests.support.kafka import ROOT

SETUP = "from kqmp.roles.stdio import outlive_readers; import sys; outlive_readers();"


def started(code: str, *flags: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, *flags, "-c", SETUP + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("flags", [[], ["-u"]])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_leaves_is_no_error(flags: list[str], stream: str) -> None:
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    code = (
        "sys.stdin.read();"
        f"[print('x' * 5000, file=sys.{stream}, flush=True) for _ in range(20)];"
        f"print('survived', file=sys.{other})"
    )
    with started(code, *flags) as process:
        assert process.stdin is not None
        getattr(process, stream).close()
        process.stdin.close()
        assert getattr(process, other).read() == b"survived\n"
    assert process.returncode == 0


def test_an_unbuffered_print_is_there_at_once() -> None:
    with started("print('now', end=''); sys.stdin.read()", "-u") as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"now"


def test_encoding_and_buffering_stay() -> None:
    code = (
        "before = sys.__stdout__; now = sys.stdout;"
        "same = [getattr(before, n) == getattr(now, n) for n in"
        " ('encoding', 'errors', 'line_buffering', 'write_through')];"
        "print(all(same), now.fileno(), now is before)"
    )
    with started(code) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"True 1 False\n"


def test_a_full_disk_is_an_error_still() -> None:
    code = "sys.stdout.flush(); import os; fd = os.open('/dev/full', os.O_WRONLY); os.dup2(fd, 1);"
    with started(code + "print('x', flush=True)") as process:
        assert process.stderr is not None
        assert b"No space left on device" in process.stderr.read()


def test_closed_streams_stay_closed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + "assert sys.stdout is None"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: os.close(1),
        stderr=subprocess.PIPE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
