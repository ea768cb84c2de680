"""When to fetch nothing for a moment, so that keys can change lanes.

A key stays on its lane while messages of it are in flight there. Where every key has a backlog,
each always has some: a lane that has more than its share of them, be it because the other one had
lost its core when they were new, keeps them as long as the backlog lasts, and others stand idle.
So fetching pauses until that lane is dry: its keys are idle by then, and are spread anew. (Not
before: when a key was seen last is known by generation only, see `slots`.) The lane that is waited
for works all the time, and it is the one that takes longest.

Only where the others together lose no more than that lane does meanwhile, and for a lane that can
be relieved so. One with a single key, one that is stuck at a message, one that is given no more
than others and is slow, and one that holds very much already go on collecting what is theirs in
their bay, while the others are fed.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

#: A lane holds too much above this many times its limit, and is waited for only up to that many.
ABOVE: Final = 1.5
UP_TO: Final = 4.0
#: A lane gets too much above this many times its share of the last batches.
SHARE_MAX: Final = 1.1
#: What the share of the batch before the last counts, of the last one's.
_MEMORY: Final = 0.5
#: Keys that a lane must have, to give some away.
KEYS_MIN: Final = 2


class LaneLoad(NamedTuple):
    """A lane with its bay."""

    #: Messages on it and in its bay.
    holds: int
    #: What it may hold (`Depth`).
    limit: int
    #: Whether its processor is at one message for longer than messages took so far.
    is_stuck: bool
    #: Keys of which it got messages of late.
    keys: int


class Drain:
    """Decides for one fetcher; belongs to its thread."""

    __slots__ = ("_given", "_lane")

    def __init__(self, lane_count: int) -> None:
        """Wait for nothing."""
        #: Messages given to each lane of late.
        self._given = [0.0] * lane_count
        self._lane: int | None = None

    @property
    def lane(self) -> int | None:
        """The lane that is waited for."""
        return self._lane

    def placed(self, given: Sequence[int]) -> None:
        """Take note of how many messages of a batch each lane was given."""
        self._given = [
            before * _MEMORY + now for before, now in zip(self._given, given, strict=True)
        ]

    def waits(self, lanes: Sequence[LaneLoad]) -> bool:
        """Return whether nothing is to be fetched now, though some lane is to be filled again."""
        if self._lane is not None:
            lane = lanes[self._lane]
            if not lane.holds or lane.is_stuck:
                self._lane = None
        else:
            fullest = max(range(len(lanes)), key=lambda index: lanes[index].holds)
            if self._is_worth_it(fullest, lanes):
                self._lane = fullest
        return self._lane is not None

    def _is_worth_it(self, index: int, lanes: Sequence[LaneLoad]) -> bool:
        fullest, total = lanes[index], sum(self._given)
        if not ABOVE * fullest.limit < fullest.holds <= UP_TO * fullest.limit or not total:
            return False
        shares = [given * len(lanes) / total for given in self._given]
        # What the others could do meanwhile, if they go on to get what they get now.
        lost = sum(
            min(share, 1.0) * (fullest.holds - lane.holds)
            for share, lane in zip(shares, lanes, strict=True)
        )
        can_give = fullest.keys >= KEYS_MIN and not fullest.is_stuck
        return can_give and shares[index] > SHARE_MAX and lost <= fullest.holds
