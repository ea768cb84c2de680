"""Hundreds of respawns leave the coordinator and the fetcher as they were.

Method: kill all four processors at once, as soon as each has handled something, over and over.
Descriptors, threads and memory maps of the coordinator and the fetcher are counted after the first
rounds and after the last. Nothing is lost and at most one message a kill is repeated.
"""

import os
from pathlib import Path

import psutil
import pytest

from tests.kafka.conftest import SceneFactory
from tests.support.ledger import START
from tests.support.scene import SLOW, Killer

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PROCESSORS = 4
TWO_MS = SLOW.replace("0.02", "0.002")


def held_by(process: psutil.Process) -> dict[str, int]:
    """Return what a process holds that a respawn could leave open."""
    place = Path("/proc") / str(process.pid)
    return {
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "memfd maps": (place / "maps").read_text().count("memfd:kqmp"),
        "children": len(process.children()),
    }


@pytest.mark.parametrize(
    "rounds", [10, pytest.param(75, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
def test_respawns_leave_no_descriptor_thread_or_map(scene: SceneFactory, rounds: int) -> None:
    field = scene(partitions=4)
    engine = field.engine(TWO_MS, {"Processors": PROCESSORS})
    field.wait_settled(engine, 1)
    field.feed.keep_ahead(field.handled, 4000)
    field.watch_commits()
    killer = Killer(field, seed=os.getpid())
    fetcher = engine.fetchers()[0]
    before: dict[psutil.Process, dict[str, int]] = {}
    for number in range(rounds):
        begun: set[int] = set()

        def all_have_begun(begun: set[int] = begun) -> bool:
            new = field.tail.poll()
            begun.update(record.pid for record in new if record.kind == START)
            return {p.pid for p in engine.processors()} <= begun and len(begun) >= PROCESSORS

        engine.wait_until(all_have_begun, f"all processors at work in round {number}")
        if number == 2:
            before = {process: held_by(process) for process in (engine.coordinator, fetcher)}
        for victim in engine.processors():
            killer.note("processor", victim)
            victim.kill()
        engine.wait_until(lambda: len(engine.processors()) == PROCESSORS, "all processors back")
    field.feed.finish()
    field.wait_all_handled(engine)
    engine.wait_until(
        lambda: before == {process: held_by(process) for process in before},
        f"as much open as before: {before}",
    )
    engine.stop()
    verdict = field.verdict()
    verdict.assert_sound(duplicates_at_most=rounds * PROCESSORS)
    killer.assert_bounded(verdict)
