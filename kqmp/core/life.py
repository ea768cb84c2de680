"""The life of a partition in this engine: closed -> open -> draining -> closed.

| state | what holds | leaves when |
|---|---|---|
| closed | no unfinished message of it in any lane | a live member claims it |
| open | frames flow, its position is committed on the interval | revoked, lost, stopped, died |
| draining | its fetcher dispatches no more of it | nothing unfinished is left, or by force |

One `Partitions` in the coordinator holds the machines of all partitions. It decides; the
coordinator carries out what `claim`, `release`, `died` and `closed` return. Time is not looked at
here: deadlines are given with `release` and `died` and asked for with `overdue`.

A *member* is one fetcher process, numbered engine-wide; a successor is another member. A *grant* is
the member's own number of an assignment; answers carry it, and the member drops those whose grant
no longer stands.
"""

import enum
from typing import NamedTuple

#: A partition that never was at a position, or of which nothing was committed.
UNKNOWN = -1


class State(enum.Enum):
    """Where a partition is in its life."""

    CLOSED = "closed"
    OPEN = "open"
    DRAINING = "draining"


class Claim(NamedTuple):
    """A member's wish to read a partition.

    `committed` is the group's committed position as read or, where there was none, as chosen and
    committed by the member at the claim. `reset` says that the member chose it since the old one
    lies outside the log: then only the broker's word counts.
    """

    member: int
    grant: int
    partition: int
    committed: int
    reset: bool = False


class Opened(NamedTuple):
    """Tell `member` to read `partition` from `position` under `epoch`."""

    member: int
    grant: int
    partition: int
    epoch: int
    position: int


class Closed(NamedTuple):
    """Tell `member`, which waits in its revoke callback, the final position of a partition."""

    member: int
    grant: int
    partition: int
    epoch: int
    position: int


class _Life:
    """One partition."""

    __slots__ = ("answer", "claims", "committed", "deadline_s", "epoch", "own", "owner", "state")

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.epoch = 0
        #: Member that reads it (open), or did (draining); 0 when closed.
        self.owner = 0
        #: Position this engine reached, if it ever had the partition.
        self.own = UNKNOWN
        #: Position this engine knows to be committed.
        self.committed = UNKNOWN
        self.claims: list[Claim] = []
        self.deadline_s = 0.0
        #: (member, grant) that waits for the final position.
        self.answer: tuple[int, int] | None = None


class Partitions:
    """All partitions of one engine. Epochs rise engine-wide, one per opening."""

    def __init__(self) -> None:
        """Start with every partition closed."""
        self._lives: dict[int, _Life] = {}
        self._epoch = 0

    def state(self, partition: int) -> State:
        """Return the state of a partition."""
        life = self._lives.get(partition)
        return State.CLOSED if life is None else life.state

    def claim(self, claim: Claim) -> Opened | None:
        """Open the partition for this member, or let the claim wait until it is closed."""
        life = self._lives.setdefault(claim.partition, _Life())
        life.claims = [other for other in life.claims if other.member != claim.member]
        life.claims.append(claim)
        return self._open_next(life)

    def release(
        self, member: int, partition: int, grant: int, deadline_s: float, *, answered: bool
    ) -> bool:
        """The member dispatches no more of the partition (revoked, lost, or out of range).

        Args:
            member: who says so.
            partition: which.
            grant: carried back by the answer.
            deadline_s: monotonic; after it the close is forced.
            answered: whether the member waits for a `Closed`; not when the partition was lost.

        Returns:
            Whether the partition is draining for this member now; if not, the member never had it
            open (or not any more) and nothing of it is in the lanes on its behalf.
        """
        life = self._lives.setdefault(partition, _Life())
        life.claims = [other for other in life.claims if other.member != member]
        if life.owner != member or life.state is State.CLOSED:
            return False
        life.state = State.DRAINING
        life.deadline_s = deadline_s
        life.answer = (member, grant) if answered else None
        return True

    def died(self, member: int, deadline_s: float) -> list[int]:
        """A member's process is dead: drain what it had, drop its claims.

        Returns:
            The partitions that drain now.
        """
        draining = []
        for partition, life in self._lives.items():
            life.claims = [claim for claim in life.claims if claim.member != member]
            if life.answer is not None and life.answer[0] == member:
                life.answer = None
            if life.owner == member and life.state is State.OPEN:
                life.state = State.DRAINING
                life.deadline_s = deadline_s
                draining.append(partition)
        return draining

    def closed(self, partition: int, position: int) -> list[Opened | Closed]:
        """A draining partition has nothing unfinished left; `position` is where it stands.

        Call it only on a pass begun after the release or the death was read.

        Returns:
            The answer to its last member, if that waits, and the opening for the next claim.
        """
        life = self._lives[partition]
        assert life.state is State.DRAINING, (partition, life.state)
        out: list[Opened | Closed] = []
        if life.answer is not None:
            out.append(Closed(*life.answer, partition, life.epoch, position))
        life.own = max(life.own, position)
        life.state = State.CLOSED
        life.owner = 0
        life.answer = None
        opened = self._open_next(life)
        if opened is not None:
            out.append(opened)
        return out

    def committed(self, partition: int, epoch: int, position: int) -> None:
        """The broker confirmed a commit made under `epoch`; older epochs are dropped."""
        life = self._lives.get(partition)
        if life is not None and life.epoch == epoch:
            life.committed = max(life.committed, position)

    def openings(self, member: int | None = None) -> list[tuple[int, int]]:
        """Return (partition, epoch) of all that are open (for `member`, or for any)."""
        return [
            (partition, life.epoch)
            for partition, life in self._lives.items()
            if life.state is State.OPEN and (member is None or life.owner == member)
        ]

    def draining(self) -> list[tuple[int, int, int]]:
        """Return (partition, epoch, last member) of all that drain."""
        return [
            (partition, life.epoch, life.owner)
            for partition, life in self._lives.items()
            if life.state is State.DRAINING
        ]

    def overdue(self, now_s: float) -> list[int]:
        """Return the draining partitions whose close must be forced."""
        return [
            partition
            for partition, life in self._lives.items()
            if life.state is State.DRAINING and now_s >= life.deadline_s
        ]

    def committed_position(self, partition: int) -> int:
        """Return what this engine knows to be committed, or `UNKNOWN`."""
        life = self._lives.get(partition)
        return UNKNOWN if life is None else life.committed

    def _open_next(self, life: _Life) -> Opened | None:
        """Open a closed partition for its newest claim."""
        if life.state is not State.CLOSED or not life.claims:
            return None
        claim = life.claims.pop()
        if claim.reset or claim.committed < life.committed:
            # Somebody set the group's offset back (or the log was replaced): that is the word.
            life.own = UNKNOWN
        life.committed = claim.committed
        position = max(claim.committed, life.own)
        life.own = position
        self._epoch += 1
        life.epoch = self._epoch
        life.owner = claim.member
        life.state = State.OPEN
        return Opened(claim.member, claim.grant, claim.partition, life.epoch, position)
