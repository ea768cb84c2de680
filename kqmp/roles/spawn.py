"""Start child processes by exec, and set a child up so that it cannot outlive its coordinator.

Fetchers and processors start by exec, never by fork alone: librdkafka does not survive a fork, and
a fresh interpreter has no threads, locks or descriptors of its parent but those named here.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NoReturn

from setproctitle import setproctitle

from kqmp.errors import WorkerStartError
from kqmp.roles import control
from kqmp.roles.channel import Channel, adopt, pair

#: Makes a descriptor that becomes a child's stderr; whoever starts the child closes it.
Stderr = Callable[[], int]

_PR_SET_PDEATHSIG: Final = 1
#: What a child runs. Not `-m`: a program that runs kqmp from its source directory need not have
#: installed it, nor put it on PYTHONPATH, for its children to find it.
_BOOT: Final = (
    "import importlib, sys; root, module = sys.argv[1:3]; del sys.argv[1:3]; sys.path.append(root);"
    " importlib.import_module(module).main()"
)
_ROOT: Final = str(Path(__file__).parents[2])
#: Signals a terminal or an init system sends to everyone: only the coordinator acts on them.
FOR_THE_COORDINATOR: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Libraries that start a thread per core unless told otherwise: N processors times N threads.
MATH_THREADS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class Child:
    """A running (or ended) child of the coordinator."""

    __slots__ = ("_process", "channel", "pid", "pidfd")

    def __init__(self, process: "subprocess.Popen[bytes]", channel: Channel) -> None:
        """Watch `process`; `channel` is our end of its control socket."""
        self._process = process
        self.pid = process.pid
        self.channel = channel
        self.pidfd = os.pidfd_open(process.pid)

    def exit_code(self) -> int | None:
        """Reap it if it has ended: its code (negative = signal), else None."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL. Harmless if it has ended."""
        self._process.kill()

    def reap(self) -> int:
        """Wait for its end (it was killed or told to exit) and close our descriptors."""
        code = self._process.wait()
        self.close()
        return code

    def close(self) -> None:
        """Close our descriptors of it."""
        os.close(self.pidfd)
        self.channel.close()


def spawn(
    module: str,
    spec: control.Message,
    fds: Iterable[int] = (),
    env: dict[str, str] | None = None,
    stderr: Stderr | None = None,
) -> Child:
    """Start `main()` of a module as a process, with a control socket, and hand it `spec`.

    Call it from the main thread: the death signal is tied to the thread that forked. The signals
    meant for the coordinator are blocked until the child has its own handlers, so that an early
    Ctrl-C ends nobody half-started.

    Args:
        module: a module with a `main()`, such as `kqmp.roles.fetcher`.
        spec: its first message.
        fds: descriptors it inherits, under the same numbers.
        env: its environment, ours if None.
        stderr: gives it its stderr; None = it inherits ours.

    Raises:
        WorkerStartError: the system refuses another process or descriptor.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_COORDINATOR)
    error_fd = None
    try:
        error_fd = None if stderr is None else stderr()
        ours, theirs = pair()
        with theirs:
            number = theirs.fileno()
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, _ROOT, module, str(number), str(os.getpid())],
                pass_fds=[number, *fds],
                stdin=subprocess.DEVNULL,
                stderr=error_fd,
                env=env,
            )
        child = Child(process, Channel(ours))
    except OSError as error:
        msg = f"cannot start a process: {error} (look at the limits `ulimit -u` and `ulimit -n`)"
        raise WorkerStartError(msg) from error
    finally:
        if error_fd is not None:
            os.close(error_fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    child.channel.send(spec)
    return child


def child_environment() -> dict[str, str]:
    """Return the environment for processors: one math thread each, unless the user set more."""
    return {**dict.fromkeys(MATH_THREADS, "1"), **os.environ}


def _ignore(_signal: int, _frame: object) -> None:
    """Do nothing: unlike SIG_IGN this is not inherited by what the handler starts."""


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, at once if it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def become_child(argv: list[str], title: str) -> Channel:
    """Set this process up as a child: death signal, signals, title. First call of its `main`.

    Returns:
        Our end of the control socket, whose number is argv[1]; argv[2] is the parent's pid.
    """
    die_with(int(argv[2]))
    for number in FOR_THE_COORDINATOR:
        signal.signal(number, _ignore)
    # A forked child of the handler must end on TERM again, or a Pool in a handler hangs.
    os.register_at_fork(
        before=_hold_term, after_in_parent=_release_term, after_in_child=_default_term
    )
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_COORDINATOR)
    setproctitle(title)
    return Channel(adopt(int(argv[1])))


def leave(code: int) -> NoReturn:
    """End this process at once: no exit hooks, no destructors of what is still in use.

    Threads and exit hooks of a user's modules have no say in a probe; and the destructor of a
    client that was not closed waits for ever on callbacks that nobody serves any more.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


_before_fork = threading.local()


def _hold_term() -> None:
    """Block TERM while a process forks.

    One that reached the child before it has the default would run our handler, and be lost.
    """
    _before_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release_term() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before_fork.mask)


def _default_term() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release_term()


def first_message(channel: Channel, timeout_s: float = 30.0) -> control.Message:
    """Return the spec that the parent sends right after the start; exits if there is none."""
    # One only: a Stop may stand behind it already.
    message = channel.wait_one(timeout_s)
    if message is None:
        sys.exit(1)
    return message
