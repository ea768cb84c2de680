"""Exponential back-off as a pure function: attempt number -> seconds to wait."""


def delay_s(attempt: int, first_s: float, most_s: float) -> float:
    """Return the wait before attempt `attempt` (0 = no wait): first_s, doubled each time, bounded.

    Args:
        attempt: >= 0, failures in a row so far.
        first_s: wait after the first failure.
        most_s: upper bound.
    """
    if attempt <= 0:
        return 0.0
    return float(min(most_s, first_s * 2 ** min(attempt - 1, 30)))
