"""The ring under real concurrency: a fetcher, two processors and the coordinator on two lanes.

The coordinator is the test itself. What the machine reorders, or what is half visible at a kill,
would show as a wrong message, a damaged frame or a lost number; every wait ends when a process
does.
"""

import os
import random
import subprocess
import sys

import pytest

from kqmp.ring import log
from kqmp.ring.log import DispatchReader
from tests.support import litmus
from tests.support.kafka import ROOT

LANES = 2


class Engine:
    """The processes, with their successors."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.lane_fds = [litmus.create_lane() for _ in range(LANES)]
        self.dispatch_fd = log.create(LANES, litmus.LOG_BYTES)
        self.coordinator = DispatchReader(self.dispatch_fd)
        self.expected = [0] * LANES
        self.children = {"fetcher": self.start("fetcher")}
        for index in range(LANES):
            self.children[f"processor {index}"] = self.start("processor", index)

    def start(self, role: str, index: int = 0) -> subprocess.Popen[bytes]:
        fds = self.lane_fds if role == "fetcher" else [self.lane_fds[index]]
        numbers = [self.dispatch_fd, self.messages, index, *fds]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.litmus", role, *map(str, numbers)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=[self.dispatch_fd, *fds],
        )

    def kill(self, name: str) -> None:
        """Kill a process wherever it is, and start its successor."""
        self.children[name].kill()
        self.children[name].wait()
        role, _, index = name.partition(" ")
        self.children[name] = self.start(role, int(index or 0))

    def count(self) -> int:
        """Read the log; runs must follow each other without a gap. Return the messages so far."""
        for touched in self.coordinator.read():
            for run in touched[0].runs:
                assert run.first == self.expected[run.lane]
                self.expected[run.lane] += len(run.offsets) // 8
        return min(self.expected)

    def failed(self) -> list[str]:
        """Return who found something wrong; what it was stands in the captured output."""
        return [name for name, child in self.children.items() if child.poll() not in (None, 0)]

    def run_until(self, messages: int) -> None:
        while self.count() < messages:
            assert not self.failed()
            os.sched_yield()

    def finish(self) -> None:
        self.run_until(self.messages)
        for child in self.children.values():
            child.wait()
        assert not self.failed()
        self.count()
        assert self.expected == [self.messages] * LANES

    def close(self) -> None:
        for child in self.children.values():
            child.kill()
            child.wait()
        self.coordinator.close()
        for fd in (*self.lane_fds, self.dispatch_fd):
            os.close(fd)


@pytest.mark.engine
def test_every_message_passes_in_order_and_intact():
    engine = Engine(messages=80_000)
    try:
        engine.finish()
    finally:
        engine.close()


@pytest.mark.engine
@pytest.mark.parametrize("seed", range(3))
def test_kills_anywhere_lose_nothing_and_leave_nothing_half_visible(seed):
    chance = random.Random(seed)
    engine = Engine(messages=30_000)
    try:
        for kill in range(1, 14):
            engine.run_until(kill * 2_000 + chance.randrange(1_000))
            engine.kill(chance.choice(["fetcher", "fetcher", "processor 0", "processor 1"]))
        engine.finish()
    finally:
        engine.close()
