"""The command line of `perf/pusher`."""

import argparse
import dataclasses
import random
import sys
import tempfile
from pathlib import Path

from kafka_cluster import missing_tools

from perf.lib import report
from perf.lib.broker import Broker
from perf.lib.command import (
    add_competitors,
    exit_code,
    guarded,
    measure_rows,
    neighbours,
    parser,
    positive,
    say,
)
from perf.lib.load import VALUES, json_like
from perf.lib.pusher_rows import QUICK, ROWS, Setting, Sizes
from perf.lib.pushers import PUSHERS, PushJob, build_peer, missing

#: A topic that was removed is gone from the disk after so long: every run writes one.
DELETE_DELAY = {"log.segment.delete.delay.ms": "1000", "log.retention.check.interval.ms": "5000"}


def main() -> int:
    """Measure and print; return 0 if every target was reached, 1 if not, 2 for wrong arguments."""
    options = _arguments()
    wanted = options.pushers if {"library", "command"} & set(options.rows) else ()
    lacking = missing(wanted)
    if (kafka := missing_tools()) is not None:
        lacking.append(f"real Kafka: {kafka}")
    if lacking:
        print(*(f"perf/pusher: {line}" for line in lacking), sep="\n", file=sys.stderr)
        return 2
    return guarded("perf/pusher", lambda: _measured(options))


def _measured(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="kqmp-perf-") as scratch:
        return _run(options, Path(scratch))


def _run(options: argparse.Namespace, scratch: Path) -> int:
    sizes = QUICK if options.quick else Sizes()
    changes = {"rounds": options.rounds, "messages": options.messages}
    sizes = dataclasses.replace(sizes, **{k: v for k, v in changes.items() if v})
    file = scratch / "lines"
    _write(file, sizes.messages)
    needs_peer = "library" in options.rows and {"kq", "kq-best"} & set(options.pushers)
    peer = build_peer(scratch) if needs_peer else None
    busy = neighbours()
    with Broker(DELETE_DELAY) as broker:
        setting = Setting(PushJob(broker, file, sizes.messages, peer), sizes, say, options.pushers)
        results, failures = measure_rows(ROWS, options.rows, setting)
    lines = ["pushers:", *(f"  {name:<10}{text}" for name, text in PUSHERS.items())]
    for name, result in results.items():
        lines += report.series_lines(name, result)
    print(*lines, *report.table_lines(results, failures), sep="\n")
    settings = {
        "quick": options.quick,
        "neighbours": round(busy, 3),
        "sizes": dataclasses.asdict(sizes),
    }
    print(report.json_line(results, failures, settings))
    return exit_code(results, failures)


def _write(file: Path, count: int) -> None:
    """Write `count` lines of 100 bytes, the values of perf/engine."""
    rng = random.Random(20_261_101)
    values = [json_like(rng) + b"\n" for _ in range(min(VALUES, count))]
    with file.open("wb") as out:
        for begin in range(0, count, VALUES):
            out.writelines(rng.choices(values, k=min(VALUES, count - begin)))


def _arguments() -> argparse.Namespace:
    made = parser("perf/pusher", "Measure kqmp's Pusher and kqmp push", ROWS)
    add_competitors(made, "--pushers", PUSHERS)
    made.add_argument("--messages", type=positive, help="of a run (default 1,000,000)")
    return made.parse_args()
