"""The handlers of the measured engines; the same functions for kqmp and for its rivals.

Settings come by environment, which every engine passes on to where its handlers run.
"""

import itertools
import os
import time
from pathlib import Path

#: CPU time of one message of `work`, in ns.
WORK_NS = int(os.environ.get("KQMP_PERF_WORK_NS", "1000000"))
#: How long the one marked message of `slow` sleeps, in seconds.
SLEEP_S = float(os.environ.get("KQMP_PERF_SLEEP_S", "30"))
#: File into which `slow` writes the monotonic time (ns, as text) at which that sleep begins.
MARK = Path(os.environ.get("KQMP_PERF_MARK", os.devnull))
#: Messages that each process of `stall` handles before it stands still.
STALL_AFTER = int(os.environ.get("KQMP_PERF_STALL_AFTER", "50000"))
#: What the value of the marked message begins with.
SLEEPER = b'{"sleep":true'

_stall_calls = itertools.count(1)


def noop(_key: bytes, _value: bytes) -> None:
    """Do nothing: what is measured is the engine."""


def work(_key: bytes, _value: bytes) -> None:
    """Burn `WORK_NS` of CPU time of this thread: waiting for a core does not count as work.

    Some 2 us of arithmetic between two looks at the clock, so that most of it is Python's own
    work; only the clock near the end, so that it overshoots by less than 1 us.
    """
    clock = time.thread_time_ns
    end = clock() + WORK_NS
    near_end = end - 10_000
    number = 1
    while clock() < near_end:
        for step in range(40):
            number = (number * 31 + step) & 0xFFFF
    while clock() < end:
        pass


def slow(key: bytes, value: bytes) -> None:
    """Sleep on the one marked message, work on all others."""
    if not value.startswith(SLEEPER):
        work(key, value)
        return
    MARK.write_text(str(time.monotonic_ns()), encoding="ascii")
    time.sleep(SLEEP_S)


def stall(_key: bytes, _value: bytes) -> None:
    """Work off some messages at full speed, then stand still for good."""
    if next(_stall_calls) > STALL_AFTER:
        time.sleep(86_400)
