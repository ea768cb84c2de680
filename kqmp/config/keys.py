"""The one table of configuration keys: names, kinds, defaults, limits, meanings.

Defaults of `KqConf`, the parsing of files and flags, error texts and the documentation all come
from `KEYS`; nothing repeats it. Pure data, used in any process.
"""

from __future__ import annotations

from kqmp.config.key import Key, KeyTable, Kind
from kqmp.config.service import Log

__all__ = ["CONSUMER", "KEY", "KEYS", "KEY_BY_KQ", "SERVICE", "Key", "KeyTable", "Kind"]

_HOUR_MS = 3_600_000


def _port(default: int) -> Key:
    return Key(
        kq="Port", kind="integer", default=default, low=1, high=65535, meaning="where it listens"
    )


def _path(kq: str, default: str, meaning: str) -> Key:
    return Key(kq=kq, kind="path", default=default, meaning=meaning)


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
    Key(
        kq="Log",
        kind="table",
        default=Log(),
        default_note="as below",
        meaning="how all processes log, always to stderr; go-zero's other keys have no effect",
        fields=(
            Key(
                kq="Level",
                kind="choice",
                choices=("debug", "info", "warning", "error", "severe"),
                default=None,
                default_note="info",
                meaning="records below it are dropped; --log-level and log_level win",
            ),
            Key(
                kq="Encoding",
                kind="choice",
                choices=("json", "plain"),
                default=None,
                default_note="plain",
                meaning="json: one object a line (kq's default); --log-format wins",
            ),
            Key(
                kq="Stat",
                kind="flag",
                default=True,
                meaning="false: no stat line each minute",
            ),
        ),
        ignored=(
            "ServiceName",
            "Mode",
            "TimeFormat",
            "Path",
            "MaxContentLength",
            "Compress",
            "KeepDays",
            "StackCooldownMillis",
            "MaxBackups",
            "MaxSize",
            "Rotation",
            "FileTimeFormat",
            "FieldKeys",
        ),
    ),
    Key(
        kq="Mode",
        kind="choice",
        choices=("dev", "test", "rt", "pre", "pro"),
        default="pro",
        meaning="checked, without effect",
    ),
    Key(
        kq="MetricsUrl",
        kind="url",
        meaning="where kq's JSON of each minute is posted",
    ),
    Key(
        kq="Prometheus",
        kind="table",
        default=None,
        default_note="off",
        meaning="page of metrics on a port; needs the extra prometheus",
        fields=(
            Key(kq="Host", kind="text", meaning="where it listens; off while empty, as in kq"),
            _port(9101),
            _path("Path", "/metrics", "path of the page"),
        ),
    ),
    Key(
        kq="DevServer",
        kind="table",
        default=None,
        default_note="off",
        meaning="pages of health and metrics on a port (kq's health is always OK)",
        fields=(
            Key(kq="Enabled", kind="flag", default=True, meaning="false switches it off"),
            Key(kq="Host", kind="text", meaning="where it listens; every address while empty"),
            _port(6060),
            _path("MetricsPath", "/metrics", "path of the metrics; needs the extra prometheus"),
            _path("HealthPath", "/healthz", "200 while assigned and moving, else 503 and why"),
            Key(kq="EnableMetrics", kind="flag", default=True, meaning="false: no metrics there"),
            Key(
                kq="HealthResponse",
                kind="text",
                default="OK",
                meaning="what the page of health says while all is well",
            ),
        ),
        ignored=("EnablePprof",),
    ),
)

#: What ServiceConf brings, in lower case: keys that do not tell a consumer from other sections.
SERVICE: frozenset[str] = frozenset({"log", "mode", "metricsurl", "prometheus", "devserver"})

CONSUMER = KeyTable(KEYS)
#: By the name in Python.
KEY: dict[str, Key] = CONSUMER.by_name
#: By kq's name in lower case: file keys and `--set` are case-insensitive.
KEY_BY_KQ: dict[str, Key] = CONSUMER.by_kq
