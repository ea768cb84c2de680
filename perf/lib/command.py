"""What the command lines of perf have in common: flags, signals, progress, the run of the rows."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from kafka_cluster import KafkaError

from perf.lib import report
from perf.lib.processes import RunFailed, adopt_orphans
from perf.lib.rows import Result

_Setting = TypeVar("_Setting")

_started_s = time.monotonic()


def say(line: str) -> None:
    """Report progress, on stderr."""
    print(f"[{time.monotonic() - _started_s:7.1f} s] {line}", file=sys.stderr, flush=True)


def neighbours() -> float:
    """Return which part of the machine others use now; say so if it is too much."""
    busy = report.neighbours()
    if busy > report.NEIGHBOUR_MAX:
        say(f"this machine is not quiet: others use {busy:.0%} of it; take no figure seriously")
    return busy


def guarded(program: str, run: Callable[[], int]) -> int:
    """Run a measurement so that no process outlives it, whatever ends it; return the exit code."""
    adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    try:
        return run()
    except KeyboardInterrupt:
        return 130
    except (KafkaError, RunFailed) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1


def measure_rows(
    rows: Mapping[str, Callable[[_Setting], Result]], names: Collection[str], setting: _Setting
) -> tuple[dict[str, Result], dict[str, str]]:
    """Measure the rows named; return what they found, and why others have failed."""
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    for name in names:
        say(f"== {name}: {(rows[name].__doc__ or '').splitlines()[0]}")
        try:
            results[name] = found = rows[name](setting)
        except RunFailed as error:
            failures[name] = str(error)
            say(f"FAILED: {error}")
            continue
        if found.series is not None:
            texts = found.series.failures.items()
            failures |= {f"{name}/{engine}": text for engine, text in texts}
    return results, failures


def exit_code(results: Mapping[str, Result], failures: Mapping[str, str]) -> int:
    """Return 0 if every target was reached and nothing failed, else 1."""
    return int(bool(failures) or not all(c.is_ok for r in results.values() for c in r.checks))


def parser(program: str, description: str, rows: Collection[str]) -> argparse.ArgumentParser:
    """Return a parser of the flags that all commands of perf have."""
    made = argparse.ArgumentParser(
        prog=program, description=f"{description} on real Kafka; see perf/README.md."
    )
    made.add_argument(
        "--quick", action="store_true", help="small sizes, one round: does it work at all?"
    )
    made.add_argument("--rounds", type=positive, help="interleaved rounds (default 5)")
    made.add_argument(
        "--rows", type=names_of(rows), default=tuple(rows), help=f"some of {','.join(rows)}"
    )
    return made


def add_competitors(made: argparse.ArgumentParser, flag: str, known: Collection[str]) -> None:
    """Add the flag that names some of those who are compared."""
    made.add_argument(
        flag,
        type=names_of(known),
        default=tuple(known),
        help=f"some of {','.join(known)}; targets that need others are left out",
    )


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
