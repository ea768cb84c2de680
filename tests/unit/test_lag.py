"""How far a group is behind, and how `kqmp lag` shows it."""

import json
import math

import pytest
from click.testing import CliRunner

from kqmp.cli.commands import cli
from kqmp.cli.lagtable import Report, described, jsonable, owner_text, told
from kqmp.core.lag import Lag, Look, Owner, Seen, lags_between, partition_lag, total_lag

OWNER = Owner("mq-12345678-1234-1234-1234-123456789012", "mq", "", "10.0.0.7")


def seen(committed: int | None, high: int | None, low: int | None = 0) -> Seen:
    return Seen(committed, low, high, None)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, seen(60, 100), Lag(40, None, None, None)),
        (seen(20, 80), seen(60, 100), Lag(40, 20.0, 10.0, 4.0)),
        (seen(60, 80), seen(60, 100), Lag(40, 0.0, 10.0, math.inf)),
        (seen(60, 100), seen(60, 100), Lag(40, 0.0, 0.0, math.inf)),
        (seen(80, 90), seen(100, 100), Lag(0, 10.0, 5.0, 0.0)),
        # A reset backward.
        (seen(80, 100), seen(0, 100), Lag(100, -40.0, 0.0, math.inf)),
        # Retention has deleted what was not read.
        (None, seen(60, 100, low=90), Lag(10, None, None, None)),
        (None, seen(None, 100), Lag(None, None, None, None)),
        (seen(None, 80), seen(60, 100), Lag(40, None, 10.0, None)),
        (seen(20, None, None), seen(60, None, None), Lag(None, 20.0, None, None)),
    ],
)
def test_a_partition(before: Seen | None, after: Seen, expected: Lag) -> None:
    assert partition_lag(before, after, 2.0) == expected


def test_the_total_leaves_out_what_is_not_known() -> None:
    before = Look(0.0, "stable", 1, {("t", 0): seen(0, 10), ("t", 1): seen(None, 10)})
    after = Look(2.0, "stable", 1, {("t", 0): seen(20, 30), ("t", 1): seen(None, 90)})
    lags = lags_between(before, after)
    assert total_lag(list(lags.values())) == Lag(10, 10.0, 10.0, math.inf)
    assert total_lag(list(lags_between(None, after).values())) == Lag(10, None, None, None)
    assert total_lag([]) == Lag(0, None, None, None)


BEFORE = Look(10.0, "stable", 1, {("orders", 0): Seen(0, 0, 1000, OWNER)})
AFTER = Look(
    12.0,
    "preparing_rebalance",
    2,
    {("orders", 0): Seen(500, 0, 1500, OWNER), ("orders", 1): Seen(None, 0, 7, None)},
)


def test_a_table_for_people() -> None:
    assert described(Report("g", BEFORE, AFTER)) == [
        "group g: preparing rebalance, 2 members, lag 1,000, 1 partition without a committed"
        " position, committed 250.0/s, produced 250.0/s, not shrinking",
        "",
        "TOPIC   PARTITION  COMMITTED    END    LAG  COMMITTED/S  PRODUCED/S  DRAINS IN  MEMBER",
        "orders          0        500  1,500  1,000        250.0       250.0  never     "
        " mq-12345678@10.0.0.7",
        "orders          1          -      7      -            -           -  -          -",
    ]
    first, *_ = described(Report("g", None, BEFORE))
    assert first == "group g: stable, 1 member, lag 1,000"


def test_lines_for_programs() -> None:
    assert told(Report("g", BEFORE, AFTER)) == [
        f"orders\t0\t500\t1500\t1000\t250.000\t250.000\tnever\t{OWNER.member_id}",
        "orders\t1\t-\t7\t-\t-\t-\t-\t-",
    ]


def test_json_has_the_numbers_and_null_for_what_is_not_known() -> None:
    whole = json.loads(json.dumps(jsonable(Report("g", BEFORE, AFTER), 5)))
    first, second = whole.pop("partitions")
    assert whole == {
        "group": "g",
        "state": "preparing_rebalance",
        "members": 2,
        "time_ms": 5,
        "over_s": 2.0,
        "lag": 1000,
        "committed_per_s": 250.0,
        "produced_per_s": 250.0,
        "drain_s": None,
    }
    assert first["member"] == OWNER._asdict()
    assert (first["committed"], first["low"], first["end"], first["lag"]) == (500, 0, 1500, 1000)
    assert (second["committed"], second["lag"], second["member"]) == (None, None, None)


def test_a_static_member_is_shown_by_its_id() -> None:
    assert owner_text(OWNER._replace(instance_id="mq-0")) == "mq-0@10.0.0.7"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["lag", "--brokers", "a:1", "-w"], "no group to watch: name it, such as kqmp lag"),
        (["lag", "--watch", "g"], "'g': use a number of seconds from 0.1 to 3600"),
        (["lag", "g", "--brokers", "a:1", "--over", "-1"], "-1.0 is not in the range"),
        (["topic", "create", "--brokers", "a:1"], "no topic: name it"),
        (["topic", "create", "t", "--brokers", "a:1", "--config", "x"], "--config ...: write it"),
        (["topic", "create", "t", "--partitions", "0"], "0 is not in the range x>=1"),
        (["topic", "create", "a b", "--brokers", "a:1"], "--topic: 'a b' is not allowed"),
        (["topic", "show", "t", "--all", "--brokers", "a:1"], "leave one of the two out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_flags_are_exit_2(arguments: list[str], text: str) -> None:
    done = CliRunner().invoke(cli, arguments, prog_name="kqmp")
    assert (done.exit_code, done.stdout) == (2, "")
    assert text in done.stderr
