"""Run the everyday suite as two pytest processes at once: `scripts/test` without arguments.

Engines on real Kafka mostly wait, for sessions, rebalances and JVMs; all other tests run in that
time. What the first group prints is shown as it comes, then all that the second one has printed.
The exit code is that of the first group that failed, else 0.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from typing import IO, Final

#: The tests on the session's broker, so that only one of the processes starts one for good.
SHARE_A_BROKER: Final = ("tests/kafka", "tests/docs", "tests/integration")
#: Name and arguments of each group. The second is all that is not in the first: no test is in
#: neither, however many directories there will be.
GROUPS: Final = (
    ("on Kafka", SHARE_A_BROKER),
    ("all others", ("tests", *(f"--ignore={path}" for path in SHARE_A_BROKER))),
)


def start(arguments: tuple[str, ...], output: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """Start pytest in our process group, where Ctrl-C reaches it, not us alone."""
    # No cache: of two that note at once what failed, for --lf, the last one wins.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    if output is not None and sys.stdout.isatty():
        command.append("--color=yes")
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    )


def main() -> int:
    """Run both groups and return the exit code."""
    running: list[subprocess.Popen[bytes]] = []

    def end(*_: object) -> None:
        for process in running:
            process.terminate()

    # Pytest has heard Ctrl-C itself and tidies up: that is worth waiting for.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, end)
    with tempfile.TemporaryFile() as held:
        outputs: list[IO[bytes] | None] = [None, held]
        for (_, arguments), output in zip(GROUPS, outputs, strict=True):
            running.append(start(arguments, output))
        running[0].wait()
        print(f"\n-- {GROUPS[1][0]} --", flush=True)
        running[1].wait()
        held.seek(0)
        shutil.copyfileobj(held, sys.stdout.buffer)
    print(flush=True)
    codes = [process.returncode for process in running]
    for (name, _), code in zip(GROUPS, codes, strict=True):
        print(f"{name}: {f'FAILED (exit {code})' if code else 'ok'}", flush=True)
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
