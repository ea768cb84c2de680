r"""Messages as lines: for people, as columns for programs, as JSON, or values as they are. Pure.

As text a line stays a line and a terminal unharmed: control characters are written as escapes
(`\n`, `\x1b`), bytes that are not UTF-8 too (`\xff`), and what is null, or has no time, as `-`.
Exact are only `json_lines` and `raw_lines`.
"""

import base64
import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec

from kqmp.kafka.payload import Headers
from kqmp.kafka.reading import Batch

#: From a batch to what is written for it.
Render: TypeAlias = Callable[[Batch], bytes]

NOTHING: Final = "-"
_ESCAPES: Final = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    9: "\\t",
    10: "\\n",
    13: "\\r",
    0x2028: "\\u2028",  # what some programs take for the end of a line
    0x2029: "\\u2029",
    0x202E: "\\u202e",  # turns the rest of the line around
}
_TIMESTAMP_TYPES: Final = {1: "create", 2: "log_append"}
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"


def shown(data: bytes | None) -> str:
    """Write bytes as text that is safe to print, on one line."""
    if data is None:
        return NOTHING
    text = data.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.translate(_ESCAPES)


def shown_headers(headers: Headers, separator: str = ",") -> str:
    """Write headers as `name=value`."""
    if not headers:
        return NOTHING
    return separator.join(f"{shown(name.encode())}={shown(value)}" for name, value in headers)


@functools.lru_cache(maxsize=4096)
def shown_time(timestamp: tuple[int, int]) -> str:
    """Write a timestamp in UTC, with milliseconds."""
    kind, time_ms = timestamp
    if not kind:
        return NOTHING
    seconds, rest_ms = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{rest_ms:03}Z"


def _second(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"@{seconds}"  # a producer may write any number


def columns(batch: Batch) -> bytes:
    """Write lines of partition, offset, time, key, value and headers, with tabs in between."""
    lines = [
        f"{partition}\t{offset}\t{shown_time(timestamp)}\t{shown(key)}\t{shown(value)}"
        f"\t{shown_headers(headers) if headers else NOTHING}\n"
        for partition, offset, timestamp, key, value, headers in zip(*batch, strict=True)
    ]
    return "".join(lines).encode()


def for_people(batch: Batch, *, has_color: bool) -> bytes:
    """Write lines of partition:offset, time, key, value, and headers where there are some."""
    dim, bold, plain = (_DIM, _BOLD, _PLAIN) if has_color else ("", "", "")
    lines = []
    for partition, offset, timestamp, key, value, headers in zip(*batch, strict=True):
        tail = f"  {dim}{shown_headers(headers, ' ')}{plain}" if headers else ""
        place = f"{partition}:{offset}"
        lines.append(
            f"{dim}{place:<9}  {shown_time(timestamp)}{plain}  {bold}{shown(key)}{plain}"
            f"  {shown(value)}{tail}\n"
        )
    return "".join(lines).encode()


def raw_lines(batch: Batch, key_separator: bytes | None = None) -> bytes:
    """Write values byte for byte, each with a line end; null as nothing.

    Args:
        batch: the messages.
        key_separator: if given, the key and this stand before each value.
    """
    values = batch.values
    if key_separator is None:
        if None in values:
            values = [value or b"" for value in values]
        return b"\n".join([*values, b""])  # type: ignore[list-item] # no None is left
    pairs = zip(batch.keys, values, strict=True)
    return b"".join(
        [b"%b%b%b\n" % (key or b"", key_separator, value or b"") for key, value in pairs]
    )


def json_lines(batch: Batch, topic: str) -> bytes:
    """Write one JSON object a line.

    Text stands as text, bytes that are not UTF-8 as {"base64": "..."}, null as null. Headers are a
    list of [name, value], since a name may be there twice; the timestamp is in ms since the epoch.
    """
    rows = [
        {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "timestamp": timestamp[1] if timestamp[0] else None,
            "timestamp_type": _TIMESTAMP_TYPES.get(timestamp[0]),
            "key": _jsonable(key),
            "value": _jsonable(value),
            "headers": [[name, _jsonable(item)] for name, item in headers] if headers else [],
        }
        for partition, offset, timestamp, key, value, headers in zip(*batch, strict=True)
    ]
    return _encoder.encode_lines(rows)


_encoder: Final = msgspec.json.Encoder()


def _jsonable(data: bytes | None) -> object:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
