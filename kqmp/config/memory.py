"""The bounds of everything in an engine that holds messages; their sum is told at the start."""

from typing import Final

from kqmp.config.conf import KqConf

#: Bytes of a fetcher's dispatch log: half a second of the fastest dispatch ever measured.
LOG_BYTES: Final = 4 << 20
#: All bays of one fetcher together hold this many times `RingBytes`.
RINGS_IN_BAYS: Final = 8
#: librdkafka's prefetch queue may hold this much, or two full fetches if they are larger.
PREFETCH_BYTES_MIN: Final = 16 << 20


def prefetch_bytes(conf: KqConf) -> int:
    """Return the bytes that librdkafka may prefetch in one fetcher."""
    wanted = max(PREFETCH_BYTES_MIN, 2 * conf.max_bytes)
    try:
        return int(conf.kafka["queued.max.messages.kbytes"]) * 1024
    except (KeyError, ValueError):
        # A value that is no number is librdkafka's to refuse, by name.
        return wanted


def bounds(conf: KqConf) -> dict[str, int]:
    """Return the bytes that the whole engine may fill, by what holds them.

    Lanes and logs are shared memory, taken from the system page by page as it is first used. A
    single message above half of `RingBytes` comes on top while it is handled.
    """
    return {
        "lanes": conf.conns * conf.processors * conf.ring_bytes,
        "logs": conf.conns * LOG_BYTES,
        "librdkafka": conf.conns * prefetch_bytes(conf),
        "bays": conf.conns * RINGS_IN_BAYS * conf.ring_bytes,
    }
