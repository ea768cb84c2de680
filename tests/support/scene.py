"""A scenario: one topic and group, a feed, one ledger, and any number of engines on it."""

import random
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka.admin import AdminClient

from tests.support.engine import Engine, wait_until
from tests.support.feed import Feed, uniform_keys
from tests.support.group import watched
from tests.support.judge import (
    FINAL,
    Kill,
    Verdict,
    commit_problems,
    judge,
    unbounded_repeats,
)
from tests.support.ledger import RECORD, Tail
from tests.support.watch import CommitWatch, Observer

#: The documented bound of what lies between a partition's committed and its fetched position.
SPAN_MAX = 200_000

#: Pytest keeps the directories of the last sessions: larger ledgers are not left there.
LEDGER_KEPT_BYTES = 8 << 20

#: Dead members leave the group after this long; the tests' broker allows it.
SESSION_MS = 2000

#: A handler that only writes the ledger.
FAST = """
from tests.support.ledger import Ledger
ledger = Ledger()

def consume(message):
    ledger.start(message)
    ledger.end(message)
"""

#: A handler that takes 20 ms, without using a core.
SLOW = """
import time
from tests.support.ledger import Ledger
ledger = Ledger()

def consume(message):
    ledger.start(message)
    time.sleep(0.02)
    ledger.end(message)
"""

#: A handler that stands still until the file $GATE exists.
GATED = """
import os, time
from tests.support.ledger import Ledger
ledger = Ledger()

def consume(message):
    with ledger.handling(message):
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.05)
"""


class Scene:
    """What a test on real Kafka works with; made by the fixture `scene`, which ends all of it."""

    def __init__(
        self,
        cluster: Any,
        admin: AdminClient,
        topic: str,
        group: str,
        *,
        directory: Path,
        partitions: int,
        feed: Feed,
    ) -> None:
        self.cluster = cluster
        self.admin = admin
        self.topic = topic
        self.group = group
        self.partitions = partitions
        self.feed = feed
        self._directory = directory
        self.ledger = directory / "ledger"
        self.tail = Tail(self.ledger)
        self.engines: list[Engine] = []
        self._observer = Observer(cluster.bootstrap, group, topic, partitions)
        self._watch: CommitWatch | None = None

    def engine(
        self, handler: str, conf: Mapping[str, Any] | None = None, **environment: str
    ) -> Engine:
        """Start an engine; `conf` is laid over the defaults of these tests."""
        given = dict(conf or {})
        section: dict[str, Any] = {
            "Name": "mq",
            "Brokers": [self.cluster.bootstrap],
            "Group": self.group,
            "Topic": self.topic,
            "Offset": "first",
            "Processors": 2,
            # Blind kills blame the message at hand; three in a row must not set one aside.
            "MaxAttempts": 20,
            "Kafka": {"session.timeout.ms": SESSION_MS} | dict(given.pop("Kafka", {})),
        }
        place = self._directory / f"engine-{len(self.engines)}"
        engine = Engine(place, handler, section | given, self.ledger, environment)
        self.engines.append(engine)
        return engine

    def watch_commits(self) -> None:
        """Observe the committed positions from outside until the verdict."""
        self._watch = CommitWatch(self._observer)

    def wait_settled(self, engine: Engine, members: int) -> dict[str, set[int]]:
        """Wait until the group has so many members and they share all partitions.

        A rebalance may repeat what was finished out of order: a test that counts repeats lets the
        group settle before it sends anything.

        Returns:
            Member id -> its partitions.
        """
        found: dict[str, set[int]] = {}
        with watched(self.cluster.bootstrap, self.group) as group:

            def settled() -> bool:
                found.clear()
                found.update(group.next())
                shared = set().union(*found.values())
                return len(found) == members and all(found.values()) and shared == everything

            everything = set(range(self.partitions))
            engine.wait_until(settled, f"{members} members that share {self.partitions} partitions")
        # They know it too: with nothing to read, each has committed the start of its partitions.
        engine.wait_until(lambda: len(self.committed()) == self.partitions, "start positions")
        return found

    def handled(self) -> int:
        """About how many messages were handled: half the records."""
        return self.tail.written // 2

    def wait_handled(self, count: int, engine: Engine | None = None) -> None:
        """Wait until about `count` messages were handled."""
        waiter = engine.wait_until if engine else wait_until
        waiter(lambda: self.handled() >= count, f"{count} messages handled")

    def wait_all_handled(self, engine: Engine, but: Collection[int] = ()) -> None:
        """Wait until the ledger has an end for all that was acknowledged, less `but`."""
        wanted = {message.uid for message in self.feed.acked}.difference(but)

        def all_ended() -> bool:
            self.tail.poll()
            return len(self.tail.ended) >= len(wanted) and wanted <= self.tail.ended

        engine.wait_until(all_ended, f"all {len(wanted)} messages handled", timeout_s=80)

    def committed(self) -> dict[int, int]:
        """Return partition -> committed position."""
        return self._observer.committed()

    def ends(self) -> dict[int, int]:
        """Return partition -> one past the last acknowledged offset."""
        ends: dict[int, int] = {}
        for message in self.feed.acked:
            ends[message.partition] = max(ends.get(message.partition, 0), message.offset + 1)
        return ends

    def verdict(
        self,
        *,
        ordering: str = "key",
        final: Collection[int] = FINAL,
        excused: Collection[int] = (),
    ) -> Verdict:
        """Judge the ledger so far, and the commits if they were watched."""
        self.tail.poll()
        verdict = judge(
            self.feed.acked, self.tail.records, ordering=ordering, final=final, excused=excused
        )
        if self._watch is not None:
            self._watch.stop()
            seen = self._watch.observations
            assert seen, "nobody saw a committed position"
            problems = commit_problems(
                seen, self.feed.acked, self.tail.records, final=final, excused=excused
            )
            assert not problems, problems[:5]
        return verdict

    def close(self) -> None:
        """End everything."""
        for engine in self.engines:
            engine.close()
        if self._watch is not None:
            self._watch.stop()
        self._observer.close()
        self.feed.abandon()
        if self.tail.written * RECORD.size > LEDGER_KEPT_BYTES:
            self.ledger.unlink()


class Killer:
    """Kills children of engines with SIGKILL at random moments; keeps the list."""

    def __init__(self, field: Scene, seed: int) -> None:
        print(f"seed {seed}")
        self.chance = random.Random(seed)
        self.kills: list[Kill] = []
        self._field = field

    def note(self, role: str, victim: psutil.Process | None = None) -> None:
        """Note a cause of repeats just before it happens: a kill, a rebalance, a broker's end."""
        positions = self._field.committed()
        pid = victim.pid if victim else 0
        self.kills.append(Kill(time.monotonic_ns(), role, pid, positions))

    def child(self, engine: Engine, role: str, least_s: float = 0.1, most_s: float = 0.5) -> None:
        """Let load run for a moment, kill a random child of a role, wait for its successor."""
        find = {"processor": engine.processors, "fetcher": engine.fetchers}[role]
        time.sleep(self.chance.uniform(least_s, most_s))
        engine.wait_until(find, f"a {role} to kill")
        alive = find()
        victim = self.chance.choice(alive)
        self.note(role, victim)
        victim.kill()
        engine.wait_until(
            lambda: victim not in (now := find()) and len(now) >= len(alive),
            f"a successor of {role} {victim.pid}",
        )

    def coordinator(
        self, engine: Engine, least_s: float = 0.1, most_s: float = 0.5
    ) -> set[psutil.Process]:
        """Let load run for a moment, kill the coordinator; return who must end with it."""
        time.sleep(self.chance.uniform(least_s, most_s))
        self.note("coordinator", engine.coordinator)
        return engine.kill()

    def pids(self, role: str) -> set[int]:
        """Return the killed processes of a role."""
        return {kill.pid for kill in self.kills if kill.role == role}

    def assert_bounded(self, verdict: Verdict) -> Counter[str]:
        """Fail if anything was repeated beyond the documented bound of each kill.

        Returns:
            How many repeats the kills of each role account for.
        """
        records = self._field.tail.records
        problems, counts = unbounded_repeats(self._field.feed.acked, records, self.kills)
        assert not problems, problems[:5]
        kills = Counter(kill.role for kill in self.kills)
        print(f"{verdict}; kills {dict(kills)}; duplicates by cause {dict(counts)}")
        assert counts["processor"] <= kills["processor"]
        losses = len(self.kills) - kills["processor"]
        assert verdict.duplicates <= kills["processor"] + losses * self._field.partitions * SPAN_MAX
        return counts


def new_feed(cluster: Any, topic: str, partitions: int, **options: Any) -> Feed:
    """Return a feed with 200 equally likely keys, unless told otherwise."""
    keys = options.pop("keys", None) or uniform_keys(200)
    return Feed(cluster.bootstrap, topic, partitions, keys, **options)
