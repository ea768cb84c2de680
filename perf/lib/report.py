"""The result as a table for people and as one JSON line for programs."""

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import confluent_kafka

from perf.lib.engines import CORES, ENGINES
from perf.lib.rows import WORK_S, Result

#: Rows whose handlers take `WORK_S` of CPU.
IDEAL_ROWS = ("work", "one-partition")
#: More than this part of the machine busy before anything runs makes figures doubtful.
NEIGHBOUR_MAX = 0.05


def neighbours(seconds: float = 2.0) -> float:
    """Return which part of the machine others use now (steal included)."""
    before = _cpu_ticks()
    time.sleep(seconds)
    after = _cpu_ticks()
    passed = [b - a for a, b in zip(before, after, strict=True)]
    idle = passed[3] + passed[4]
    return 1 - idle / max(1, sum(passed))


def _cpu_ticks() -> list[int]:
    # user nice system idle iowait irq softirq steal
    line = Path("/proc/stat").read_text().splitlines()[0]
    return [int(field) for field in line.split()[1:9]]


def series_lines(name: str, result: Result) -> list[str]:
    """Return the engines' figures of a row."""
    if result.series is None:
        return []
    rounds = max(map(len, result.series.runs.values()), default=0)
    lines = ["", f"{name}: medians of {rounds} (least to most)"]
    for engine, runs in result.series.runs.items():
        rates = [run.messages_s for run in runs]
        rate = statistics.median(rates)
        cpu_us = statistics.median(run.cpu_us for run in runs)
        text = f"  {engine:<10}{rate:>12,.0f}/s  ({min(rates):,.0f} to {max(rates):,.0f})"
        text += f"  {cpu_us:,.2f} us CPU a message" if cpu_us else ""
        if name in IDEAL_ROWS:
            text += f"  {rate * WORK_S / CORES:.3f} of ideal"
        lines.append(text)
    return lines


def table_lines(results: dict[str, Result], failures: dict[str, str]) -> list[str]:
    """Return the table of targets."""
    lines = ["", f"{'row':<14}{'what':<52}{'target':>12}{'measured':>12}  ok"]
    for result in results.values():
        for c in result.checks:
            target = f"{c.sense} {c.target:g} {c.unit}".rstrip()
            measured = f"{c.measured:.3g} {c.unit}".rstrip()
            verdict = "ok" if c.is_ok else "NO"
            lines.append(f"{c.row:<14}{c.what:<52}{target:>12}{measured:>12}  {verdict}")
    lines += [f"{row:<20} FAILED: {text.splitlines()[0]}" for row, text in failures.items()]
    return lines


def json_line(
    results: dict[str, Result], failures: dict[str, str], settings: dict[str, Any]
) -> str:
    """Return everything as one line."""
    rows: dict[str, Any] = {}
    for name, result in results.items():
        row: dict[str, Any] = dict(result.extra)
        row["checks"] = [
            {
                "what": c.what,
                "target": f"{c.sense} {c.target:g}",
                "measured": round(c.measured, 4),
                "ok": c.is_ok,
            }
            for c in result.checks
        ]
        if result.series is not None:
            row["engines"] = {
                engine: {
                    "messages_s": [round(run.messages_s) for run in runs],
                    "cpu_us": [round(run.cpu_us, 3) for run in runs],
                    "cpu_us_by_role": _medians([run.cpu_us_by_role for run in runs]),
                }
                for engine, runs in result.series.runs.items()
            }
        rows[name] = row
    return json.dumps({"machine": machine(), **settings, "rows": rows, "failures": failures})


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {
        role: round(statistics.median(run.get(role, 0.0) for run in runs), 3)
        for role in (runs[0] if runs else {})
    }


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "cores": CORES,
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "confluent_kafka": confluent_kafka.__version__,
        "librdkafka": confluent_kafka.libversion()[0],
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def engine_lines() -> list[str]:
    """Return the legend of the engines' names."""
    return [f"  {name:<10}{text}" for name, text in ENGINES.items()]
