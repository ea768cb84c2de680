"""A reader of the documentation who types whatever it shows, and compares what comes back.

What a fenced block is depends on its first word:

- `python`, `yaml`, `json`, `toml` whose first line is a comment with a path (`# etc/mq.yaml`): a
  file of that name. Other Python blocks are one script, which goes on from block to block; one
  that starts under `if __name__` is a program, which is interrupted when its engine has begun.
- `bash`: run as a script that must succeed.
- `console`: commands behind `$ `, each with the output that must follow. `...` stands for anything,
  also for whole lines; times, decimals and rates only have to be some. `^C` interrupts. A command
  whose output ends with `...` at the end of a block goes on running; a later block that begins with
  `^C` ends it. `$ kill -9 NUMBER` kills a processor of the engine that runs.
- anything else is not run: `go` and `text`.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.support.engine import PATIENCE_S, POLL_S, title, wait_until
from tests.support.kafka import ROOT

LANGUAGES = frozenset({"python", "yaml", "json", "toml", "bash", "console", "go", "text"})
#: Where the documents say that Kafka is.
ADDRESSES = ("localhost:9092", "127.0.0.1:9092")

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>.*)$")
_NAMED = re.compile(r"^# (?P<path>[\w./-]+\.(?:py|yaml|json|toml|txt|jsonl|tsv))$")
#: What differs from run to run.
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|\+\d\d:\d\d)?"), "<time>"),
    (re.compile(r"\d+(?:\.\d+)+"), "<decimal>"),
    (re.compile(r"\d[\d,]*/s"), "<rate>"),
    (re.compile(r"[ \t]+"), " "),
)
#: Lines that come or not, as it happens: progress, and a new broker that is not ready yet.
_PASSING = re.compile(r".* on their way, .*|.*acquire idempotence PID.*")


class Block(NamedTuple):
    """One fenced block."""

    document: Path
    #: Of its first line of content, from 1.
    line: int
    language: str
    text: str

    @property
    def path(self) -> str:
        """The file that it shows, "" if none."""
        named = _NAMED.match(self.text.split("\n", 1)[0])
        return named["path"] if named else ""

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """Return all fenced blocks of a document."""
    found: list[Block] = []
    begun: tuple[int, str] | None = None
    lines = document.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        assert not fence["indent"], f"{document.name}:{number}: an indented fence is not read"
        if begun is None:
            begun = number, fence["language"]
        else:
            first, language = begun
            text = "".join(f"{one}\n" for one in lines[first : number - 1])
            found.append(Block(document, first + 1, language, text))
            begun = None
    assert begun is None, f"{document.name}: a block has no end"
    return found


class Typed(NamedTuple):
    """A command of a console block, and what must follow."""

    line: int
    #: "" where the block goes on in the terminal that runs.
    command: str
    output: list[str]


def typed(block: Block) -> list[Typed]:
    """Return what is typed in a console block."""
    found: list[Typed] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            found.append(Typed(number, line[2:], []))
        elif found and found[-1].command.endswith("\\") and not found[-1].output:
            found[-1] = Typed(found[-1].line, f"{found[-1].command[:-1]}{line.strip()}", [])
        else:
            assert found or line == "^C", f"{block}: begins with neither $ nor ^C"
            if not found:
                found.append(Typed(number, "", []))
            found[-1].output.append(line)
    return found


def _masked(text: str) -> str:
    for pattern, name in _MASKS:
        text = pattern.sub(name, text)
    return text


def _pattern(expected: list[str]) -> re.Pattern[str]:
    parts = []
    for line in expected:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            pieces = (re.escape(_masked(piece)) for piece in line.rstrip().split("..."))
            parts.append(".*".join(pieces) + "\n")
    return re.compile("".join(parts))


class Terminal:
    """One command with its output."""

    def __init__(self, command: list[str], directory: Path, output: Path) -> None:
        self.output = output
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        lines = self.output.read_text(errors="replace").splitlines()
        kept = (line for line in lines if not _PASSING.fullmatch(line))
        return "".join(f"{_masked(line.rstrip())}\n" for line in kept)

    def wait_for(self, expected: list[str], where: str) -> None:
        """Wait until the output begins as expected."""
        pattern, deadline = _pattern(expected), time.monotonic() + PATIENCE_S
        while not pattern.match(self.text):
            if self.process.poll() is not None or time.monotonic() > deadline:
                if pattern.match(self.text):  # it came with the end
                    return
                raise AssertionError(self._told(where, expected))
            time.sleep(POLL_S)

    def wait(self, where: str) -> int:
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._told(where, ["(its end)"])) from None

    def check(self, expected: list[str], where: str) -> None:
        if not _pattern(expected).fullmatch(self.text):
            raise AssertionError(self._told(where, expected))

    def _told(self, where: str, expected: list[str]) -> str:
        wanted = "\n".join(expected)
        return f"{where}: expected\n{wanted}\nbut there came\n{self.output.read_text()}"

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Reader:
    """Follows one document in a directory of its own."""

    def __init__(self, document: Path, directory: Path, bootstrap: str) -> None:
        self._document = document
        self._directory = directory
        self._bootstrap = bootstrap
        #: Commands that go on running, the last one last, with what they have to write.
        self._running: list[tuple[Terminal, list[str]]] = []
        self._count = 0

    def follow(self) -> None:
        """Do all that the document shows, in its order."""
        script: list[Block] = []
        with self._ending():
            for block in blocks(self._document):
                if block.language == "python" and not block.path:
                    script.append(block)
                    if "if __name__" in block.text:
                        self._run_script(script)
                        script = []
                elif block.path:
                    self._write(block)
                elif block.language in ("bash", "console"):
                    self._run_script(script)
                    script = []
                    self._type(block)
            self._run_script(script)
            while self._running:
                self._interrupt_last([], f"{self._document.name}: at its end")

    def rewritten(self, text: str) -> str:
        for address in ADDRESSES:
            text = text.replace(address, self._bootstrap)
        return text

    def run(self, script: str) -> None:
        """Run a Python script where the document's files are."""
        terminal = self._start([sys.executable, "-c", script])
        self._finish(terminal, ["..."], f"{self._document.name}: afterwards", {0})

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        finally:
            for terminal, _ in self._running:
                terminal.close()

    def _write(self, block: Block) -> None:
        path = self._directory / block.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.rewritten(block.text))

    def _start(self, command: list[str]) -> Terminal:
        self._count += 1
        output = self._directory / f".output-{self._count}"
        return Terminal(command, self._directory, output)

    def _run_script(self, parts: list[Block]) -> None:
        """Run Python blocks as one script, whose lines have the numbers of the document."""
        if not parts:
            return
        lines: list[str] = []
        for block in parts:
            lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
        script = self._directory / f"lines_of_{self._document.stem.replace('-', '_')}.py"
        script.write_text(self.rewritten("\n".join(lines) + "\n"))
        terminal = self._start([sys.executable, script.name])
        if "if __name__" in parts[0].text:
            self._running.append((terminal, ["...", "...topic ... has ...", "..."]))
            terminal.wait_for(self._running[-1][1], str(parts[0]))
            self._interrupt_last([], str(parts[0]))
        else:
            self._finish(terminal, ["..."], str(parts[0]), {0})

    def _type(self, block: Block) -> None:
        if block.language == "bash":
            terminal = self._start(["bash", "-euo", "pipefail", "-c", self.rewritten(block.text)])
            self._finish(terminal, ["..."], str(block), {0})
            return
        commands = typed(block)
        code = 0
        for command, following in zip(commands, [*commands[1:], None], strict=True):
            where = f"{block.document.name}:{command.line}"
            expected = self.rewritten("\n".join(command.output)).splitlines()
            if command.command == "echo $?":
                assert expected == [str(code)], f"{where}: expected {expected}, it was {code}"
                code = 0
                continue
            assert code == 0, f"before {where}: exit code {code}"
            if command.command.startswith("kill -9 "):
                self._kill_processor(where)
            elif not command.command:
                self._interrupt_last(expected[1:], where)
            else:
                is_last = following is None
                code = self._run(self.rewritten(command.command), expected, where, is_last=is_last)
        assert code == 0, f"{block}: the last command ended with exit code {code}"

    def _run(self, command: str, expected: list[str], where: str, *, is_last: bool) -> int:
        terminal = self._start(["bash", "-o", "pipefail", "-c", command])
        if "^C" in expected:
            place = expected.index("^C")
            self._running.append((terminal, expected[:place]))
            terminal.wait_for(expected[:place], where)
            self._interrupt_last(expected[place + 1 :], where)
            return 0
        goes_on = shlex.split(command)[:2] == ["kqmp", "run"] or command.startswith("python ")
        if is_last and goes_on and expected[-1:] == ["..."]:
            self._running.append((terminal, expected))
            terminal.wait_for(expected, where)
            return 0
        return self._finish(terminal, expected, where)

    def _finish(
        self, terminal: Terminal, expected: list[str], where: str, codes: set[int] | None = None
    ) -> int:
        try:
            code = terminal.wait(where)
            terminal.check(expected, where)
        finally:
            terminal.close()
        told = terminal.output.read_text(errors="replace")
        assert codes is None or code in codes, f"{where}: exit code {code}\n{told}"
        return code

    def _interrupt_last(self, expected: list[str], where: str) -> None:
        assert self._running, f"{where}: nothing runs that ^C could end"
        terminal, before = self._running[-1]
        terminal.interrupt()
        ends = {0, 130, -signal.SIGINT}
        self._finish(terminal, [*before, *(expected or ["..."])], where, ends)
        self._running.pop()

    def _kill_processor(self, where: str) -> None:
        assert self._running, f"{where}: no engine runs"
        engine = psutil.Process(self._running[-1][0].process.pid)

        def processors() -> list[psutil.Process]:
            children = engine.children(recursive=True)
            return [child for child in children if "processor" in title(child)]

        before = processors()
        assert before, f"{where}: it has no processor"
        before[-1].kill()
        wait_until(lambda: len(set(processors()) - set(before)) == 1, f"{where}: another processor")
