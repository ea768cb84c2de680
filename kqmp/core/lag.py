"""How far a group is behind, how fast it goes, and when it will have caught up. Pure.

Worked out from two looks at the same group; what is asked of the brokers stands in
`kqmp.kafka.groups`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple


class Owner(NamedTuple):
    """The member that a partition is assigned to."""

    member_id: str
    client_id: str
    #: "" for a dynamic member.
    instance_id: str
    host: str


class Seen(NamedTuple):
    """One partition at one moment.

    Attributes:
        committed: the group's position; None where it has none.
        low: first offset of the log; None where no leader answers.
        high: the next offset that will be written; None likewise.
        owner: who reads it now; None if nobody does.
    """

    committed: int | None
    low: int | None
    high: int | None
    owner: Owner | None


class Look(NamedTuple):
    """A group at one moment of the monotonic clock.

    Attributes:
        at_s: the moment.
        state: as Kafka names it, in lower case: "stable", "empty", "preparing_rebalancing", ...
        members: how many are in the group.
        parts: by topic and partition, in order.
    """

    at_s: float
    state: str
    members: int
    parts: Mapping[tuple[str, int], Seen]


class Lag(NamedTuple):
    """How far behind, of one partition or of all together.

    Attributes:
        lag: messages that wait to be committed, counted by offsets; None if that is not known.
        committed_per_s: how fast the committed position rises; None without an earlier look.
            Negative after a reset backward.
        produced_per_s: how fast the log grows.
        drain_s: when `lag` will be 0 if both rates stay; infinite if never.
    """

    lag: int | None
    committed_per_s: float | None
    produced_per_s: float | None
    drain_s: float | None


def partition_lag(before: Seen | None, after: Seen, seconds: float) -> Lag:
    """Work out one partition.

    Args:
        before: the earlier look; None without one.
        after: the later look.
        seconds: from one to the other, > 0.
    """
    lag = None
    if after.committed is not None and after.high is not None and after.low is not None:
        # What retention has deleted will never be read.
        lag = max(0, after.high - max(after.committed, after.low))
    if before is None:
        return Lag(lag, None, None, None)
    committed = _rate(before.committed, after.committed, seconds)
    produced = _rate(before.high, after.high, seconds)
    return Lag(lag, committed, produced, _drain_s(lag, committed, produced))


def total_lag(lags: list[Lag]) -> Lag:
    """Add partitions up; what is not known of one counts as nothing."""
    lag = sum(one.lag or 0 for one in lags)
    if all(one.produced_per_s is None for one in lags):
        return Lag(lag, None, None, None)
    committed = sum(one.committed_per_s or 0.0 for one in lags)
    produced = sum(one.produced_per_s or 0.0 for one in lags if one.lag is not None)
    return Lag(lag, committed, produced, _drain_s(lag, committed, produced))


def lags_between(before: Look | None, after: Look) -> dict[tuple[str, int], Lag]:
    """Work out all partitions of the later look."""
    seconds = 1.0 if before is None else max(after.at_s - before.at_s, 1e-6)
    earlier = {} if before is None else before.parts
    return {
        part: partition_lag(earlier.get(part), seen, seconds) for part, seen in after.parts.items()
    }


def _rate(before: int | None, after: int | None, seconds: float) -> float | None:
    return None if before is None or after is None else (after - before) / seconds


def _drain_s(lag: int | None, committed: float | None, produced: float | None) -> float | None:
    if lag is None or committed is None or produced is None:
        return None
    if lag == 0:
        return 0.0
    return lag / (committed - produced) if committed > produced else math.inf
