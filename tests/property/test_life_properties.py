"""The life of partitions against a naive account of who has what and what the broker knows."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kqmp.core.life import UNKNOWN, Claim, Closed, Opened, Partitions, State

PARTITIONS = 2
partitions = st.integers(0, PARTITIONS - 1)
#: Differences to a position: mostly small ones, both ways.
steps = st.integers(-4, 8)


@dataclass
class Waiting:
    """A claim, and whether it meant a reset when it came."""

    claim: Claim
    reset: bool
    openings_before: int


@dataclass
class Account:
    """One partition as the rules of the design tell it."""

    holder: int | None = None
    is_draining: bool = False
    epoch: int = 0
    openings: int = 0
    position: int = 0  # how far the lanes have come
    own: int = UNKNOWN
    committed: int = UNKNOWN
    waiting: list[Waiting] = field(default_factory=list)
    answer: tuple[int, int] | None = None
    is_final: bool = True
    deadline_s: float = 0.0

    def forget(self, member):
        self.waiting = [w for w in self.waiting if w.claim.member != member]


class LifeMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.real = Partitions()
        self.accounts = [Account() for _ in range(PARTITIONS)]
        self.alive = {1, 2}
        self.dead = set()
        self.epochs = []
        self.grant = 0
        self.now_s = 100.0

    # What the model expects of an opening.

    def check_opening(self, opened):
        account = self.accounts[opened.partition]
        assert account.holder is None, "two owners"
        assert opened.member in self.alive
        assert opened.epoch > max(self.epochs, default=0)
        waiting = account.waiting.pop()
        assert (opened.member, opened.grant) == (waiting.claim.member, waiting.claim.grant)
        broker = waiting.claim.committed
        if waiting.reset and waiting.openings_before == account.openings:
            account.committed = account.own = broker
            assert opened.position == broker
        else:
            assert opened.position == max(broker, account.own, account.committed)
            account.committed = max(account.committed, broker)
        self.epochs.append(opened.epoch)
        account.openings += 1
        account.holder, account.is_draining = opened.member, False
        account.epoch, account.position = opened.epoch, opened.position

    def drain(self, account, deadline_s, answer):
        account.deadline_s = (
            min(account.deadline_s, deadline_s) if account.is_draining else deadline_s
        )
        account.is_draining = True
        account.answer = answer

    # What members do.

    @rule()
    def join(self):
        self.alive.add(max(self.alive | self.dead) + 1)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), partition=partitions, step=steps, reset=st.booleans())
    def claim(self, data, partition, step, reset):
        account = self.accounts[partition]
        member = data.draw(st.sampled_from(sorted(self.alive)))
        self.grant += 1
        known = max(account.committed, 0)
        claim = Claim(member, self.grant, partition, max(0, known + step), reset)
        account.forget(member)
        is_reset = reset or claim.committed < account.committed
        account.waiting.append(Waiting(claim, is_reset, account.openings))
        if account.holder == member and not account.is_draining:
            self.drain(account, float("inf"), None)
        opened = self.real.claim(claim)
        assert (opened is not None) == (account.holder is None)
        if opened is not None:
            self.check_opening(opened)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), partition=partitions, answered=st.booleans(), wait_s=st.integers(0, 20))
    def release(self, data, partition, answered, wait_s):
        account = self.accounts[partition]
        member = data.draw(st.sampled_from(sorted(self.alive)))
        self.grant += 1
        account.forget(member)
        is_holder = account.holder == member
        was_open = is_holder and not account.is_draining
        deadline_s = self.now_s + wait_s
        if is_holder:
            self.drain(account, deadline_s, (member, self.grant) if answered else None)
            # What drains already was lost before: its position is not this assignment's to commit.
            account.is_final = was_open
        assert is_holder == self.real.release(
            member, partition, self.grant, deadline_s, answered=answered
        )

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data(), wait_s=st.integers(0, 20))
    def die(self, data, wait_s):
        member = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.discard(member)
        self.dead.add(member)
        expected = []
        for number, account in enumerate(self.accounts):
            account.forget(member)
            if account.holder == member:
                if not account.is_draining:
                    expected.append(number)
                self.drain(account, self.now_s + wait_s, None)
        assert sorted(self.real.died(member, self.now_s + wait_s)) == expected

    @precondition(lambda self: self.dead)
    @rule(data=st.data(), partition=partitions, reset=st.booleans())
    def hear_the_dead(self, data, partition, reset):
        """What a dead member had sent is read after its death."""
        member = data.draw(st.sampled_from(sorted(self.dead)))
        assert self.real.claim(Claim(member, 10**6, partition, 0, reset)) is None
        assert not self.real.release(member, partition, 10**6, 0.0, answered=True)

    # What happens in the lanes and at the broker.

    @rule(partition=partitions, count=st.integers(0, 9))
    def handle(self, partition, count):
        account = self.accounts[partition]
        if account.holder is not None:
            account.position += count

    @rule(partition=partitions, behind=st.integers(0, 5))
    def confirm(self, partition, behind):
        """The broker confirms a commit of the last opening, before or after its close."""
        account = self.accounts[partition]
        if account.openings:
            position = max(0, account.position - behind)
            self.real.committed(partition, account.epoch, position)
            account.committed = max(account.committed, position)

    @rule(data=st.data(), partition=partitions)
    def confirm_late(self, data, partition):
        """A confirmation for an older opening, of any partition, changes nothing."""
        current = {account.epoch for account in self.accounts}
        old = [epoch for epoch in self.epochs if epoch not in current]
        if old:
            self.real.committed(partition, data.draw(st.sampled_from(old)), 10**9)

    @precondition(lambda self: any(account.is_draining for account in self.accounts))
    @rule(data=st.data())
    def close(self, data):
        draining = [n for n, account in enumerate(self.accounts) if account.is_draining]
        partition = data.draw(st.sampled_from(draining))
        account = self.accounts[partition]
        out = self.real.closed(partition, account.position)
        if account.answer is not None:
            closed, *out = out
            final = account.position if account.is_final else UNKNOWN
            assert closed == Closed(*account.answer, partition, account.epoch, final)
        account.own = max(account.own, account.position)
        account.holder, account.is_draining, account.answer = None, False, None
        assert len(out) == (1 if account.waiting else 0)
        for opened in out:
            assert isinstance(opened, Opened)
            self.check_opening(opened)

    @rule(after_s=st.integers(0, 30))
    def wait(self, after_s):
        self.now_s += after_s

    # What always holds.

    @invariant()
    def states_are_those_of_the_account(self):
        openings, draining, overdue = [], [], []
        for number, account in enumerate(self.accounts):
            if account.holder is None:
                expected = State.CLOSED
            elif account.is_draining:
                expected = State.DRAINING
                draining.append((number, account.epoch, account.holder))
                if self.now_s >= account.deadline_s:
                    overdue.append(number)
            else:
                expected = State.OPEN
                openings.append((number, account.epoch))
            assert self.real.state(number) is expected
            assert self.real.committed_position(number) == account.committed
        assert sorted(self.real.openings()) == openings
        assert sorted(self.real.draining()) == draining
        assert sorted(self.real.overdue(self.now_s)) == overdue

    @invariant()
    def no_claim_waits_for_a_closed_partition(self):
        for account in self.accounts:
            assert account.holder is not None or not account.waiting
            assert all(waiting.claim.member in self.alive for waiting in account.waiting)


TestLife = LifeMachine.TestCase
TestLife.settings = settings(max_examples=120, stateful_step_count=40)
