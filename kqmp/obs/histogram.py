"""Handler-time histogram: log-linear buckets that merge by addition across processes.

Four buckets an octave of nanoseconds, so that a quantile is off by at most a quarter. Processors
count into their shared words, the coordinator adds the arrays up and reads quantiles off.
"""

from collections.abc import Sequence
from typing import Final

#: Buckets: 64 octaves, more than a 64-bit time can need.
BUCKETS: Final = 256


def bucket(duration_ns: int) -> int:
    """Return the bucket of a duration, >= 0 ns. Called per timed message."""
    bits = duration_ns.bit_length()
    if bits < 3:
        return duration_ns
    return (bits << 2) + ((duration_ns >> (bits - 3)) & 3)


def upper_ns(index: int) -> int:
    """Return the exclusive upper bound of a bucket in ns."""
    bits, quarter = index >> 2, index & 3
    if bits < 3:
        return index + 1
    return (4 + quarter + 1) << (bits - 3)


def quantile_ns(counts: Sequence[int], fraction: float) -> int:
    """Return an upper bound of the quantile `fraction` (0..1) in ns; 0 without samples."""
    total = sum(counts)
    if not total:
        return 0
    rank = max(1, round(fraction * total))
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= rank:
            return upper_ns(index)
    return upper_ns(len(counts) - 1)
