"""Without Java and Maven the tests on real Kafka are skipped and counted, or fail if required."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.kafka import REQUIRE_VARIABLE, ROOT

NEEDS_KAFKA = """
import pytest

def test_by_fixture(topic):
    raise AssertionError("must not run")

@pytest.mark.kafka
def test_by_marker():
    raise AssertionError("must not run")

def test_pure():
    pass
"""


def run_pytest(tmp_path: Path, required: str) -> subprocess.CompletedProcess[str]:
    """Run a session of its own with nothing but an empty directory on PATH."""
    (tmp_path / "test_needs_kafka.py").write_text(NEEDS_KAFKA)
    tools = tmp_path / "no-tools"
    tools.mkdir()
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider"]
    environment = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_needs_kafka.py")],
        cwd=ROOT,
        env={**environment, "PATH": str(tools), REQUIRE_VARIABLE: required},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_absent_kafka_skips_with_a_count_and_the_reason(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, required="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 2 skipped" in done.stdout
    assert "2 tests skipped: real Kafka needs Java 17+ and Maven: " in done.stdout


def test_absent_kafka_fails_where_it_is_required(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, required="1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{REQUIRE_VARIABLE}=1, but " in done.stdout
    assert "must not run" not in done.stdout
