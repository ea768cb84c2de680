"""The one table of configuration keys: names, kinds, defaults, limits, meanings.

Defaults of `KqConf`, the parsing of files and flags, error texts and the documentation all come
from `KEYS`; nothing repeats it. Pure data, used in any process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from kqmp.config.units import DURATION_RULE, SIZE_RULE, format_duration_ms, format_size

Kind = Literal[
    "text",
    "topic",
    "identifier",
    "secret",
    "integer",
    "processors",
    "duration",
    "size",
    "flag",
    "choice",
    "brokers",
    "properties",
]

_TYPES: dict[Kind, str] = {
    "text": "text",
    "topic": "text",
    "identifier": "text",
    "secret": "text",
    "integer": "whole number",
    "processors": "whole number or auto",
    "duration": "duration",
    "size": "size",
    "flag": "true or false",
    "choice": "one of",
    "brokers": "list of host:port",
    "properties": "map",
}
_UNITS: dict[Kind, str] = {"duration": "h, m, s, ms", "size": "bytes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One configuration key."""

    #: kq's name, PascalCase: as it stands in files and after `--set`.
    kq: str
    kind: Kind
    #: What it means, a phrase for the documentation.
    meaning: str
    #: The value where none is given: milliseconds for durations, bytes for sizes.
    default: object = ""
    #: The default as the documentation shows it, where it is no constant.
    default_note: str = ""
    #: Where numbers, durations (ms) and sizes (bytes) must lie, both ends included.
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    required: bool = False
    #: What is allowed, where `kind` alone does not say it: a noun phrase that follows "use".
    rule: str = ""

    @property
    def name(self) -> str:
        """The name in Python: kq's, in snake_case."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.kq).lower()

    @property
    def type(self) -> str:
        """The type, for the documentation."""
        return f"{_TYPES[self.kind]} {', '.join(self.choices)}".rstrip()

    @property
    def unit(self) -> str:
        """The units a value may be written in, for the documentation; empty where it has none."""
        return _UNITS.get(self.kind, "")

    @property
    def default_text(self) -> str:
        """The default as the documentation shows it."""
        if self.required:
            return "required"
        if self.default_note:
            return self.default_note
        return self.format(self.default)

    @property
    def field_default(self) -> object:
        """The default in the type `KqConf` holds: a `timedelta` for durations."""
        if self.kind == "duration" and isinstance(self.default, int):
            return timedelta(milliseconds=self.default)
        return self.default

    @property
    def allowed(self) -> str:
        """What may be given: a noun phrase that follows "use"."""
        if self.kind == "choice":
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
        between = f"from {self.format(self.low)} to {self.format(self.high)}"
        rules: dict[Kind, str] = {
            "flag": "true or false",
            "integer": f"a whole number {between}",
            "processors": f"a whole number {between}, or auto (the usable cores)",
            "duration": f"{DURATION_RULE}, {between}",
            "size": f"{SIZE_RULE}, {between}",
        }
        return rules.get(self.kind) or self.rule or "text"

    def format(self, value: object) -> str:
        """Write a checked value (not a password) as it could stand in a file."""
        if self.kind == "duration":
            if isinstance(value, timedelta):
                value = value // timedelta(milliseconds=1)
            return format_duration_ms(value) if isinstance(value, int) else str(value)
        if self.kind == "size":
            return format_size(value) if isinstance(value, int) else str(value)
        if self.kind == "flag":
            return str(value).lower()
        if isinstance(value, tuple | list):
            return ",".join(map(str, value))
        return str(value)


_HOUR_MS = 3_600_000

KEYS: tuple[Key, ...] = (
    Key(
        kq="Name",
        kind="text",
        default_note="the section's name; in Python the group",
        meaning="name in the stat lines, in the logs and in `ps`",
    ),
    Key(
        kq="Brokers",
        kind="brokers",
        default=(),
        required=True,
        rule="a list of host:port",
        meaning="where to ask for the cluster first",
    ),
    Key(
        kq="Group",
        kind="text",
        required=True,
        rule="the name of the consumer group, as text",
        meaning="consumer group",
    ),
    Key(
        kq="Topic",
        kind="topic",
        required=True,
        rule="the name of one topic: 1 to 249 of A-Z a-z 0-9 . _ -, not . or ..",
        meaning="the one topic to consume",
    ),
    Key(
        kq="Offset",
        kind="choice",
        choices=("first", "last"),
        default="last",
        meaning="where to begin if the group has no offset, or one that no longer exists",
    ),
    Key(
        kq="Conns",
        kind="integer",
        default=1,
        low=1,
        high=256,
        meaning="fetcher processes, each one member of the group",
    ),
    Key(
        kq="Consumers",
        kind="integer",
        default=8,
        low=1,
        high=1_000_000,
        meaning="times QueueCapacity: messages a fetcher lets librdkafka read ahead",
    ),
    Key(
        kq="Processors",
        kind="processors",
        default=8,
        low=1,
        high=256,
        meaning="processor processes per fetcher, each one handler at a time",
    ),
    Key(
        kq="MinBytes",
        kind="size",
        default=10 * 1024,
        low=1,
        high=100_000_000,
        meaning="how much a broker gathers before it answers a fetch, up to MaxWait",
    ),
    Key(
        kq="MaxBytes",
        kind="size",
        default=10 * 1024**2,
        low=1,
        high=1_000_000_000,
        meaning="most of one fetch and of one partition in it; a larger message still comes, alone",
    ),
    Key(kq="Username", kind="text", meaning="SASL PLAIN user; needs Password"),
    Key(kq="Password", kind="secret", meaning="SASL PLAIN password; needs Username; never printed"),
    Key(
        kq="CaFile",
        kind="text",
        rule="the path of a PEM file",
        meaning="PEM file of certificate authorities; switches TLS on, always verified",
    ),
    Key(
        kq="ForceCommit",
        kind="flag",
        default=True,
        meaning="true: a failed message is logged, counted, passed over; false: it is retried",
    ),
    Key(
        kq="CommitInOrder",
        kind="flag",
        default=False,
        meaning="true is Ordering partition; commits are always contiguous, whatever stands here",
    ),
    Key(
        kq="CommitInterval",
        kind="duration",
        default=1000,
        low=1,
        high=_HOUR_MS,
        meaning="time between two commits",
    ),
    Key(
        kq="QueueCapacity",
        kind="integer",
        default=1000,
        low=1,
        high=10_000_000,
        meaning="times Consumers: messages a fetcher lets librdkafka read ahead",
    ),
    Key(
        kq="MaxWait",
        kind="duration",
        default=100,
        low=1,
        high=30_000,
        meaning="longest a broker waits for MinBytes (kq waits 1s)",
    ),
    Key(
        kq="DrainTimeout",
        kind="duration",
        default=20_000,
        low=1,
        high=_HOUR_MS,
        meaning="longest a stop lets handlers finish (Kubernetes kills after 30s)",
    ),
    Key(
        kq="Ordering",
        kind="choice",
        choices=("key", "partition", "unordered"),
        default=None,
        default_note="key; partition if CommitInOrder is true",
        meaning="what is handled one after another, in offset order",
    ),
    Key(
        kq="Handler",
        kind="text",
        rule="module:name, such as mqs:consume",
        meaning="the handler, module:name; TARGET on the command line wins",
    ),
    Key(
        kq="RingBytes",
        kind="size",
        default=4 * 1024**2,
        low=64 * 1024,
        high=1024**3,
        meaning="shared memory of one lane, rounded up to whole pages",
    ),
    Key(
        kq="DispatchAhead",
        kind="duration",
        default=250,
        low=1,
        high=60_000,
        meaning="most work, in time, that waits in one lane",
    ),
    Key(
        kq="MaxAttempts",
        kind="integer",
        default=3,
        low=1,
        high=1_000_000,
        meaning="a message that kills its processor this often is set aside",
    ),
    Key(
        kq="InstanceId",
        kind="identifier",
        rule="1 to 240 of A-Z a-z 0-9 . _ -, not . or ..",
        meaning="static membership: fetcher n is InstanceId-n; unique among the group's engines",
    ),
    Key(
        kq="Kafka",
        kind="properties",
        default={},
        default_note="empty",
        rule="a map of librdkafka properties to text, numbers or true/false",
        meaning="raw librdkafka consumer properties; they win over the keys above",
    ),
)

#: By the name in Python.
KEY: dict[str, Key] = {key.name: key for key in KEYS}
#: By kq's name in lower case: file keys and `--set` are case-insensitive.
KEY_BY_KQ: dict[str, Key] = {key.kq.lower(): key for key in KEYS}
