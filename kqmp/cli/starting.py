"""What `kqmp tail -o` takes: where in a topic reading begins. Pure."""

import re
from datetime import datetime
from typing import Final

from kqmp.config.units import parse_duration_ms
from kqmp.errors import ConfigError
from kqmp.kafka.reading import Start

RULE: Final = (
    "beginning, end, -N (the last N of each partition), an offset, a time such as"
    " 2026-01-31T08:00:00Z or @1769846400, or -DURATION such as -15m (that long ago)"
)
#: Unix times from here on are milliseconds: as seconds they would lie beyond the year 5000.
_MS_FROM: Final = 100_000_000_000
_INT64_MAX: Final = 2**63 - 1
_WORDS: Final = {
    "beginning": Start("beginning"),
    "first": Start("beginning"),
    "earliest": Start("beginning"),
    "end": Start("end"),
    "last": Start("end"),
    "latest": Start("end"),
}


def parse_start(text: str, now_ms: int) -> Start:
    """Read where to begin.

    Besides the words of `RULE`, those of kq (first, last) and of Kafka (earliest, latest).

    Args:
        text: as given.
        now_ms: the time now, for what is given as so long ago.

    Raises:
        ConfigError: it is none of what `RULE` says.
    """
    start = _start(text.strip(), now_ms)
    if start is None or start.number > _INT64_MAX:
        raise ConfigError(f"-o {text!r}: use {RULE}")
    return start


def _start(text: str, now_ms: int) -> Start | None:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if re.fullmatch(r"[0-9]{1,19}", text):
        return Start("offset", int(text))
    if re.fullmatch(r"-[0-9]{1,19}", text):
        return Start("back", int(text[1:]))
    if text.startswith("-"):
        return _ago(text[1:], now_ms)
    time_ms = _unix_ms(text[1:]) if text.startswith("@") else None
    if time_ms is None:
        time_ms = _iso_ms(text.removeprefix("@"))
    return None if time_ms is None else Start("time", time_ms)


def _ago(text: str, now_ms: int) -> Start | None:
    try:
        return Start("time", max(0, now_ms - parse_duration_ms(text)))
    except ValueError:
        return None


def _unix_ms(text: str) -> int | None:
    if not re.fullmatch(r"[0-9]{1,16}(\.[0-9]{1,9})?", text):
        return None
    number = float(text)
    return round(number if number >= _MS_FROM else number * 1000)


def _iso_ms(text: str) -> int | None:
    """Read a date or a date with a time; without a zone it is this machine's."""
    if not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    try:
        return max(0, round(datetime.fromisoformat(text).timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        return None
