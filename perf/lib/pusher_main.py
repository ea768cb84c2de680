"""The command line of `perf/pusher`."""

import argparse
import dataclasses
import random
import signal
import sys
import tempfile
from pathlib import Path

from kafka_cluster import KafkaError, missing_tools

from perf.lib import report
from perf.lib.broker import Broker
from perf.lib.load import VALUES, json_like
from perf.lib.main import names_of, positive, say
from perf.lib.processes import RunFailed, adopt_orphans
from perf.lib.pusher_rows import QUICK, ROWS, Setting, Sizes
from perf.lib.pushers import PUSHERS, PushJob, build_peer, missing
from perf.lib.rows import Result

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
    adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    try:
        with tempfile.TemporaryDirectory(prefix="kqmp-perf-") as scratch:
            return _run(options, Path(scratch))
    except KeyboardInterrupt:
        return 130
    except (KafkaError, RunFailed) as error:
        print(f"perf/pusher: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, scratch: Path) -> int:
    sizes = QUICK if options.quick else Sizes()
    changes = {"rounds": options.rounds, "messages": options.messages}
    sizes = dataclasses.replace(sizes, **{k: v for k, v in changes.items() if v})
    file = scratch / "lines"
    _write(file, sizes.messages)
    needs_peer = "library" in options.rows and {"kq", "kq-best"} & set(options.pushers)
    peer = build_peer(scratch) if needs_peer else None
    busy = report.neighbours()
    if busy > report.NEIGHBOUR_MAX:
        say(f"this machine is not quiet: others use {busy:.0%} of it; take no figure seriously")
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    with Broker(DELETE_DELAY) as broker:
        setting = Setting(PushJob(broker, file, sizes.messages, peer), sizes, say, options.pushers)
        for name in options.rows:
            say(f"== {name}: {(ROWS[name].__doc__ or '').splitlines()[0]}")
            try:
                results[name] = found = ROWS[name](setting)
            except RunFailed as error:
                failures[name] = str(error)
                say(f"FAILED: {error}")
                continue
            if found.series is not None:
                texts = found.series.failures.items()
                failures |= {f"{name}/{pusher}": text for pusher, text in texts}
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
    return int(bool(failures) or not all(c.is_ok for r in results.values() for c in r.checks))


def _write(file: Path, count: int) -> None:
    """Write `count` lines of 100 bytes, the values of perf/engine."""
    rng = random.Random(20_261_101)
    values = [json_like(rng) + b"\n" for _ in range(min(VALUES, count))]
    with file.open("wb") as out:
        for begin in range(0, count, VALUES):
            out.writelines(rng.choices(values, k=min(VALUES, count - begin)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="perf/pusher",
        description="Measure kqmp's Pusher and kqmp push on real Kafka; see perf/README.md.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, one round: does it work at all?"
    )
    parser.add_argument("--rounds", type=positive, help="interleaved rounds (default 5)")
    parser.add_argument(
        "--rows", type=names_of(ROWS), default=tuple(ROWS), help=f"some of {','.join(ROWS)}"
    )
    parser.add_argument(
        "--pushers",
        type=names_of(PUSHERS),
        default=tuple(PUSHERS),
        help=f"some of {','.join(PUSHERS)}; targets that need others are left out",
    )
    parser.add_argument("--messages", type=positive, help="of a run (default 1,000,000)")
    return parser.parse_args()
