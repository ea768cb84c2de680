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
import math
from collections import deque
from typing import Final, NamedTuple

#: Session of a dynamic member: how long a dead fetcher's partitions wait for another member, and
#: how long we drain them at most. Heartbeats come from librdkafka's own thread: a busy handler or
#: GIL does not delay them.
SESSION_TIMEOUT_MS: Final = 10_000
#: A partition that never was at a position, or of which nothing was committed.
UNKNOWN: Final = -1
#: So many of the last dead members are remembered: what they had sent may still be read after
#: their death was seen, but only shortly.
DEAD_REMEMBERED: Final = 256


class State(enum.Enum):
    """Where a partition is in its life."""

    CLOSED = "closed"
    OPEN = "open"
    DRAINING = "draining"


class Claim(NamedTuple):
    """A member's wish to read a partition.

    `committed` is the group's committed position as read or, where there was none or it lay outside
    the log, as chosen and committed by the member at the claim. `reset` says that it was chosen:
    then only the broker's word counts, whatever this engine knew before.
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
    """Tell `member`, which waits in its revoke callback, the final position of a partition.

    It is `UNKNOWN` where there is nothing that this assignment of the member's may commit.
    """

    member: int
    grant: int
    partition: int
    epoch: int
    position: int


class _Waiting(NamedTuple):
    """A claim and what it meant when it came.

    It is judged at once: while it waits, commits of the last opening may still be confirmed, and
    then its `committed`, read before them, would look like one that somebody set back.
    """

    claim: Claim
    #: Somebody set the group's position back; the progress made before `epoch` ended is void.
    reset: bool
    epoch: int


class _Life:
    """One partition."""

    __slots__ = (
        "answer",
        "claims",
        "committed",
        "deadline_s",
        "epoch",
        "is_final",
        "own",
        "owner",
        "state",
    )

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.epoch = 0
        #: Member that reads it (open), or did (draining); 0 when closed.
        self.owner = 0
        #: Position this engine reached, if it ever had the partition.
        self.own = UNKNOWN
        #: Position this engine knows to be committed.
        self.committed = UNKNOWN
        #: At most one a member; the newest is the last.
        self.claims: list[_Waiting] = []
        self.deadline_s = 0.0
        #: (member, grant) that waits for the final position.
        self.answer: tuple[int, int] | None = None
        #: Whether that member may commit it.
        self.is_final = True

    def forget_claims(self, member: int) -> None:
        """Drop the claims of a member."""
        self.claims = [waiting for waiting in self.claims if waiting.claim.member != member]

    def drain(self, deadline_s: float, answer: tuple[int, int] | None) -> None:
        """Leave open; where it drains already, only the earlier deadline counts."""
        if self.state is State.DRAINING:
            deadline_s = min(deadline_s, self.deadline_s)
        self.state = State.DRAINING
        self.deadline_s = deadline_s
        self.answer = answer


class Partitions:
    """All partitions of one engine. Epochs rise engine-wide, one per opening."""

    def __init__(self) -> None:
        """Start with every partition closed."""
        self._lives: dict[int, _Life] = {}
        self._epoch = 0
        self._dead: deque[int] = deque(maxlen=DEAD_REMEMBERED)

    def state(self, partition: int) -> State:
        """Return the state of a partition."""
        life = self._lives.get(partition)
        return State.CLOSED if life is None else life.state

    def claim(self, claim: Claim) -> Opened | None:
        """Open the partition for this member, or let the claim wait until it is closed.

        A claim takes the place of the member's earlier one. One by the member that has the
        partition open ends that opening, as a release without answer or deadline would: its
        earlier grant stands no longer. A claim of a dead member is dropped.
        """
        if claim.member in self._dead:
            return None
        life = self._lives.setdefault(claim.partition, _Life())
        life.forget_claims(claim.member)
        reset = claim.reset or claim.committed < life.committed
        life.claims.append(_Waiting(claim, reset, life.epoch))
        if life.state is State.OPEN and life.owner == claim.member:
            life.drain(math.inf, None)
        return self._open_next(life)

    def release(
        self, member: int, partition: int, grant: int, deadline_s: float, *, answered: bool
    ) -> bool:
        """The member dispatches no more of the partition (revoked, lost, or out of range).

        Args:
            member: who says so.
            partition: which.
            grant: carried back by the answer.
            deadline_s: monotonic; after it the close is forced. Said twice, the earlier one counts.
            answered: whether the member waits for a `Closed`; not when the partition was lost.

        Returns:
            Whether the partition is draining for this member now; if not, the member never had it
            open (or not any more, or is dead) and nothing of it is in the lanes on its behalf.
        """
        life = self._lives.get(partition)
        if life is None or member in self._dead:
            return False
        life.forget_claims(member)
        if life.owner != member or life.state is State.CLOSED:
            return False
        # What drained before belongs to an earlier assignment, which was lost or out of range:
        # another member, or a choice, may have moved the group's position since.
        life.is_final = life.state is State.OPEN
        life.drain(deadline_s, (member, grant) if answered else None)
        return True

    def died(self, member: int, deadline_s: float) -> list[int]:
        """A member's process is dead: drain what it had, drop its claims.

        Where it had released a partition before, the earlier of the two deadlines counts.

        Returns:
            The partitions that drain now and did not before.
        """
        self._dead.append(member)
        draining = []
        for partition, life in self._lives.items():
            life.forget_claims(member)
            if life.owner == member and life.state is not State.CLOSED:
                if life.state is State.OPEN:
                    draining.append(partition)
                life.drain(deadline_s, None)
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
            final = position if life.is_final else UNKNOWN
            out.append(Closed(*life.answer, partition, life.epoch, final))
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
        claim, reset, epoch = life.claims.pop()
        if reset and epoch == life.epoch:
            # The broker's word counts. (Where another opening came between, it has begun at it.)
            life.own = UNKNOWN
            life.committed = claim.committed
        life.committed = max(life.committed, claim.committed)
        life.own = max(life.own, life.committed)
        self._epoch += 1
        life.epoch = self._epoch
        life.owner = claim.member
        life.state = State.OPEN
        return Opened(claim.member, claim.grant, claim.partition, life.epoch, life.own)
