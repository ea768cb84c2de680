"""The table of a pusher's keys, in the style of `kqmp.config.keys`. Pure data."""

from __future__ import annotations

from dataclasses import replace

from kqmp.config.keys import KEY, Key, KeyTable

PUSHER_KEYS: tuple[Key, ...] = (
    replace(
        KEY["name"],
        default_note="the section's name; in Python the topic",
        meaning="name in the logs and, behind kqmp-, the client id at the brokers",
    ),
    KEY["brokers"],
    replace(KEY["topic"], meaning="the one topic to push to"),
    KEY["username"],
    KEY["password"],
    KEY["ca_file"],
    Key(
        kq="ChunkSize",
        kind="size",
        default=1024**2,
        low=1,
        high=1_000_000_000,
        meaning="a partition's messages go out when so many bytes wait (in kq all partitions')",
    ),
    Key(
        kq="FlushInterval",
        kind="duration",
        default=1000,
        low=0,
        high=900_000,
        meaning="or after this long; 0s sends at once",
    ),
    Key(
        kq="Balancer",
        kind="choice",
        choices=("hash", "crc32", "fnv1a", "random"),
        default="hash",
        rule="LeastBytes and RoundRobin of kq are not offered: random spreads, whatever the key",
        meaning=(
            "which partition a key goes to: hash as Java does (murmur2), crc32 as librdkafka and"
            " kafka-go's CRC32Balancer, fnv1a as kafka-go's Hash and sarama; messages without a"
            " key are spread; random spreads all (kq's LeastBytes ignores keys too)"
        ),
    ),
    Key(
        kq="AllowAutoTopicCreation",
        kind="flag",
        default=False,
        meaning="true: a missing topic is created, if the brokers are set to do that",
    ),
    Key(
        kq="Sync",
        kind="flag",
        default=False,
        meaning="true: push returns when the brokers have the message, and raises if not",
    ),
    Key(
        kq="MaxBlock",
        kind="duration",
        default=60_000,
        low=0,
        high=3_600_000,
        meaning="longest that push waits for room in a full queue before it raises",
    ),
    replace(
        KEY["kafka"],
        client="producer",
        meaning="raw librdkafka producer properties; they win over the keys above",
    ),
)

PUSHER = KeyTable(PUSHER_KEYS)
