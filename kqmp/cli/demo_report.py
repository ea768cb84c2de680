"""The table at the end of `kqmp demo`, and whether what it shows is what kqmp promises. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from kqmp.cli.demo_ledger import Verdict

_NAME_WIDTH: Final = 20
_COLUMN_WIDTH: Final = 18


@dataclass
class Outcome:
    """What came out of a demo."""

    #: Messages produced, and how many of them the plain loop was given.
    messages: int
    plain_messages: int
    processors: int
    plain: Verdict
    engine: Verdict
    #: For each kill, seconds until the successor began its first message (0: none did).
    recoveries_s: list[float] = field(default_factory=list)
    #: Positions that the engine's group has committed, added up over all partitions.
    committed: int = 0
    #: What `kqmp run` exited with after its SIGTERM.
    exit_code: int = 0
    #: Whether the mock cluster still held every message at the end.
    retained: bool = True


def problems(outcome: Outcome) -> list[str]:
    """Return what was not as promised; nothing if all was."""
    if not outcome.retained:
        return [
            "the mock cluster has dropped messages by itself (it keeps 5 MiB of a partition), so"
            " this run says nothing about losses: use fewer --messages"
        ]
    engine, kills = outcome.engine, len(outcome.recoveries_s)
    found = [
        (engine.lost > 0, f"{engine.lost:,} messages were lost"),
        (engine.disordered > 0, f"{engine.disordered:,} messages were begun out of order"),
        (engine.invented > 0, f"{engine.invented:,} messages arrived altered"),
        (
            engine.repeated > kills,
            f"{engine.repeated:,} messages were repeated: {kills} kills may repeat one each",
        ),
        (
            outcome.exit_code != 0,
            f"the engine ended with exit code {outcome.exit_code} instead of 0",
        ),
        (
            outcome.exit_code == 0 and not engine.lost and outcome.committed != outcome.messages,
            f"{outcome.committed:,} of {outcome.messages:,} messages were committed by the stop",
        ),
        (
            outcome.plain.distinct != outcome.plain_messages or outcome.plain.invented > 0,
            "the plain loop did not get its messages as they were produced",
        ),
    ]
    return [text for is_so, text in found if is_so]


def table(outcome: Outcome) -> list[str]:
    """Return the lines of the table."""
    plain, engine = outcome.plain, outcome.engine
    unknown = "not known"
    speed_up = engine.per_second / plain.per_second if plain.per_second else 0.0
    rows = [
        ("", "plain poll() loop", f"kqmp, {_counted(outcome.processors, 'processor')}"),
        ("messages", f"{plain.distinct:,}", f"{engine.distinct:,}"),
        ("seconds", f"{plain.elapsed_ns / 1e9:.1f}", f"{engine.elapsed_ns / 1e9:.1f}"),
        ("messages a second", f"{plain.per_second:,.0f}", f"{engine.per_second:,.0f}"),
        ("speed-up", "1.00", f"{speed_up:.2f}"),
        ("processors killed", "-", f"{len(outcome.recoveries_s)}"),
        ("  back at work after", "-", _recovery(outcome.recoveries_s)),
        ("repeated", "-", f"{engine.repeated:,}"),
        ("lost", "-", f"{engine.lost:,}" if outcome.retained else unknown),
        ("order of each key", "-", _order(engine.disordered)),
    ]
    return [
        f"  {name:<{_NAME_WIDTH}}{left:>{_COLUMN_WIDTH}}{right:>{_COLUMN_WIDTH + 4}}"
        for name, left, right in rows
    ]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _recovery(recoveries_s: Iterable[float]) -> str:
    """Return the slowest one; a kill near the end may need no successor."""
    measured = [seconds for seconds in recoveries_s if seconds > 0]
    return f"{max(measured):.2f} s" if measured else "-"


def _order(disordered: int) -> str:
    return "kept" if not disordered else f"broken {disordered:,} times"
