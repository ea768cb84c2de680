"""`kqmp run` without Kafka: every wrong start is one clear error and the right exit code.

The real command in a process of its own, as users run it; nothing here reaches a broker.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import kqmp
from kqmp.errors import ExitCode
from tests.support.kafka import ROOT

GOOD = """\
KqConsumerConf:
  Name: mq
  Brokers:
  - 127.0.0.1:1
  Group: g
  Topic: t
"""
HANDLERS = """\
import os, signal, sys, time

def consume(key, value): ...
def nothing(): ...
def broken():
    raise RuntimeError("no wind today")
def number():
    return 42
async def later(key, value): ...
class Handler:
    def consume(self, key, value): ...
"""
FLAGS = ["--brokers", "127.0.0.1:1", "--group", "g", "--topic", "t"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "mq.yaml").write_text(GOOD)
    (tmp_path / "mqs.py").write_text(HANDLERS)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "100", **more}


def kqmp_(place: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kqmp", *args],
        cwd=place,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def assert_one_error(done: subprocess.CompletedProcess[str], code: ExitCode, *parts: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "kqmp/" not in done.stderr
    for part in parts:
        assert part in lines[0], done.stderr


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


FILES = {
    "broken YAML": (GOOD + "  Bad: [1, 2\n", ("mq.yaml:8:1: ",)),
    "unknown key": (GOOD + "  Ofset: first\n", ("mq.yaml:7:3: Ofset: ", "Offset?")),
    "wrong type": (GOOD + "  Conns: many\n", ("mq.yaml:7:10: Conns: 'many'", "whole number")),
    "Offset: middle": (GOOD + "  Offset: middle\n", ("Offset: 'middle'", "first or last")),
    "Conns: 0": (GOOD + "  Conns: 0\n", ("mq.yaml:7:10: Conns: 0 ", "from 1 to")),
    "missing Group": (edited("  Group: g\n", ""), ("Group: missing",)),
    "Group: no": (edited("Group: g", "Group: no"), ("mq.yaml:5:10: Group: no",)),
    "forbidden property": (
        GOOD + "  Kafka:\n    enable.auto.commit: true\n",
        ("mq.yaml:8:25: ", "enable.auto.commit", "refused", "no handler has finished"),
    ),
    "unset variable": (edited("Group: g", "Group: ${NO_SUCH_VAR}"), ("Group: ", "NO_SUCH_VAR")),
    "YAML tag": (edited("Topic: t", "Topic: !secret t"), ("Topic: a YAML tag",)),
    "Password without Username": (GOOD + "  Password: pw-1234\n", ("Password: ", "Username")),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_one_error(place: Path, case: str) -> None:
    text, parts = FILES[case]
    (place / "mq.yaml").write_text(text)
    done = kqmp_(place, "run", "mqs:consume", "-f", "mq.yaml")
    assert_one_error(done, ExitCode.CONFIG, *parts)
    assert "pw-1234" not in done.stderr


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["mqs:consume", "-f", "nosuch.yaml"], ("nosuch.yaml", "No such file")),
        (["mqs:consume", "-f", "mq.txt"], ("mq.txt", ".yaml")),
        (["-f", "mq.yaml"], ("no handler", "mqs:consume", "Handler in mq.yaml")),
        (FLAGS, ("no handler", "mqs:consume")),
        (["mqs:consume", *FLAGS[:4]], ("--topic: missing",)),
        (["mqs:consume", "-f", "mq.yaml", "--conns", "0"], ("--conns: '0'", "from 1 to")),
        (["mqs:consume", "-f", "mq.yaml", "--set", "Ofset=first"], ("--set Ofset", "Offset?")),
        (["mqs:consume", "-f", "mq.yaml", "--set", "Offset"], ("--set ...", "KEY=VALUE")),
        (
            ["mqs:consume", "-f", "mq.yaml", "-X", "enable.auto.commit=true"],
            ("-X enable.auto.commit", "refused"),
        ),
        (["mqs:consume", *FLAGS, "--section", "S"], ("--section S", "-f FILE")),
    ],
)
def test_a_wrong_flag_is_one_error(place: Path, args: list[str], parts: tuple[str, ...]) -> None:
    assert_one_error(kqmp_(place, "run", *args), ExitCode.CONFIG, *parts)


def test_all_problems_of_a_file_are_told_at_once(place: Path) -> None:
    (place / "mq.yaml").write_text(GOOD + "  Conns: 0\n  Offset: middle\n")
    done = kqmp_(place, "run", "mqs:consume", "-f", "mq.yaml", "--processors", "x")
    assert done.returncode == ExitCode.CONFIG
    lines = done.stderr.splitlines()
    assert [line.split(": ")[2] for line in lines[:2]] == ["Conns", "Offset"]
    assert lines[2].startswith("error: --processors: 'x'")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("nosuch:consume", ("nosuch:consume", "module nosuch not found")),
        ("mq:consume", ("did you mean 'mqs'?",)),
        ("mqs:konsume", ("no 'konsume'", "did you mean 'consume'?")),
        ("mqs.consume", ("mqs:consume",)),
        ("mqs:nothing", ("handler without arguments",)),
        ("mqs:number", ("handler without arguments",)),
        ("mqs:broken", ("calling broken() failed", "no wind today")),
        ("mqs:later", ("async",)),
        ("mqs:Handler.nothing", ("no 'nothing'",)),
    ],
)
def test_a_handler_that_cannot_be_used_is_one_error(
    place: Path, target: str, parts: tuple[str, ...]
) -> None:
    done = kqmp_(place, "run", target, "-f", "mq.yaml")
    assert_one_error(done, ExitCode.HANDLER_IMPORT, *parts)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import sys; sys.exit(3)", ("sys.exit(3)",)),
        ("import os; os._exit(3)", ("ended the process", "exit code 3")),
        ("import os; os.kill(os.getpid(), 9)", ("ended the process", "signal 9")),
        ("1 / 0", ("ZeroDivisionError",)),
        ("import nosuchlibrary", ("No module named 'nosuchlibrary'",)),
        ("def consume(:", ("mqs.py:1: ", "invalid syntax")),
    ],
)
def test_a_module_that_fails_at_import_is_one_error_and_no_loop(
    place: Path, source: str, parts: tuple[str, ...]
) -> None:
    (place / "mqs.py").write_text(source)
    done = kqmp_(place, "run", "mqs:consume", "-f", "mq.yaml")
    assert_one_error(done, ExitCode.HANDLER_IMPORT, *parts)


def test_flags_suffice_where_there_is_no_file(place: Path) -> None:
    assert_one_error(
        kqmp_(place, "run", "mqs:nothing", *FLAGS),
        ExitCode.HANDLER_IMPORT,
        "handler without arguments",
    )


def test_the_file_s_handler_is_taken_where_target_is_left_out(place: Path) -> None:
    (place / "mq.yaml").write_text(GOOD + "  Handler: mqs:nothing\n")
    done = kqmp_(place, "run", "-f", "mq.yaml")
    assert_one_error(done, ExitCode.HANDLER_IMPORT, "mqs:nothing", "handler without arguments")
    done = kqmp_(place, "run", "mqs:broken", "-f", "mq.yaml")
    assert_one_error(done, ExitCode.HANDLER_IMPORT, "mqs:broken")


APP = """\
from kqmp import KqConf, Queue
def consume(key, value): ...
queue = Queue(KqConf(brokers="127.0.0.1:1", group="g", topic="t"), consume)
def make():
    return queue
"""


def test_a_queue_brings_its_own_configuration(place: Path) -> None:
    (place / "app.py").write_text(APP)
    for target in ("app:queue", "app:make"):
        done = kqmp_(place, "run", target, "-f", "mq.yaml")
        assert_one_error(done, ExitCode.CONFIG, "is a Queue", "leave -f FILE out")
        done = kqmp_(place, "run", target, "--conns", "0")
        assert_one_error(done, ExitCode.CONFIG, "conns: '0'")


def test_a_script_that_starts_its_queue_unguarded_is_one_error(place: Path) -> None:
    (place / "app.py").write_text(APP + "queue.start()\n")
    done = kqmp_(place, "run", "app:queue")
    assert_one_error(done, ExitCode.HANDLER_IMPORT, "__main__")


def test_with_json_the_error_is_json_too(place: Path) -> None:
    done = kqmp_(place, "run", "mqs:nothing", "-f", "mq.yaml", "--log-format", "json")
    assert done.returncode == ExitCode.HANDLER_IMPORT
    (line,) = done.stderr.splitlines()
    assert re.search(r'"level": "ERROR".*handler without arguments', line)


def test_help_tells_the_exit_codes(place: Path) -> None:
    done = kqmp_(place, "run", "--help")
    assert done.returncode == 0
    for code in ExitCode:
        line = rf"^ +{int(code)}  {re.escape(code.description)}$"
        # That one is `kqmp push`'s alone.
        is_told = re.search(line, done.stdout, re.MULTILINE) is not None
        assert is_told == (code != ExitCode.UNDELIVERED)
    for option in ("--file", "--section", "--set", "-X", "--brokers", "--group", "--topic"):
        assert option in done.stdout


def test_help_lists_the_commands(place: Path) -> None:
    done = kqmp_(place, "--help")
    assert done.returncode == 0
    assert re.findall(r"^  (run|check|demo)  ", done.stdout, re.MULTILINE) == [
        "run",
        "check",
        "demo",
    ]
    assert kqmp_(place, "-h").stdout == done.stdout


def test_version(place: Path) -> None:
    assert kqmp_(place, "--version").stdout == f"kqmp {kqmp.__version__}\n"


def test_run_loads_neither_librdkafka_nor_the_handler(place: Path) -> None:
    script = (
        "import sys; import kqmp.cli.run, kqmp.roles.queue_main;"
        "print([m for m in ('confluent_kafka', 'psutil', 'mqs') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_importing_kqmp_imports_nothing_else_of_it() -> None:
    script = "import sys, kqmp; print(sorted(m for m in sys.modules if m.startswith('kqmp')))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['kqmp']\n"


def test_all_public_names_exist() -> None:
    for name in kqmp.__all__:
        assert getattr(kqmp, name) is not None
    assert set(kqmp.__all__) <= set(dir(kqmp))
    with pytest.raises(AttributeError, match="nosuch"):
        kqmp.nosuch  # noqa: B018


@pytest.mark.parametrize("moment", ["import click", "import kqmp.cli.run", "probe"])
@pytest.mark.engine
def test_an_early_interrupt_leaves_no_traceback(place: Path, moment: str) -> None:
    """SIGINT at a known moment of the start, sent by the very process that reaches it."""
    (place / "mqs.py").write_text(
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    trap = {
        "import click": "click",
        "import kqmp.cli.run": "kqmp.cli.run",
        "probe": "",
    }[moment]
    script = f"""
import os, signal, sys
class Trap:
    def find_spec(self, name, path=None, target=None):
        if name == {trap!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Trap())
from kqmp.cli.main import main
sys.argv[1:] = ["run", "mqs:consume", "-f", "mq.yaml"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode in (-signal.SIGINT, ExitCode.INTERRUPTED)
    if moment == "probe":
        assert done.returncode == ExitCode.INTERRUPTED


@pytest.mark.engine
def test_an_early_sigterm_is_a_clean_end(place: Path) -> None:
    (place / "mqs.py").write_text(
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)\n"
    )
    done = kqmp_(place, "run", "mqs:consume", "-f", "mq.yaml")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_leaves_early_gets_no_traceback(place: Path) -> None:
    for args in (["--help"], ["run", "--help"]):
        with subprocess.Popen(
            [sys.executable, "-m", "kqmp", *args],
            cwd=place,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""


def test_an_unknown_command_is_a_usage_error(place: Path) -> None:
    done = kqmp_(place, "rum")
    assert done.returncode == ExitCode.CONFIG
    assert "No such command 'rum'" in done.stderr
