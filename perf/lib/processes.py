"""A process tree under measurement: start it so that it cannot outlive us, sample it, end it."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
#: Lines of an engine's output that go into an error.
TAIL_LINES: Final = 15


class RunFailed(Exception):
    """An engine did not do what was to be measured; the text says what, with its output."""


class Tree:
    """A started command, all its descendants, and what it wrote.

    The kernel kills the command when this process ends in whatever way. Start it from the main
    thread: that death signal follows the thread.
    """

    def __init__(
        self, command: Sequence[str], env: dict[str, str], fds: Iterable[int] = ()
    ) -> None:
        """Start `command` in the repository's root, in a session of its own."""
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the tree
        self._process = subprocess.Popen(
            [*tied_command(), *command],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": _python_path(), **env},
            pass_fds=list(fds),
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._seen: dict[int, psutil.Process] = {}

    def members(self) -> list[psutil.Process]:
        """Return root and descendants that live now; remembered for `kill`."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            found = [root, *root.children(recursive=True)]
            self._seen |= {process.pid: process for process in found}
            return found
        return []

    def exit_code(self) -> int | None:
        """Return how the root ended, None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask the root to stop."""
        self._process.terminate()

    def wait(self, timeout_s: float) -> int:
        """Wait for the end of the root.

        Raises:
            RunFailed: it still runs.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise RunFailed(self.complaint(f"still runs after {timeout_s:.0f} s")) from None

    def output(self) -> str:
        """Return all it wrote so far."""
        self._output.flush()
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def complaint(self, text: str) -> str:
        """Return `text` with the end of the output."""
        self._output.flush()
        size = os.fstat(self._output.fileno()).st_size
        raw = os.pread(self._output.fileno(), 20_000, max(0, size - 20_000))
        tail = raw.decode(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([text, *(f"    | {line}" for line in tail)])

    def kill(self) -> None:
        """Kill whatever is left of the tree and reap it. Idempotent."""
        self.members()
        for process in self._seen.values():
            # psutil compares start times: a number that was given away is not signalled.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        _reap_adopted(self._seen)
        self._output.close()


class CpuClock:
    """The CPU time of a fixed set of processes, all their threads, also ended ones.

    Kernel clocks (`clock_getcpuclockid`) of ns resolution, where /proc/PID/stat counts in 10 ms.
    """

    def __init__(self, processes: Iterable[psutil.Process]) -> None:
        """Take up the processes that live now."""
        members = list(processes)
        self.pids = [process.pid for process in members]
        #: What `ps` calls each of them.
        self.titles = [_title(process) for process in members]
        # As the C library's clock_getcpuclockid() makes it: the scheduler's clock of a process.
        self._clocks = [(~pid << 3) | 2 for pid in self.pids]

    def read_s(self) -> list[float]:
        """Return the CPU time of each, in seconds.

        Raises:
            RunFailed: one of them has ended.
        """
        try:
            return list(map(time.clock_gettime, self._clocks))
        except OSError:
            msg = "a process ended within the measured window"
            raise RunFailed(msg) from None


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()).strip()
    return ""


def smaps_kb(pid: int) -> dict[str, int]:
    """Return the fields of /proc/PID/smaps_rollup in kB; empty if the process is gone."""
    fields = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, rest = line.partition(":")
            fields[name] = int(rest.split()[0])
    return fields


def private_kb(pid: int) -> int:
    """Return what only this process holds: gone if it ended."""
    fields = smaps_kb(pid)
    return fields.get("Private_Clean", 0) + fields.get("Private_Dirty", 0)


def pss_kb(processes: Iterable[psutil.Process]) -> int:
    """Return the memory of a tree, shared pages counted once."""
    return sum(smaps_kb(process.pid).get("Pss", 0) for process in processes)


def adopt_orphans() -> None:
    """Have orphaned descendants become children of this process, so that it can reap them."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap_adopted(pids: Iterable[int]) -> None:
    deadline = time.monotonic() + 5
    for pid in pids:
        while time.monotonic() < deadline:
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    break
            except ChildProcessError:
                break
            time.sleep(0.005)


def _python_path() -> str:
    """Return a search path on which engines find kqmp and the handlers, installed or not."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def tied_command() -> list[str]:
    """Return what to put before a command so that the kernel kills it when this process ends."""
    return [sys.executable, __file__, str(os.getpid())]


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, `parent`, ends; an exec keeps that."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
