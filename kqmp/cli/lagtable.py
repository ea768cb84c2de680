"""What `kqmp lag` shows of two looks at a group. Pure."""

import math
from typing import NamedTuple

from kqmp.cli.table import aligned, tabbed
from kqmp.core.lag import Lag, Look, Owner, lags_between, total_lag
from kqmp.kafka.findings import counted
from kqmp.obs.stats import duration_text

_HEADER = (
    "TOPIC",
    "PARTITION",
    "COMMITTED",
    "END",
    "LAG",
    "COMMITTED/S",
    "PRODUCED/S",
    "DRAINS IN",
    "MEMBER",
)


class Report(NamedTuple):
    """What is shown at once.

    Attributes:
        group: its name.
        before: the earlier look; None without one, and then there are no rates.
        after: the later look.
    """

    group: str
    before: Look | None
    after: Look


def described(report: Report) -> list[str]:
    """Describe it for people."""
    lags = lags_between(report.before, report.after)
    rows = [
        (
            *part,
            seen.committed,
            seen.high,
            lags[part].lag,
            lags[part].committed_per_s,
            lags[part].produced_per_s,
            drain_text(lags[part]),
            owner_text(seen.owner),
        )
        for part, seen in report.after.parts.items()
    ]
    return [_headline(report, total_lag(list(lags.values()))), "", *aligned(_HEADER, rows)]


def _headline(report: Report, total: Lag) -> str:
    members = counted(report.after.members, "member")
    state = report.after.state.replace("_", " ")
    parts = [f"group {report.group}: {state}, {members}", f"lag {total.lag or 0:,}"]
    # Their messages are in no lag: nobody knows where the group will begin.
    new = sum(seen.committed is None for seen in report.after.parts.values())
    parts += [f"{counted(new, 'partition')} without a committed position"] if new else []
    if total.committed_per_s is not None and total.produced_per_s is not None:
        parts.append(f"committed {total.committed_per_s:,.1f}/s")
        parts.append(f"produced {total.produced_per_s:,.1f}/s")
        if total.lag:
            drain = drain_text(total)
            parts.append("not shrinking" if drain == "never" else f"drains in {drain}")
    return ", ".join(parts)


def drain_text(lag: Lag) -> str | None:
    """Say when a lag will be gone; None if that is not known."""
    if lag.drain_s is None:
        return None
    return "never" if math.isinf(lag.drain_s) else duration_text(lag.drain_s)


def owner_text(owner: Owner | None) -> str | None:
    """Name a member so that people tell it from the others; None if there is none."""
    if owner is None:
        return None
    # A dynamic member's id is its client's, a dash and a UUID, whose start suffices.
    unique = owner.member_id.removeprefix(f"{owner.client_id}-").partition("-")[0]
    name = owner.instance_id or f"{owner.client_id}-{unique}"
    return f"{name}@{owner.host}"


def told(report: Report) -> list[str]:
    """Write a line a partition, for programs."""
    lags = lags_between(report.before, report.after)
    return tabbed(
        [
            (
                *part,
                seen.committed,
                seen.high,
                lags[part].lag,
                lags[part].committed_per_s,
                lags[part].produced_per_s,
                "never" if lags[part].drain_s == math.inf else lags[part].drain_s,
                seen.owner and seen.owner.member_id,
            )
            for part, seen in report.after.parts.items()
        ]
    )


def jsonable(report: Report, now_ms: int) -> dict[str, object]:
    """Return it in JSON's types; a lag that never drains has null, as has what is not known.

    Args:
        report: what to show.
        now_ms: the time now, in ms since the epoch.
    """
    lags = lags_between(report.before, report.after)
    total = total_lag(list(lags.values()))
    seconds = None if report.before is None else report.after.at_s - report.before.at_s
    return {
        "group": report.group,
        "state": report.after.state,
        "members": report.after.members,
        "time_ms": now_ms,
        "over_s": None if seconds is None else round(seconds, 3),
        **_numbers(total),
        "partitions": [
            {
                "topic": part[0],
                "partition": part[1],
                "committed": seen.committed,
                "low": seen.low,
                "end": seen.high,
                **_numbers(lags[part]),
                "member": None if seen.owner is None else seen.owner._asdict(),
            }
            for part, seen in report.after.parts.items()
        ],
    }


def _numbers(lag: Lag) -> dict[str, object]:
    drain_s = None if lag.drain_s is None or math.isinf(lag.drain_s) else round(lag.drain_s, 3)
    return {
        "lag": lag.lag,
        "committed_per_s": None if lag.committed_per_s is None else round(lag.committed_per_s, 3),
        "produced_per_s": None if lag.produced_per_s is None else round(lag.produced_per_s, 3),
        "drain_s": drain_s,
    }
