"""`kqmp run` where nobody answers: one error, soon enough for who waits at a terminal."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kqmp.errors import ExitCode
from tests.support.kafka import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_brokers_that_do_not_answer_are_one_error_within_30_s(tmp_path: Path) -> None:
    (tmp_path / "mqs.py").write_text("def consume(key, value): ...\n")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        flags = ["--brokers", f"127.0.0.1:{port}", "--group", "g", "--topic", "t"]
        done = subprocess.run(
            [sys.executable, "-m", "kqmp", "run", "mqs:consume", *flags, "--processors", "2"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.returncode == ExitCode.BROKER
    (error,) = [line for line in done.stderr.splitlines() if " ERROR " in line]
    assert f"no answer from the brokers 127.0.0.1:{port} (Brokers)" in error
    assert len(done.stderr.splitlines()) < 25
