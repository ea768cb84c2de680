"""`kqmp run` and `check` of a file with several consumers, as far as it goes without a broker."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kqmp.cli import check as check_module
from kqmp.errors import ExitCode
from kqmp.kafka.findings import Finding
from kqmp.roles.service import unique
from tests.support.kafka import ROOT

FILE = """\
Orders: {Brokers: ["127.0.0.1:1"], Group: g, Topic: orders, Handler: "mqs:consume"}
Audit: {Brokers: ["127.0.0.1:1"], Group: g, Topic: audit}
Pusher: {Brokers: ["127.0.0.1:1"], Topic: audit}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "all.yaml").write_text(FILE)
    (tmp_path / "mqs.py").write_text("def consume(key, value): ...\n")
    return tmp_path


def kqmp_(place: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kqmp", *args],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_section_without_handler_is_one_error_with_its_line(place: Path) -> None:
    done = kqmp_(place, "run", "-f", "all.yaml")
    assert done.returncode == ExitCode.CONFIG
    assert done.stderr == (
        "error: all.yaml:2:1: Audit: Handler: missing; name it here, such as mqs:consume, or run"
        " only this section: kqmp run TARGET -f all.yaml --section Audit\n"
    )


def test_a_target_needs_a_section(place: Path) -> None:
    done = kqmp_(place, "run", "mqs:consume", "-f", "all.yaml")
    assert done.returncode == ExitCode.CONFIG
    assert done.stderr == (
        "error: all.yaml: Orders, Audit all look like a consumer; choose one with --section\n"
    )


@pytest.mark.parametrize("args", [["mqs:nosuch", "--section", "Audit"], ["--section", "orders"]])
def test_a_section_is_run_alone(place: Path, args: list[str]) -> None:
    (place / "mqs.py").write_text("raise ValueError('no wind')\n")
    done = kqmp_(place, "run", "-f", "all.yaml", *args)
    assert done.returncode == ExitCode.HANDLER_IMPORT
    assert done.stderr.startswith("error: handler mqs:")


def test_a_handler_that_is_no_name_is_told_with_its_section(place: Path) -> None:
    text = FILE.replace("Topic: audit}\nP", 'Topic: audit, Handler: "mqs"}\nP')
    (place / "all.yaml").write_text(text)
    done = kqmp_(place, "run", "-f", "all.yaml")
    assert done.returncode == ExitCode.HANDLER_IMPORT
    assert done.stderr == "error: Audit: handler 'mqs': write it as mqs:function\n"


def test_labels_are_unique() -> None:
    assert unique(["a", "b", "a", "a-2", "a"]) == ["a", "b", "a-2", "a-2-2", "a-3"]


def told(
    place: Path, monkeypatch: pytest.MonkeyPatch, *args: str, file: str | None = "all.yaml"
) -> tuple[int, list[str]]:
    """Run `kqmp check` here, with brokers that answer nothing but the topic's name."""
    monkeypatch.setattr(
        check_module,
        "look",
        lambda conf: iter([Finding("ok", "brokers", f"asked for {conf.topic}")]),
    )
    monkeypatch.chdir(place)
    done = CliRunner().invoke(check_module.check, [*(["-f", file] if file else []), *args])
    return done.exit_code, done.output.split("\n\n")


@pytest.mark.engine
def test_check_looks_at_each_of_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, blocks = told(place, monkeypatch)
    assert code == ExitCode.CONFIG
    assert [block.splitlines()[0] for block in blocks] == ["Orders:", "Audit:", "together:"]
    orders, audit, together = blocks
    assert "ok     handler   mqs:consume can be imported and called" in orders
    assert "ok     brokers   asked for orders" in orders
    assert "error" not in orders
    # It is told once, and the brokers are looked at all the same.
    assert audit.count("error") == 1
    assert "error  config    all.yaml:2:1: Audit: Handler: missing; name it here" in audit
    assert "ok     brokers   asked for audit" in audit
    assert "Processors 8 + Processors 8, usable cores" in together
    assert "21 processes" in together
    assert together.endswith("1 error: kqmp run would fail\n")


@pytest.mark.engine
def test_check_ends_with_the_code_of_the_worst(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FILE.replace("Topic: audit}\nP", "Topic: orders, Handler: 'mqs:no'}\nP")
    (place / "all.yaml").write_text(text)
    code, blocks = told(place, monkeypatch)
    assert code == ExitCode.CONFIG
    assert "Audit: Group: 'g' and Topic 'orders' are those of Orders too" in blocks[1]
    assert "module mqs has no 'no'" in blocks[1]
    (place / "all.yaml").write_text(
        text.replace("Topic: orders, Handler: 'mqs:no'", "Topic: a, Handler: 'mqs:no'")
    )
    assert told(place, monkeypatch)[0] == ExitCode.HANDLER_IMPORT
    (place / "all.yaml").write_text(
        text.replace("orders, Handler: 'mqs:no'", "a, Handler: 'mqs:consume'")
    )
    assert told(place, monkeypatch)[0] == ExitCode.CLEAN


def test_check_of_one_section_is_as_ever(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, blocks = told(place, monkeypatch, "--section", "orders")
    assert code == ExitCode.CLEAN
    assert len(blocks) == 1
    assert blocks[0].startswith("ok     config    all.yaml: Name: Orders")


GROUP = """\
from kqmp import KqConf, Queue, ServiceGroup

def consume(key, value): ...
group = ServiceGroup()
for name in ("orders", "audit"):
    group.add(Queue(KqConf(brokers="127.0.0.1:1", group="g", topic=name, name=name), consume))
"""


@pytest.mark.engine
def test_check_looks_at_each_queue_of_a_group(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "mqs.py").write_text(GROUP)
    code, blocks = told(place, monkeypatch, "mqs:group", "--section", "Orders")
    assert code == ExitCode.CONFIG
    assert "leave -f FILE out" in blocks[0]
    code, blocks = told(place, monkeypatch, "mqs:group", file=None)
    assert code == ExitCode.CLEAN
    assert [block.splitlines()[0] for block in blocks[1:]] == ["orders:", "audit:"]
    assert blocks[0].count("ok     config    of the Queue mqs:consume: ") == 2
    assert "21 processes" in blocks[0]
    assert "asked for audit" in blocks[2]
