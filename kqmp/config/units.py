"""Durations (`1m30s`) and sizes (`10MiB`): text to integers and back.

Pure. Durations are whole milliseconds, sizes whole bytes. A function that is given something it
cannot read raises ValueError with a text that says what is allowed and never repeats the value.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from fractions import Fraction

DURATION_RULE = "a duration such as 1s, 500ms or 1m30s (units h, m, s, ms, the largest first)"
SIZE_RULE = (
    "a whole number of bytes or a size such as 512KiB or 10MiB (units B, KB, KiB, MB, MiB, GB, GiB)"
)

# At most 12 digits, so that no text makes an integer too large to print (limit: 4300 digits).
_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,12})?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_DURATION_UNITS_MS = (3_600_000, 60_000, 1_000, 1)
_SIZE = re.compile(rf"{_NUMBER} ?([kmg]?i?b)?", re.IGNORECASE | re.ASCII)
_SIZE_UNITS = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}


def parse_duration_ms(value: object) -> int:
    """Read a duration: text with units, a `timedelta`, or a number of seconds.

    Returns:
        Milliseconds, rounded to the nearest; may be zero or negative where the value is.

    Raises:
        ValueError: not a duration.
    """
    if isinstance(value, timedelta):
        return round(Fraction(value // timedelta(microseconds=1), 1000))
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(DURATION_RULE)
        return round(Fraction(value) * 1000)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not any(match.groups()):
        raise ValueError(DURATION_RULE)
    parts = zip(match.groups(), _DURATION_UNITS_MS, strict=True)
    return round(sum(Fraction(number) * unit for number, unit in parts if number))


def format_duration_ms(duration_ms: int) -> str:
    """Write milliseconds (>= 0) the shortest way `parse_duration_ms` reads back exactly."""
    parts = []
    rest = duration_ms
    for unit_ms, name in zip(_DURATION_UNITS_MS, ("h", "m", "s", "ms"), strict=True):
        count, rest = divmod(rest, unit_ms)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


def parse_size(value: object) -> int:
    """Read a size in bytes: an integer, or text with or without a unit (upper or lower case).

    Raises:
        ValueError: not a size, or not a whole number of bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(SIZE_RULE)
    # None for "ib", which the pattern lets through.
    unit = _SIZE_UNITS.get((match[2] or "b").lower())
    if unit is None:
        raise ValueError(SIZE_RULE)
    size = Fraction(match[1]) * unit
    if size.denominator != 1:
        raise ValueError(SIZE_RULE)
    return size.numerator


def format_size(size_bytes: int) -> str:
    """Write bytes (>= 0) in the largest binary unit that divides them, for `parse_size`."""
    for unit in ("GiB", "MiB", "KiB"):
        factor = _SIZE_UNITS[unit.lower()]
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)
