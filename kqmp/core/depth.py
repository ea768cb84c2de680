"""How much a lane may hold: a time, not a count.

A lane holds at most `ahead` of work at its measured speed. How long a stop, a drain and a rebalance
take, how much a crash repeats and how evenly work spreads all follow from this one bound. The limit
starts at one message and doubles while the lane keeps running dry; once the speed is known it is
never below two, so that a processor always finds its next message waiting.
"""

from typing import Final

#: Weight of the newest speed sample.
_WEIGHT: Final = 0.3
#: A sample spans at least this long; shorter ones say more about the scheduler than the handler.
_SAMPLE_S: Final = 0.02
#: Most messages a lane may hold, whatever its speed: bounds the coordinator's work per lane.
LIMIT_MAX: Final = 100_000


class Depth:
    """The limit of one lane. Runs in the fetcher; times are monotonic seconds."""

    __slots__ = (
        "_ahead_s",
        "_last_cursor",
        "_last_move_s",
        "_sample_cursor",
        "_sample_s",
        "limit",
        "seconds_each",
    )

    def __init__(self, ahead_s: float, cursor: int, now_s: float) -> None:
        """Start with one message.

        Args:
            ahead_s: work a lane may hold, in seconds (`DispatchAhead`).
            cursor: the lane's cursor now.
            now_s: monotonic.
        """
        self._ahead_s = ahead_s
        self.limit = 1
        #: Measured seconds a message takes while the lane is busy; 0 until measured.
        self.seconds_each = 0.0
        self._sample_cursor = self._last_cursor = cursor
        self._sample_s = self._last_move_s = now_s

    def observe(self, cursor: int, outstanding: int, now_s: float) -> None:
        """Take note of the lane's progress; call it before each dispatch.

        Args:
            cursor: the lane's cursor now.
            outstanding: messages on the lane at or above the cursor.
            now_s: monotonic.
        """
        moved = cursor - self._last_cursor
        if moved:
            self._last_cursor = cursor
            self._last_move_s = now_s
        if outstanding:
            self._sample(cursor, now_s)
        else:
            if cursor - self._sample_cursor:
                self._sample_partial(cursor, now_s)
            self._sample_cursor, self._sample_s = cursor, now_s
        if moved and outstanding * 2 <= self.limit:
            self.limit = min(self.limit * 2, LIMIT_MAX)
        if self.seconds_each:
            fits = int(self._ahead_s / self.seconds_each)
            self.limit = max(2, min(self.limit, fits))

    def load_s(self, outstanding: int, now_s: float) -> float:
        """Return the seconds of work that `outstanding` messages are, stuck lanes included."""
        each = self.seconds_each or 1e-6
        stuck = now_s - self._last_move_s if outstanding else 0.0
        return outstanding * each + (stuck if stuck > each else 0.0)

    def _sample(self, cursor: int, now_s: float) -> None:
        elapsed = now_s - self._sample_s
        done = cursor - self._sample_cursor
        if elapsed < _SAMPLE_S or not done:
            # Nothing finished for longer than a message took so far: it is at least that slow.
            if elapsed > self.seconds_each and not done:
                self.seconds_each = max(self.seconds_each, elapsed if elapsed > _SAMPLE_S else 0.0)
            return
        self._blend(elapsed / done)
        self._sample_cursor, self._sample_s = cursor, now_s

    def _sample_partial(self, cursor: int, now_s: float) -> None:
        """The lane ran dry: its messages took at most this long, which bounds the speed below."""
        each = (now_s - self._sample_s) / (cursor - self._sample_cursor)
        if self.seconds_each and each < self.seconds_each:
            self._blend(each)

    def _blend(self, each: float) -> None:
        if not self.seconds_each:
            self.seconds_each = each
        else:
            self.seconds_each += _WEIGHT * (each - self.seconds_each)
