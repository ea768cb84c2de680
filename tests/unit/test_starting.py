"""What `kqmp tail -o` takes, and where in a partition that is."""

import pytest

from kqmp.cli.starting import parse_start
from kqmp.errors import ConfigError
from kqmp.kafka.member import Bounds
from kqmp.kafka.reading import Start, position

NOW_MS = 1_769_846_400_000


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("beginning", Start("beginning")),
        ("First", Start("beginning")),
        ("end", Start("end")),
        ("latest", Start("end")),
        ("0", Start("offset", 0)),
        ("123456789012", Start("offset", 123_456_789_012)),
        ("-5", Start("back", 5)),
        ("-15m", Start("time", NOW_MS - 900_000)),
        ("-1h30m", Start("time", NOW_MS - 5_400_000)),
        ("@1769846400", Start("time", NOW_MS)),
        ("@1769846400.25", Start("time", NOW_MS + 250)),
        ("@1769846400000", Start("time", NOW_MS)),
        ("2026-01-31T08:00:00Z", Start("time", NOW_MS)),
        ("@2026-01-31T09:00:00+01:00", Start("time", NOW_MS)),
        ("2026-01-31T08:00:00.250Z", Start("time", NOW_MS + 250)),
    ],
)
def test_where_to_begin(text: str, start: Start) -> None:
    assert parse_start(text, NOW_MS) == start


def test_a_time_without_a_zone_is_this_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "EST+5")
    time.tzset()
    try:
        assert parse_start("2026-01-31 03:00", NOW_MS) == Start("time", NOW_MS)
        assert parse_start("2026-01-31", NOW_MS) == Start("time", NOW_MS - 3 * 3_600_000)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "middle",
        "-",
        "--5",
        "-5x",
        "5m",
        "1.5",
        "@",
        "@tomorrow",
        "2026-13-01",
        "2026-01",
        "9" * 19,
    ],
)
def test_anything_else_is_one_error_that_shows_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_start(text, NOW_MS)
    (problem,) = caught.value.problems
    assert problem.startswith(f"-o {text!r}: use beginning, end, -N")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (Start("beginning"), 100),
        (Start("end"), 200),
        (Start("back", 5), 195),
        (Start("back", 500), 100),
        (Start("back", 0), 200),
        (Start("offset", 150), 150),
        (Start("offset", 7), 100),
        (Start("offset", 201), 200),
    ],
)
def test_a_position_lies_inside_the_log(start: Start, expected: int) -> None:
    assert position(start, Bounds(100, 200)) == expected
