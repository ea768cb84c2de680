"""scripts/pytest_groups.py: both groups are run and shown, and end as one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine import wait_until
from tests.support.kafka import ROOT

SCRIPT = ROOT / "scripts" / "pytest_groups.py"
PASSES = "def test_it(): print('said')\n"
FAILS = "def test_it(): assert not 'so'\n"
#: Says that it runs, and that its fixtures have ended.
STAYS = """
import pathlib, pytest, time

@pytest.fixture
def tidy():
    yield
    pathlib.Path(__file__).with_suffix(".tidy").touch()

def test_it(tidy):
    pathlib.Path(__file__).with_suffix(".runs").touch()
    time.sleep(600)
"""


def start(directory: Path, first: str, second: str) -> "subprocess.Popen[str]":
    """Run the script on two files of its own, as a terminal does: in a process group."""
    (directory / "test_first.py").write_text(first)
    (directory / "test_second.py").write_text(second)
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import pytest_groups as g\n"
        "g.GROUPS = (('one', ('test_first.py',)), ('two', ('test_second.py',)))\n"
        "sys.exit(g.main())\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


@pytest.mark.parametrize(
    ("first", "second", "code", "told"),
    [
        (PASSES, PASSES, 0, "one: ok\ntwo: ok\n"),
        (FAILS, PASSES, 1, "one: FAILED (exit 1)\ntwo: ok\n"),
        (PASSES, FAILS, 1, "one: ok\ntwo: FAILED (exit 1)\n"),
        (FAILS, FAILS, 1, "one: FAILED (exit 1)\ntwo: FAILED (exit 1)\n"),
    ],
)
def test_what_fails_in_either_group_fails_the_whole(
    tmp_path: Path, first: str, second: str, code: int, told: str
) -> None:
    running = start(tmp_path, first, second)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == code, output
    assert output.endswith(told)
    parts = output.split("\n-- two --\n")
    for part, name, source in zip(parts, ("first", "second"), (first, second), strict=True):
        assert f"\ntest_{name}.py " in part
        assert (f"\nFAILED test_{name}.py::test_it - " in part) == (source == FAILS)


@pytest.mark.parametrize(
    ("number", "code", "is_tidy"), [(signal.SIGINT, 2, True), (signal.SIGTERM, 143, False)]
)
def test_a_signal_ends_both(
    tmp_path: Path, number: signal.Signals, code: int, is_tidy: bool
) -> None:
    running = start(tmp_path, STAYS, STAYS)
    names = ("test_first", "test_second")
    wait_until(lambda: all((tmp_path / f"{n}.runs").exists() for n in names), "both to run")
    if number is signal.SIGINT:
        os.killpg(running.pid, number)  # what Ctrl-C does
    else:
        running.send_signal(number)
    running.communicate(timeout=60)
    assert running.returncode == code
    assert [(tmp_path / f"{n}.tidy").exists() for n in names] == [is_tidy] * 2
