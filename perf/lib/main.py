"""The command line of `perf/engine`."""

import argparse
import dataclasses
import sys

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
from perf.lib.engines import ENGINES
from perf.lib.rows import QUICK, ROWS, Setting, Sizes


def main() -> int:
    """Measure and print; return 0 if every target was reached, 1 if not, 2 for wrong arguments."""
    options = _arguments()
    missing = missing_tools()
    if missing is not None:
        print(f"perf/engine needs real Kafka: {missing}", file=sys.stderr)
        return 2
    return guarded("perf/engine", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    busy = neighbours()
    with Broker() as broker:
        kqmp_options = [f for item in options.set for f in ("--set", item)]
        kqmp_options += [f for item in options.X for f in ("-X", item)]
        setting = Setting(broker, _sizes(options), say, options.engines, tuple(kqmp_options))
        results, failures = measure_rows(ROWS, options.rows, setting)
    lines = ["engines:", *report.engine_lines()]
    for name, result in results.items():
        lines += report.series_lines(name, result)
    print(*lines, *report.table_lines(results, failures), sep="\n")
    sizes = dataclasses.asdict(setting.sizes)
    settings = {"quick": options.quick, "neighbours": round(busy, 3), "sizes": sizes}
    print(report.json_line(results, failures, settings))
    return exit_code(results, failures)


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = dataclasses.replace(sizes, rounds=options.rounds)
    if options.messages:
        sizes = dataclasses.replace(sizes, noop=options.messages)
    return sizes


def _arguments() -> argparse.Namespace:
    made = parser("perf/engine", "Measure kqmp beside plain consumers", ROWS)
    add_competitors(made, "--engines", ENGINES)
    made.add_argument("--messages", type=positive, help="of a no-op run (default 4,000,000)")
    made.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="passed to kqmp run"
    )
    made.add_argument(
        "-X", action="append", default=[], metavar="PROP=VALUE", help="passed to kqmp run"
    )
    return made.parse_args()
