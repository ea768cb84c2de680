"""How much a lane may hold: a time, not a count.

A lane holds at most `ahead` of work at its measured speed. How long a stop, a drain and a rebalance
take, how much a crash repeats and how evenly work spreads all follow from this one bound. The limit
starts at one message and doubles while the lane uses it up and wants to be filled again; a lane
that gets few messages does not grow a limit that it never needed. Once the speed is known the limit
is never below two, so that a processor always finds its next message waiting.
"""

from typing import Final

#: A lane is to be filled again when it holds no more than this part of its limit: each filling
#: costs the fetcher, the coordinator and the processor about 0.1 ms each with cold caches, however
#: small it is. The limit grows by the same mark.
REFILL_BELOW: Final = 0.25
#: Weight of a sample.
_WEIGHT: Final = 0.3
#: A sample spans at least this long; shorter ones say more about the scheduler than the handler.
_SAMPLE_S: Final = 0.02
#: Seconds a message is taken to last before one was measured.
UNMEASURED_S: Final = 1e-6
#: Most messages a lane may hold, whatever its speed: bounds the coordinator's work per lane.
LIMIT_MAX: Final = 100_000


class Depth:
    """The limit of one lane. Runs in the fetcher; times are monotonic seconds."""

    __slots__ = (
        "_ahead_s",
        "_busy_since_s",
        "_filled",
        "_last_cursor",
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
        #: When the lane last moved or had nothing to do: how long it has been at one message.
        self._sample_s = self._busy_since_s = now_s
        #: Most messages it held since the limit last grew.
        self._filled = 0

    def observe(self, cursor: int, outstanding: int, now_s: float) -> None:
        """Take note of the lane's progress; call it before each dispatch.

        Args:
            cursor: the lane's cursor now.
            outstanding: messages on the lane at or above the cursor, without its bay's.
            now_s: monotonic.
        """
        moved = cursor - self._last_cursor
        self._last_cursor = cursor
        if moved or not outstanding:
            self._busy_since_s = now_s
        self._sample(cursor, outstanding, now_s)
        # Nothing was dispatched since the last call but right after it.
        self._filled = max(self._filled, outstanding + moved)
        if moved and outstanding <= self.mark and self.limit < self._filled * 2:
            self.limit = min(self.limit * 2, LIMIT_MAX)
            self._filled = outstanding
        if self.seconds_each:
            left_s = self._ahead_s - self.stuck_s(outstanding, now_s)
            self.limit = max(2, min(self.limit, int(left_s / self.seconds_each)))

    @property
    def mark(self) -> int:
        """Messages at or below which the lane is to be filled again.

        Of a few, half: one is in the processor's hands, and how long the next takes is anybody's
        guess.
        """
        return max(min(2, self.limit // 2), int(REFILL_BELOW * self.limit))

    def due_s(self, outstanding: int, now_s: float) -> float:
        """Return in how many seconds the lane is to be filled again, 0 if it is now; a guess.

        A lane that is stuck at a message is taken to be so for as long again.
        """
        if outstanding <= self.mark:
            return 0.0
        return (outstanding - self.mark) * self.seconds_each + self.stuck_s(outstanding, now_s)

    def load_s(self, outstanding: int, each_s: float, now_s: float) -> float:
        """Return the seconds of work that `outstanding` messages of `each_s` are.

        The time a lane has been stuck at one message counts as if it lasted as long again: the
        longer it took so far, the less should be added behind it.
        """
        return outstanding * each_s + self.stuck_s(outstanding, now_s)

    def stuck_s(self, outstanding: int, now_s: float) -> float:
        """Return for how long the lane is at one message that takes longer than others did, or 0.

        It is no sample: a stalled machine is not a slow handler, and what became of the message
        is measured when it is done.
        """
        stuck_s = now_s - self._busy_since_s
        return stuck_s if outstanding and stuck_s > max(_SAMPLE_S, self.seconds_each) else 0.0

    def _sample(self, cursor: int, outstanding: int, now_s: float) -> None:
        """Measure the speed since the last sample; a sample ends where the lane is found dry.

        A lane that is found busy was busy since it was last found dry, since each dispatch follows
        an observation. One that is found dry may have been so for long: its messages took at most
        that long, which can only lower the measure.
        """
        elapsed_s = now_s - self._sample_s
        done = cursor - self._sample_cursor
        if outstanding and (elapsed_s < _SAMPLE_S or not done):
            return
        if done and (outstanding or 0 < elapsed_s < self.seconds_each * done):
            self._blend(elapsed_s / done)
        self._sample_cursor, self._sample_s = cursor, now_s

    def _blend(self, each_s: float) -> None:
        """Take a sample into the running mean; if it is far below that, go half way on a log scale.

        One slow message must not keep its lane shallow for long: from 30 s to 1 ms it takes five
        samples so, and twenty by the mean. Near the mean only the mean is right, since samples
        scatter: they end where the lane was looked at, not where a message ended.
        """
        so_far_s = self.seconds_each
        if not so_far_s:
            self.seconds_each = each_s
        elif each_s * 2 < so_far_s:
            self.seconds_each = (each_s * so_far_s) ** 0.5
        else:
            self.seconds_each += _WEIGHT * (each_s - so_far_s)
