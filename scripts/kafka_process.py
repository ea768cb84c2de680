"""Start a JVM so that it can always be found again, and signal only that JVM.

Runs in the process that owns a cluster (the command line or a test), and, as a script, in the
child just before it becomes ``java``. It knows nothing of Kafka.

A process is identified by pid, start time and boot id, so a pid that the kernel has given to
somebody else is never signalled. The child writes that identity to its pid file before it executes
``java``: there is no moment at which a running JVM is not on record, even if its parent is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PR_SET_PDEATHSIG = 1
KILL_TIMEOUT_S = 30.0
#: Dispositions that Python or a shell may have changed and that a JVM must find as usual.
RESET_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, for good: unlike a bare pid it never comes to mean another process."""

    pid: int
    #: Clock ticks after boot (field 22 of /proc/PID/stat); it survives execve.
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Identify the process, maybe a zombie, that has ``pid`` now; None if there is none."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command name, in parentheses, may itself hold spaces and parentheses.
        return cls(pid, int(stat.rpartition(")")[2].split()[19]), _boot_id())

    @classmethod
    def read(cls, path: Path) -> ProcessId | None:
        """Read what `write` wrote; None if there is no such file or it is not whole."""
        try:
            pid, ticks, boot_id = path.read_text(encoding="ascii").split()
            return cls(int(pid), int(ticks), boot_id)
        except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Put this identity on record, replacing the file in one step."""
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(f"{self.pid} {self.start_ticks} {self.boot_id}\n", encoding="ascii")
        partial.replace(path)

    def is_running(self) -> bool:
        """Tell whether this very process still runs; once it does not, its ports are free."""
        # Not the state "Z" in /proc: it tells of the first thread only, and a JVM that is being
        # killed shows it while other threads still hold the sockets.
        with self._pidfd() as descriptor:
            return descriptor is not None and not _has_ended(descriptor, 0)

    def send(self, number: signal.Signals) -> None:
        """Signal this process, or do nothing if it is gone."""
        with self._pidfd() as descriptor:
            if descriptor is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until the process has ended, and reap it if it is a child of ours.

        Returns:
            False if it still runs after ``timeout_s`` (>= 0).
        """
        with self._pidfd() as descriptor:
            if descriptor is not None and not _has_ended(descriptor, timeout_s):
                return False
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return True

    @contextlib.contextmanager
    def _pidfd(self) -> Iterator[int | None]:
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            # A pidfd never changes its process, so the identity holds once it is checked here.
            yield descriptor if ProcessId.of(self.pid) == self else None
        finally:
            os.close(descriptor)


#: Starts a command, given its pid file and log; `launch_tied` or `launch_detached`.
Launch = Callable[[Sequence[str], Path, Path], ProcessId]


def _has_ended(pidfd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0, round(timeout_s * 1000))))


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@cache
def _spawning_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-spawn")


def launch_tied(command: Sequence[str], pid_file: Path, log: Path) -> ProcessId:
    """Start ``command`` so that the kernel kills it when this process ends, however it ends.

    The death signal follows the *thread* that started a child, not the process. Everything is
    therefore started from one thread that lives until the interpreter ends, so that `restart` may
    be called from a short-lived thread of a test.
    """
    return _spawning_thread().submit(_spawn, command, pid_file, log, os.getpid()).result()


def launch_detached(command: Sequence[str], pid_file: Path, log: Path) -> ProcessId:
    """Start ``command`` in a session of its own so that it outlives this process."""
    return _spawn(command, pid_file, log, 0)


def _spawn(command: Sequence[str], pid_file: Path, log: Path, tied_to: int) -> ProcessId:
    argv = [sys.executable, "-I", "-S", __file__, str(pid_file), str(tied_to), *command]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        sys.executable,
        argv,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=RESET_SIGNALS,
    )
    # An identity that nobody has, if the child is dead already.
    process = ProcessId.of(pid) or ProcessId(pid, 0, "")
    process.write(pid_file)
    return process


def stop_all(processes: Sequence[ProcessId], term_timeout_s: float) -> None:
    """End all ``processes``: SIGTERM, then SIGKILL for those left after ``term_timeout_s``.

    Raises:
        TimeoutError: as `kill_all`.
    """
    for process in processes:
        process.send(signal.SIGTERM)
    deadline_s = time.monotonic() + term_timeout_s
    kill_all([p for p in processes if not p.wait_gone(deadline_s - time.monotonic())])


def kill_all(processes: Sequence[ProcessId]) -> None:
    """End all ``processes`` by SIGKILL and wait until they are gone.

    Raises:
        TimeoutError: one hangs in the kernel, so that SIGKILL had no effect within 30 s.
    """
    for process in processes:
        process.send(signal.SIGKILL)
    for process in processes:
        if not process.wait_gone(KILL_TIMEOUT_S):
            raise TimeoutError(f"process {process.pid} does not end, even by SIGKILL")


def _become(pid_file: str, tied_to: int, command: Sequence[str]) -> None:
    if tied_to:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died before the line above.
        if os.getppid() != tied_to:
            raise SystemExit(1)
    itself = ProcessId.of(os.getpid())
    assert itself is not None
    itself.write(Path(pid_file))
    # A JVM must not pin the directory that a user happened to stand in, nor keep open a pipe that
    # somebody reads to its end.
    os.chdir(Path(pid_file).parent)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    _become(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
