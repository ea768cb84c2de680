"""The rivals, as people write them: `python -m perf.lib.rivals KIND HANDLER ... `.

Each is a loop around confluent-kafka with its automatic commits, but for `bare`, which has no
Kafka. They get the fetch settings that suit them best (`fetch.queue.backoff.ms`; librdkafka's
default of a second would cost them a factor of up to 7) and commit once a second as kqmp does.
Their count of handled messages, kept in a local variable, goes to a shared word every 256 messages
or after each batch; with handlers that work, after each message.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.pool import Pool
from typing import NamedTuple

from confluent_kafka import Consumer

from perf.lib.processes import die_with_parent, tied_command
from perf.lib.progress import SharedProgress

Handler = Callable[[bytes | None, bytes | None], object]

#: Messages a `consume` call of the inline loop asks for.
INLINE_BATCH = 500


def poll_loop(consumer: Consumer, handler: Handler, words: memoryview[int], at: int) -> None:
    """Run `while True: message = consumer.poll(...)`."""
    done = 0
    poll = consumer.poll
    while not words[SharedProgress.STOP]:
        for _ in range(256):
            message = poll(0.05)
            if message is None:
                break
            if message.error() is not None:
                continue
            handler(message.key(), message.value())
            done += 1
        words[at] = done


def poll_loop_counting_each(
    consumer: Consumer, handler: Handler, words: memoryview[int], at: int
) -> None:
    """Run the same for handlers beside which one more store does not show."""
    while not words[SharedProgress.STOP]:
        message = consumer.poll(0.05)
        if message is not None and message.error() is None:
            handler(message.key(), message.value())
            words[at] += 1


def consume_loop(consumer: Consumer, handler: Handler, words: memoryview[int], at: int) -> None:
    """Run `for message in consumer.consume(500, ...)`."""
    done = 0
    while not words[SharedProgress.STOP]:
        for message in consumer.consume(INLINE_BATCH, 0.05):
            if message.error() is not None:
                continue
            handler(message.key(), message.value())
            done += 1
        words[at] = done


def consume_loop_counting_each(
    consumer: Consumer, handler: Handler, words: memoryview[int], at: int
) -> None:
    """Run the same for handlers beside which one more store does not show."""
    while not words[SharedProgress.STOP]:
        for message in consumer.consume(INLINE_BATCH, 0.05):
            if words[SharedProgress.STOP]:
                break
            if message.error() is None:
                handler(message.key(), message.value())
                words[at] += 1


def bare_loop(handler: Handler, words: memoryview[int], at: int) -> None:
    """Call the handler and nothing else, without end: what the machine gives just now."""
    while not words[SharedProgress.STOP]:
        handler(b"key-00000", b"")
        words[at] += 1


class Pooled(NamedTuple):
    """A pool and how many messages it is given at a time."""

    pool: Pool
    batch: int


def pool_loop(
    consumer: Consumer, handler: Handler, words: memoryview[int], at: int, pooled: Pooled
) -> None:
    """Run a `consume` and a `Pool.starmap` by turns: a batch begins when the last one is done."""
    done = 0
    while not words[SharedProgress.STOP]:
        batch = consumer.consume(pooled.batch, 0.05)
        pairs = [(m.key(), m.value()) for m in batch if m.error() is None]
        if pairs:
            pooled.pool.starmap(handler, pairs)
            done += len(pairs)
            words[at] = done


LOOPS = {
    ("poll", "noop"): poll_loop,
    ("poll", "work"): poll_loop_counting_each,
    ("consume", "noop"): consume_loop,
    ("consume", "work"): consume_loop_counting_each,
}


def wait_for_go(progress: SharedProgress, at: int) -> None:
    """Say that this process is ready, wait until all are."""
    progress.words[at + 1] = 1
    while not progress.words[SharedProgress.GO] and not progress.words[SharedProgress.STOP]:
        time.sleep(0.002)


def new_consumer(brokers: str, group: str) -> Consumer:
    """Create the client."""
    return Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": 1000,
            "fetch.queue.backoff.ms": 2,
        }
    )


def run_process(options: argparse.Namespace) -> None:
    """Run one group member until told to stop."""
    name = options.handler
    handler: Handler = getattr(importlib.import_module("perf.handlers"), name)
    progress = SharedProgress(options.fd)
    words, at = progress.words, SharedProgress.word_of(options.index)
    if options.kind == "bare":
        wait_for_go(progress, at)
        bare_loop(handler, words, at)
        return
    pool = None
    if options.kind == "pool":
        # Before the client exists: librdkafka does not survive a fork.
        pool = multiprocessing.Pool(options.workers, die_with_parent, (os.getpid(),))
    consumer = new_consumer(options.brokers, options.group)
    try:
        wait_for_go(progress, at)
        consumer.subscribe([options.topic])
        if pool is not None:
            pool_loop(consumer, handler, words, at, Pooled(pool, options.batch))
        else:
            LOOPS[options.kind, name](consumer, handler, words, at)
    finally:
        consumer.close()
        if pool is not None:
            pool.terminate()
            pool.join()


def run_members(options: argparse.Namespace) -> None:
    """Run as many processes as the group shall have members, and wait for them."""
    command = [*tied_command(), sys.executable, "-m", "perf.lib.rivals", *sys.argv[1:]]
    members = [
        subprocess.Popen([*command, "--members", "1", "--index", str(index)], pass_fds=[options.fd])
        for index in range(options.members)
    ]
    sys.exit(max(member.wait() for member in members))


def main() -> None:
    """Run one process or several."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("bare", "poll", "consume", "pool"))
    parser.add_argument("handler")
    for name in ("brokers", "group", "topic"):
        parser.add_argument(f"--{name}", required=True)
    for name, usual in (("fd", -1), ("members", 1), ("workers", 1), ("batch", 2000), ("index", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    options = parser.parse_args()
    if options.members == 1:
        run_process(options)
    else:
        run_members(options)


if __name__ == "__main__":
    main()
