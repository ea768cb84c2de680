"""How each producer is started and what its run gave: one fresh topic a run, counted afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from perf.lib.broker import Broker
from perf.lib.processes import ROOT, RunFailed, Tree
from perf.lib.rate import Rate

PARTITIONS: Final = 12
KEYS: Final = 1000
RUN_TIMEOUT_S: Final = 300.0
#: What was sent without acknowledgement is in the log after so long, or lost.
ARRIVAL_S: Final = 5.0
#: Found by trying 1, 8, 32, 64 and 128 MiB. All that a run sends makes one chunk then, so that only
#: one is waited for; kq begins a chunk when the last one is written, and its end takes a second.
KQ_BEST: Final = ("-chunk-bytes", str(128 << 20))

#: Those that may lose messages without a word.
KQ: Final = ("kq", "kq-best")

PUSHERS: Final = {
    "kqmp": "kqmp.Pusher as it is by default: acks=all, idempotent, keys decide",
    "loop": "confluent-kafka: produce(on_delivery=...) and poll(0), with the Pusher's properties",
    "kq": "go-queue's Pusher in Go as it is by default: acks=0, keys ignored",
    "kq-best": "the same with the chunk size that suits it best, 128 MiB",
    "kqmp-push": "kqmp push FILE: the whole command, start to exit",
    "kcat": "kcat -P -l FILE: the same",
}
#: What must be installed for some of them, and how.
NEEDS: Final = {
    "kq": ("go", "install Go 1.24 or newer (https://go.dev/dl)"),
    "kq-best": ("go", "install Go 1.24 or newer (https://go.dev/dl)"),
    "kcat": ("kcat", "install kcat (Debian/Ubuntu: apt-get install kcat)"),
}


def missing(names: tuple[str, ...]) -> list[str]:
    """Return a line for each program that the pushers of this run lack here."""
    lacking = {NEEDS[n] for n in names if n in NEEDS and shutil.which(NEEDS[n][0]) is None}
    return [f"`{program}` is not on PATH: {how}" for program, how in sorted(lacking)]


@dataclass(frozen=True)
class PushJob:
    """What is pushed: the first `count` lines of a file."""

    broker: Broker
    file: Path
    count: int
    #: Where the Go program lies, built by `build_peer`.
    peer: Path | None


def build_peer(directory: Path) -> Path:
    """Build perf/peers/kq_pusher into `directory` and return the program.

    Raises:
        RunFailed: go failed, with what it said.
    """
    program = directory / "kq_pusher"
    command = ["go", "build", "-o", str(program), "."]
    where = ROOT / "perf" / "peers" / "kq_pusher"
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunFailed(f"go build in {where} failed: {done.stderr.strip()}")
    return program


@dataclass(frozen=True)
class Pushed:
    """One run."""

    rate: Rate
    #: Messages that are not in the topic, though the producer was closed without an error.
    lost: int


def push(name: str, job: PushJob) -> Pushed:
    """Run one producer on a topic of its own, which is removed afterwards.

    The rate is that of the messages which arrived.

    Raises:
        RunFailed: it failed, or not all that it pushed is in the topic. kq only is let pass with
            losses: it asks for no acknowledgements, and its Close drops what another chunk holds.
    """
    topic = job.broker.new_topic(PARTITIONS)
    try:
        seconds, cpu_s = _run(name, job, topic)
        arrived = _arrived(job, topic)
    finally:
        job.broker.drop_topic(topic)
    if arrived > job.count or (arrived < job.count and name not in KQ):
        raise RunFailed(f"{name}: {arrived} messages in the topic instead of {job.count}")
    rate = Rate(arrived / seconds, cpu_s / job.count * 1e6, seconds, 0.0, {})
    return Pushed(rate, job.count - arrived)


def _run(name: str, job: PushJob, topic: str) -> tuple[float, float]:
    """Return the seconds and the CPU seconds it took; of whole commands without their CPU time."""
    tree = Tree(_command(name, job, topic), {})
    began_s = time.monotonic()
    try:
        code = tree.wait(RUN_TIMEOUT_S)
        seconds = time.monotonic() - began_s
        if code != 0:
            raise RunFailed(tree.complaint(f"{name} ended with exit code {code}"))
        if name in ("kqmp-push", "kcat"):
            return seconds, 0.0
        told = json.loads(tree.output().splitlines()[-1])
    finally:
        tree.kill()
    if told.get("lost"):
        raise RunFailed(f"{name} lost {told['lost']} of {told['count']} messages")
    return told["seconds"], told.get("cpu_s", 0.0)


def _command(name: str, job: PushJob, topic: str) -> list[str]:
    brokers, file = job.broker.address, str(job.file)
    if name == "kqmp-push":
        kqmp = [sys.executable, "-m", "kqmp", "push"]
        return [*kqmp, "--brokers", brokers, "--topic", topic, file]
    if name == "kcat":
        return ["kcat", "-P", "-b", brokers, "-t", topic, "-l", file]
    sizes = {"count": str(job.count), "keys": str(KEYS)}
    flags = {"brokers": brokers, "topic": topic, "file": file, **sizes}
    if name in KQ:
        assert job.peer is not None
        best = KQ_BEST if name == "kq-best" else ()
        return [str(job.peer), *(f"-{flag}={text}" for flag, text in flags.items()), *best]
    given = [part for flag, text in flags.items() for part in (f"--{flag}", text)]
    return [sys.executable, "-m", "perf.lib.produce", name, *given]


def _arrived(job: PushJob, topic: str) -> int:
    """Return how many messages came, waiting a while for all."""
    deadline_s = time.monotonic() + ARRIVAL_S
    while (found := job.broker.end_sum(topic, PARTITIONS)) < job.count:
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.1)
    return found
