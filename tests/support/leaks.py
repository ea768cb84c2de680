"""What a test left behind: processes, descriptors, threads, shared memory (invariant 7).

Judged from outside the engine, with /proc and psutil. Pytest is made the reaper of orphans
(PR_SET_CHILD_SUBREAPER), so that a grandchild whose parent was killed is still found as a child.
"""

import contextlib
import ctypes
import gc
import os
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

#: Seconds within which everything must be gone. The promise is 2 s and has tests of its own; the
#: rest is for a machine that runs other things.
GRACE_S = 5.0

#: librdkafka opens a wake-up pipe (two descriptors) for each broker thread, at any moment, in
#: clients that live as long as the session: pipes may grow by this many.
PIPE_SLACK = 8


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@dataclass(frozen=True)
class Snapshot:
    """What belongs to this process at one moment."""

    children: frozenset[psutil.Process]
    #: descriptors by kind; regular files and network sockets are left out (clients of the session)
    descriptors: Counter[str]
    threads: frozenset[threading.Thread]
    shared_memory: frozenset[str]


@dataclass
class Leaks:
    """The difference of two snapshots, empty if nothing was left behind."""

    processes: list[psutil.Process] = field(default_factory=list)
    descriptors: Counter[str] = field(default_factory=Counter)
    threads: list[str] = field(default_factory=list)
    shared_memory: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.processes or self.descriptors or self.threads or self.shared_memory)

    def __str__(self) -> str:
        parts = [
            *(f"process {describe(process)}" for process in self.processes),
            *(f"{count} more open {kind}" for kind, count in sorted(self.descriptors.items())),
            *(f"thread {name}" for name in self.threads),
            *(f"/dev/shm/{name}" for name in self.shared_memory),
        ]
        return ", ".join(parts)


def snapshot() -> Snapshot:
    """Take stock of this process. Zombies are not counted: they hold nothing."""
    gc.collect()  # librdkafka's clients and mmaps close when collected
    return Snapshot(
        children=frozenset(filter(is_live_engine_process, psutil.Process().children(True))),
        descriptors=descriptors_by_kind(),
        threads=frozenset(threading.enumerate()),
        shared_memory=frozenset(
            entry.name for entry in Path("/dev/shm").iterdir() if is_ours(entry.name)
        ),
    )


def is_live_engine_process(process: psutil.Process) -> bool:
    """Whether this child counts: it runs, and is no Kafka broker of the session's cluster."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.name() != "java"
    except psutil.NoSuchProcess:
        return False


def is_ours(name: str) -> bool:
    """Whether a name in /dev/shm is one that kqmp, or multiprocessing under it, would choose."""
    return "kqmp" in name or name.startswith(("psm_", "sem.mp-"))


def descriptors_by_kind() -> Counter[str]:
    """Count the descriptors that an engine uses: memfd, eventfd, pidfd, pipes, Unix sockets."""
    kinds: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue  # the descriptor of this very listing
        kind = kind_of(int(entry.name), target)
        if kind:
            kinds[kind] += 1
    return kinds


def kind_of(descriptor: int, target: str) -> str | None:
    """Name the kind of a descriptor, None for kinds that are not watched."""
    if target.startswith("/memfd:"):
        return "memfd"
    if target.startswith("anon_inode:"):
        return target.removeprefix("anon_inode:").strip("[]")
    if target.startswith("pipe:"):
        return "pipe"
    if target.startswith("socket:") and is_unix_socket(descriptor):
        return "Unix socket"
    return None


def is_unix_socket(descriptor: int) -> bool:
    """Whether a descriptor is an AF_UNIX socket (a control channel), not a network connection."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            return duplicate.family == socket.AF_UNIX
    except OSError:
        return False


def compare(before: Snapshot, after: Snapshot) -> Leaks:
    """Return what `after` has more than `before`."""
    more = after.descriptors - before.descriptors
    if more["pipe"] <= PIPE_SLACK:
        del more["pipe"]
    return Leaks(
        processes=sorted(after.children - before.children, key=lambda process: process.pid),
        descriptors=more,
        threads=[thread.name for thread in after.threads - before.threads if thread.is_alive()],
        shared_memory=sorted(after.shared_memory - before.shared_memory),
    )


def wait_until_clean(before: Snapshot, grace_s: float = GRACE_S) -> Leaks:
    """Wait until nothing is left beyond `before`, at most `grace_s`; return what still is."""
    deadline = time.monotonic() + grace_s
    while True:
        leaks = compare(before, snapshot())
        if not leaks or time.monotonic() >= deadline:
            return leaks
        time.sleep(0.05)


def describe(process: psutil.Process) -> str:
    """Name a process by pid and command line."""
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} ({' '.join(process.cmdline())[:120] or process.name()})"
    return str(process.pid)


def kill_all(processes: list[psutil.Process]) -> None:
    """End what a failed test left, so that it does not disturb the next one."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def reap_adopted() -> None:
    """Collect dead orphans that were adopted, so that a long session gathers no zombies.

    Call it only where no test waits for a child: it takes the status of direct children too.
    """
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
