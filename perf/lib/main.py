"""The command line of `perf/engine`."""

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Collection

from kafka_cluster import KafkaError, missing_tools

from perf.lib import report
from perf.lib.broker import Broker
from perf.lib.engines import ENGINES
from perf.lib.processes import RunFailed, adopt_orphans
from perf.lib.rows import QUICK, ROWS, Result, Setting, Sizes


def main() -> int:
    """Measure and print; return 0 if every target was reached, 1 if not, 2 for wrong arguments."""
    options = _arguments()
    missing = missing_tools()
    if missing is not None:
        print(f"perf/engine needs real Kafka: {missing}", file=sys.stderr)
        return 2
    adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    try:
        return _run(options)
    except KeyboardInterrupt:
        return 130
    except KafkaError as error:
        print(f"perf/engine: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    busy = report.neighbours()
    if busy > report.NEIGHBOUR_MAX:
        say(f"this machine is not quiet: others use {busy:.0%} of it; take no figure seriously")
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    with Broker() as broker:
        kqmp_options = [f for item in options.set for f in ("--set", item)]
        kqmp_options += [f for item in options.X for f in ("-X", item)]
        setting = Setting(broker, _sizes(options), say, options.engines, tuple(kqmp_options))
        for name in options.rows:
            say(f"== {name}: {(ROWS[name].__doc__ or '').splitlines()[0]}")
            try:
                results[name] = found = ROWS[name](setting)
                if found.series is not None:
                    texts = found.series.failures.items()
                    failures |= {f"{name}/{engine}": text for engine, text in texts}
            except RunFailed as error:
                failures[name] = str(error)
                say(f"FAILED: {error}")
    lines = ["engines:", *report.engine_lines()]
    for name, result in results.items():
        lines += report.series_lines(name, result)
    print(*lines, *report.table_lines(results, failures), sep="\n")
    sizes = dataclasses.asdict(setting.sizes)
    settings = {"quick": options.quick, "neighbours": round(busy, 3), "sizes": sizes}
    print(report.json_line(results, failures, settings))
    return int(bool(failures) or not all(c.is_ok for r in results.values() for c in r.checks))


_started_s = time.monotonic()


def say(line: str) -> None:
    """Report progress, on stderr."""
    print(f"[{time.monotonic() - _started_s:7.1f} s] {line}", file=sys.stderr, flush=True)


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = dataclasses.replace(sizes, rounds=options.rounds)
    if options.messages:
        sizes = dataclasses.replace(sizes, noop=options.messages)
    return sizes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="perf/engine",
        description="Measure kqmp beside plain consumers on real Kafka; see perf/README.md.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, one round: does it work at all?"
    )
    parser.add_argument("--rounds", type=positive, help="interleaved rounds (default 5)")
    parser.add_argument(
        "--rows", type=names_of(ROWS), default=tuple(ROWS), help=f"some of {','.join(ROWS)}"
    )
    parser.add_argument(
        "--engines",
        type=names_of(ENGINES),
        default=tuple(ENGINES),
        help=f"some of {','.join(ENGINES)}; targets that need others are left out",
    )
    parser.add_argument("--messages", type=positive, help="of a no-op run (default 4,000,000)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="passed to kqmp run"
    )
    parser.add_argument(
        "-X", action="append", default=[], metavar="PROP=VALUE", help="passed to kqmp run"
    )
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text.replace(",", "").replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def names_of(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return names

    return parse
