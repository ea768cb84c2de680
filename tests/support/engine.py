"""An engine under test: `kqmp run` in a directory of its own, seen and hit from outside only.

Its processes are found by the titles that `ps` shows, signalled by pid, and all of them are ended
by `close`, whatever the test did.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support.kafka import ROOT
from tests.support.ledger import PATH_VARIABLE

#: A bound for everything that should take a moment; this machine may be busy.
PATIENCE_S = 40.0
POLL_S = 0.02

COMMAND = (sys.executable, "-m", "kqmp", "run")


def wait_until(
    reached: Callable[[], object], what: str, timeout_s: float = PATIENCE_S, every_s: float = POLL_S
) -> None:
    """Wait until `reached()` is true; fail with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still not: {what}"
        time.sleep(every_s)


class Engine:
    """One running engine."""

    def __init__(
        self,
        directory: Path,
        handler: str,
        conf: Mapping[str, Any],
        ledger: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            directory: made if missing; its working directory.
            handler: source of the module `mqs` with a handler `consume`.
            conf: the section, under kq's names.
            ledger: file that its handlers write.
            environment: further variables.
        """
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "mqs.py").write_text(handler)
        (directory / "mq.yaml").write_text(yaml.safe_dump({"KqConsumerConf": dict(conf)}))
        self._output = directory / "output.txt"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*COMMAND, "mqs:consume", "-f", "mq.yaml"],
                cwd=directory,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "PYTHONUNBUFFERED": "1",
                    PATH_VARIABLE: str(ledger),
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.coordinator = psutil.Process(self._process.pid)
        #: Everything it was seen to have started: to be ended by `close`.
        self._seen: set[psutil.Process] = set()

    @property
    def output(self) -> str:
        """All it wrote so far."""
        return self._output.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """Return its living processes but the coordinator."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = self.coordinator.children(recursive=True)
            self._seen.update(found)
            return [process for process in found if is_alive(process)]
        return []

    def _titled(self, pattern: str) -> list[psutil.Process]:
        return [child for child in self.children() if re.fullmatch(pattern, title(child))]

    def fetchers(self) -> list[psutil.Process]:
        """Return its fetchers, as `ps` names them."""
        return self._titled(r"kqmp: fetcher \d+")

    def processors(self, name: str = r"\d+\.\d+") -> list[psutil.Process]:
        """Return its processors, or the one called `name` ("0.1")."""
        return self._titled(rf"kqmp: processor {name}")

    def wait_until(
        self, reached: Callable[[], object], what: str, timeout_s: float = PATIENCE_S
    ) -> None:
        """Wait for a condition; fail with the engine's output if it ends or takes too long."""

        def reached_or_ended() -> bool:
            assert self._process.poll() is None, f"the engine ended: {self._told()}"
            return bool(reached())

        try:
            wait_until(reached_or_ended, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._told()}") from None

    def _told(self) -> str:
        return f"exit code {self._process.poll()}, its output:\n{self.output[-6000:]}"

    def signal(self, number: signal.Signals) -> None:
        """Signal the coordinator."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {timeout_s} s: {self._told()}") from None

    def stop(self) -> None:
        """SIGTERM; it must exit 0."""
        self.children()
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, self._told()

    def kill(self) -> set[psutil.Process]:
        """kill -9 of the coordinator; return all processes that must end with it."""
        family = {self.coordinator, *self.children()}
        self._process.kill()
        self._process.wait()
        return family

    def close(self) -> None:
        """End whatever is left of it, by pid."""
        self.children()
        for process in (self.coordinator, *self._seen):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def title(process: psutil.Process) -> str:
    """Return a process's title, "" if it is gone."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""
