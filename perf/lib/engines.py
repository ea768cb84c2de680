"""The measured engines: how each is started, told to stop, and where its progress is read."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from perf.lib.broker import Broker, Load
from perf.lib.processes import RunFailed, Tree
from perf.lib.progress import LaneProgress, Progress, SharedProgress

CORES: Final = len(os.sched_getaffinity(0))
#: Messages that a pool is given at a time: the best size for no-op handlers.
POOL_BATCH: Final = 2000
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 40.0


@dataclass(frozen=True)
class Job:
    """What an engine shall do."""

    broker: Broker
    load: Load
    #: Name in `perf.handlers`.
    handler: str
    #: kqmp's Processors.
    processors: int = CORES
    #: Environment of the engine, for the handlers' settings.
    env: dict[str, str] = field(default_factory=dict)
    #: kqmp's QueueCapacity. 8 Consumers x 12,500 = the 100,000 messages of a partition that
    #: librdkafka reads ahead for the rivals.
    queue_capacity: int = 12_500
    #: More arguments for `kqmp run`.
    kqmp_options: tuple[str, ...] = ()


class Running:
    """A started engine in a fresh group; leaving the `with` block kills what is left of it."""

    def __init__(self, name: str, job: Job) -> None:
        """Start engine `name`, one of `ENGINES`."""
        self.name = name
        self.job = job
        self.topic = job.broker.topic(job.load)
        self.group = job.broker.new_group(name)
        self.progress: Progress
        self._shared: SharedProgress | None = None
        if name == "kqmp":
            self.tree = Tree(_kqmp_command(self), job.env)
            self.progress = LaneProgress(self.tree.pid, job.processors)
        else:
            members = CORES if name in ("processes", "bare") else 1
            self.progress = self._shared = SharedProgress(processes=members)
            self.tree = Tree(_rival_command(self, members), job.env, [self._shared.fd])

    def __enter__(self) -> Self:
        """Let a rival go once all its processes are ready."""
        if self._shared is not None:
            try:
                self.wait(self._shared.ready, START_TIMEOUT_S, "did not start")
            except BaseException:
                self.close()
                raise
            self._shared.words[SharedProgress.GO] = 1
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing."""
        self.close()

    def close(self) -> None:
        """Kill what is left."""
        self.tree.kill()
        self.progress.close()

    @property
    def is_consumer(self) -> bool:
        """Whether it consumes the topic: not so `bare`."""
        return self.name != BARE

    def count(self) -> int:
        """Return the messages handled so far.

        Raises:
            RunFailed: more than there are: something was repeated.
        """
        count = self.progress.count()
        if count > self.job.load.count and self.is_consumer:
            raise RunFailed(f"{self.name} handled {count} of {self.job.load.count} messages")
        return count

    def wait(self, condition: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        """Wait until a condition holds.

        Raises:
            RunFailed: it does not within the time, or the engine ended.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.check_alive()
            if time.monotonic() > deadline:
                text = f"{self.name}: {complaint} within {timeout_s:.0f} s"
                raise RunFailed(self.tree.complaint(text))
            time.sleep(0.002)

    def check_alive(self) -> None:
        """Raise RunFailed if the engine ended."""
        code = self.tree.exit_code()
        if code is not None:
            raise RunFailed(self.tree.complaint(f"{self.name} ended with exit code {code}"))

    def wait_for_first(self) -> None:
        """Wait for the first handled message."""
        self.wait_for_count(1)

    def wait_for_count(self, count: int) -> None:
        """Wait until so many messages are handled; for short waits, as it looks often."""
        text = f"did not handle {count} messages"
        self.wait(lambda: self.count() >= count, START_TIMEOUT_S, text)

    def stop(self) -> float:
        """Stop the engine as a user would and return the seconds until its process was gone.

        Raises:
            RunFailed: it did not stop, or its exit code is not 0.
        """
        started = time.monotonic()
        if self._shared is not None:
            self._shared.words[SharedProgress.STOP] = 1
        else:
            self.tree.terminate()
        code = self.tree.wait(STOP_TIMEOUT_S)
        took = time.monotonic() - started
        if code:
            raise RunFailed(self.tree.complaint(f"{self.name} stopped with exit code {code}"))
        return took

    def committed(self) -> int:
        """Return the messages that the group has committed."""
        job = self.job
        return job.broker.committed_sum(self.group, self.topic, job.load.partitions)


#: What the machine gives: the handler in as many processes as there are cores, without Kafka.
BARE: Final = "bare"
#: Name -> what it is, in the order of a round.
ENGINES: Final = {
    "kqmp": f"kqmp, Conns 1, Processors {CORES}, key order",
    "poll": "poll() loop, one process",
    "consume": "consume(500) loop, one process",
    "processes": f"consume(500) loop, {CORES} processes in one group",
    BARE: f"the handler alone, {CORES} processes without Kafka: what the machine gives",
    "pool": f"consume({POOL_BATCH}) + multiprocessing.Pool({CORES}).starmap, barrier per batch",
}


def _target(running: Running) -> list[str]:
    job = running.job
    return [
        *("--brokers", job.broker.address),
        *("--group", running.group),
        *("--topic", running.topic),
    ]


def _kqmp_command(running: Running) -> list[str]:
    job = running.job
    return [
        *(sys.executable, "-m", "kqmp", "run", f"perf.handlers:{job.handler}"),
        *_target(running),
        *("--conns", "1", "--processors", str(job.processors), "--set", "Offset=first"),
        *("--set", f"QueueCapacity={job.queue_capacity}"),
        *job.kqmp_options,
    ]


def _rival_command(running: Running, members: int) -> list[str]:
    kind = "consume" if running.name == "processes" else running.name
    assert running.name in ENGINES
    assert isinstance(running.progress, SharedProgress)
    return [
        *(sys.executable, "-m", "perf.lib.rivals", kind, running.job.handler),
        *_target(running),
        *("--fd", str(running.progress.fd)),
        *("--members", str(members), "--workers", str(CORES)),
        # Ten batches at least, or there is nothing between the first and the last to measure.
        *("--batch", str(min(POOL_BATCH, running.job.load.count // 10))),
    ]
