"""The engine of `kqmp demo`: a `kqmp run` process as a user would start it, watched from outside.

Its processors are found as the children of that very process, so that the demo never kills one of
another engine. What it logs is kept in memory and shown only if it fails.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psutil

from kqmp.errors import WorkerStartError
from kqmp.kafka.mock import python_command

#: A stop drains, commits and leaves the group well within this.
STOP_S: Final = 20.0
#: Children of a killed coordinator are gone within 2 seconds.
GONE_S: Final = 5.0
_PROCESSOR: Final = "kqmp: processor "
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Kill:
    """A processor that the demo killed."""

    #: Its place in the engine, such as "0.1"; its successor takes the same.
    place: str
    pid: int
    #: On the clock of the ledger.
    at_ns: int


class Engine:
    """A running `kqmp run`."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            arguments: the command line after `kqmp`.
            environment: variables to add for its handlers.

        Raises:
            WorkerStartError: the system refuses another process.
        """
        self._log = os.memfd_create("kqmp-demo-log")
        try:
            self._process = subprocess.Popen(
                python_command(__name__, [str(os.getpid()), *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, **environment},
                process_group=0,  # a terminal's Ctrl-C reaches the demo alone
            )
        except OSError as error:
            os.close(self._log)
            raise WorkerStartError(f"cannot start a process: {error}") from error
        #: Each processor ever seen: pid -> its place.
        self.places: dict[int, str] = {}

    def exit_code(self) -> int | None:
        """Return its exit code if it has ended."""
        return self._process.poll()

    def look(self) -> dict[int, psutil.Process]:
        """Return its running processors by pid, and remember their places."""
        found = {}
        for child in _children(self._process.pid):
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if title.startswith(_PROCESSOR):
                self.places[child.pid] = title.removeprefix(_PROCESSOR).strip()
                found[child.pid] = child
        return found

    def kill(self, processor: psutil.Process) -> Kill | None:
        """Kill one of `look`'s processors with SIGKILL; None if it was gone."""
        place = self.places[processor.pid]
        at_ns = time.monotonic_ns()
        try:
            processor.kill()
        except psutil.NoSuchProcess:
            return None
        return Kill(place, processor.pid, at_ns)

    def stop(self) -> int:
        """Stop it as a user does, with SIGTERM, and return its exit code (-9: it took too long)."""
        self._process.terminate()
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.abort()
            return self._process.returncode

    def abort(self) -> None:
        """Kill it with all its processes, and return when they are gone. Idempotent."""
        family = _children(self._process.pid)
        self._process.kill()
        self._process.wait()
        # They die with their coordinator; this only waits.
        deadline_s = time.monotonic() + GONE_S
        while any(map(_is_alive, family)) and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def log_tail(self, lines: int = 20) -> list[str]:
        """Return the last lines it logged."""
        size = os.fstat(self._log).st_size
        text = os.pread(self._log, 65_536, max(0, size - 65_536)).decode(errors="replace")
        return text.splitlines()[-lines:]

    def close(self) -> None:
        """End it if it runs, and give the memory of its log back."""
        self.abort()
        os.close(self._log)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    # A zombie counts as gone: in a container there may be nobody to reap it.
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def recovery_s(kill: Kill, places: Mapping[int, str], first_start_ns: Mapping[int, int]) -> float:
    """Return how long after a kill the successor began its first message; 0 if none did.

    Args:
        kill: the kill.
        places: place of each process, by pid.
        first_start_ns: when each process began its first message, by pid.
    """
    starts = [
        start_ns
        for pid, start_ns in first_start_ns.items()
        if places.get(pid) == kill.place and start_ns > kill.at_ns
    ]
    return (min(starts) - kill.at_ns) / 1e9 if starts else 0.0


def main() -> None:
    """Entry of the process; its arguments are PARENT_PID ARGUMENT...

    Becomes `kqmp ARGUMENT...`, but does not outlive the demo, even one that was killed.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
    sys.argv[1:] = sys.argv[2:]
    from kqmp.cli.main import main as kqmp_main

    kqmp_main()
