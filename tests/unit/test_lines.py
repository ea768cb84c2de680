"""Messages as lines."""

import json

import pytest

from kqmp.cli import lines
from kqmp.kafka.reading import Batch

CREATED = (1, 1_769_846_400_250)


def batch(*rows: tuple) -> Batch:
    """Make a batch of (key, value, headers) rows."""
    return Batch(
        partitions=[3] * len(rows),
        offsets=list(range(40, 40 + len(rows))),
        timestamps=[CREATED] * len(rows),
        keys=[row[0] for row in rows],
        values=[row[1] for row in rows],
        headers=[row[2] if len(row) > 2 else None for row in rows],
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "-"),
        (b"", ""),
        (b'{"a": "b\\n"}', '{"a": "b\\n"}'),
        (b"one\ntwo\tthree\r", r"one\ntwo\tthree\r"),
        (b"\x1b[31mred\x00\x7f", r"\x1b[31mred\x00\x7f"),
        (b"caf\xe9", r"caf\xe9"),
        ("caf\u00e9 \U0001f600".encode(), "caf\u00e9 \U0001f600"),
        ("c1 \u009b31m, rtl \u202e".encode(), r"c1 \x9b31m, rtl \u202e"),
        ("\u2028".encode(), r"\u2028"),
    ],
)
def test_text_is_safe_to_print_on_one_line(data: bytes | None, text: str) -> None:
    assert lines.shown(data) == text


def test_columns_have_tabs_in_between_and_a_dash_for_nothing() -> None:
    told = lines.columns(batch((b"k", b"v\tw", [("a", b"1"), ("b", None)]), (None, None)))
    assert told == (
        b"3\t40\t2026-01-31T08:00:00.250Z\tk\tv\\tw\ta=1,b=-\n"
        b"3\t41\t2026-01-31T08:00:00.250Z\t-\t-\t-\n"
    )


@pytest.mark.parametrize("has_color", [True, False])
def test_a_line_for_people(has_color: bool) -> None:
    told = lines.for_people(batch((b"k", b"v", [("a", b"1")]), (b"k", b"v")), has_color=has_color)
    for code in (lines._DIM, lines._BOLD, lines._PLAIN):
        assert (code.encode() in told) == has_color
        told = told.replace(code.encode(), b"")
    assert told == (
        b"3:40       2026-01-31T08:00:00.250Z  k  v  a=1\n"
        b"3:41       2026-01-31T08:00:00.250Z  k  v\n"
    )


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        ((0, -1), "-"),
        ((2, 1), "1970-01-01T00:00:00.001Z"),
        ((1, -1), "1969-12-31T23:59:59.999Z"),
        ((1, 2**62), f"@{2**62 // 1000}.{2**62 % 1000:03}Z"),
    ],
)
def test_times(timestamp: tuple[int, int], text: str) -> None:
    assert lines.shown_time(timestamp) == text


def test_raw_is_byte_for_byte() -> None:
    rows = batch((b"k", b"\xff\x00\t"), (None, None), (b"k", b""))
    assert lines.raw_lines(rows) == b"\xff\x00\t\n\n\n"
    assert lines.raw_lines(rows, b"\t") == b"k\t\xff\x00\t\n\t\nk\t\n"


def test_json_is_exact_and_marks_what_is_no_text() -> None:
    rows = batch((b"k\n", b'{"a": 1}', [("h", b"1"), ("h", b"\xff")]), (None, None), (b"\xff", b""))
    first, second, third = map(json.loads, lines.json_lines(rows, "orders").splitlines())
    assert first == {
        "topic": "orders",
        "partition": 3,
        "offset": 40,
        "timestamp": 1_769_846_400_250,
        "timestamp_type": "create",
        "key": "k\n",
        "value": '{"a": 1}',
        "headers": [["h", "1"], ["h", {"base64": "/w=="}]],
    }
    assert (second["key"], second["value"], second["headers"]) == (None, None, [])
    assert (third["key"], third["value"]) == ({"base64": "/w=="}, "")


def test_json_without_a_time_says_null() -> None:
    rows = batch((b"k", b"v"))._replace(timestamps=[(0, -1)])
    told = json.loads(lines.json_lines(rows, "t"))
    assert (told["timestamp"], told["timestamp_type"]) == (None, None)
