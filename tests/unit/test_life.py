import math

from kqmp.core.life import DEAD_REMEMBERED, UNKNOWN, Claim, Closed, Opened, Partitions, State

P = 5
M, N = 1, 2


def opened(partitions, member=M, grant=1, committed=100):
    first = partitions.claim(Claim(member, grant, P, committed))
    assert first is not None
    return first


def test_a_partition_nobody_claimed_is_closed():
    partitions = Partitions()
    assert partitions.state(P) is State.CLOSED
    assert partitions.committed_position(P) == UNKNOWN
    assert not partitions.release(M, P, 1, 0.0, answered=True)
    assert partitions.openings() == partitions.draining() == partitions.overdue(math.inf) == []


def test_a_claim_opens_a_closed_partition_at_the_committed_position():
    partitions = Partitions()
    assert opened(partitions) == Opened(M, 1, P, epoch=1, position=100)
    assert partitions.state(P) is State.OPEN
    assert partitions.committed_position(P) == 100
    assert partitions.openings() == partitions.openings(M) == [(P, 1)]
    assert partitions.openings(N) == []


def test_a_release_drains_and_the_close_is_answered_with_the_final_position():
    partitions = Partitions()
    epoch = opened(partitions).epoch
    assert partitions.release(M, P, 8, 50.0, answered=True)
    assert partitions.state(P) is State.DRAINING
    assert partitions.draining() == [(P, epoch, M)]
    assert partitions.openings() == []
    assert (partitions.overdue(49.9), partitions.overdue(50.0)) == ([], [P])
    assert partitions.closed(P, 130) == [Closed(M, 8, P, epoch, 130)]
    assert partitions.state(P) is State.CLOSED


def test_a_lost_partition_is_not_answered():
    partitions = Partitions()
    opened(partitions)
    assert partitions.release(M, P, 8, 1.0, answered=False)
    assert partitions.closed(P, 130) == []


def test_a_claim_waits_until_the_partition_is_closed():
    partitions = Partitions()
    opened(partitions)
    assert partitions.claim(Claim(N, 4, P, 100)) is None
    partitions.release(M, P, 1, 50.0, answered=True)
    assert partitions.closed(P, 130) == [
        Closed(M, 1, P, 1, 130),
        Opened(N, 4, P, epoch=2, position=130),
    ]


def test_the_start_is_the_higher_of_committed_and_own_progress():
    partitions = Partitions()
    opened(partitions)
    partitions.release(M, P, 1, 9.0, answered=False)
    partitions.closed(P, 130)
    assert partitions.claim(Claim(M, 2, P, 110)).position == 130
    partitions.release(M, P, 2, 9.0, answered=False)
    partitions.closed(P, 140)
    assert partitions.claim(Claim(M, 3, P, 200)).position == 200  # another engine had it between


def test_a_committed_position_that_was_set_back_counts():
    partitions = Partitions()
    epoch = opened(partitions).epoch
    partitions.committed(P, epoch, 120)
    partitions.release(M, P, 1, 9.0, answered=False)
    partitions.closed(P, 130)
    assert partitions.claim(Claim(M, 2, P, 119)).position == 119
    assert partitions.committed_position(P) == 119


def test_a_chosen_position_counts_though_it_is_above_what_was_committed():
    """The topic was made anew, or its committed offset is gone: our own progress means nothing."""
    partitions = Partitions()
    opened(partitions)
    partitions.release(M, P, 1, 9.0, answered=False)
    partitions.closed(P, 130)
    assert partitions.claim(Claim(M, 2, P, 110, reset=True)).position == 110
    assert partitions.committed_position(P) == 110


def test_a_confirmation_that_comes_while_a_claim_waits_does_not_look_like_a_reset():
    """1. N reads 100. 2. M's commit of 120 is confirmed late. 3. M's drain ends at 130."""
    partitions = Partitions()
    epoch = opened(partitions).epoch
    partitions.release(M, P, 1, 9.0, answered=False)
    assert partitions.claim(Claim(N, 1, P, 100)) is None
    partitions.committed(P, epoch, 120)
    assert partitions.closed(P, 130) == [Opened(N, 1, P, 2, 130)]
    assert partitions.committed_position(P) == 120


def test_a_reset_that_a_later_opening_has_taken_in_is_not_taken_twice():
    """1. M is out of range and chooses 0. 2. N opens there and goes on to 40. 3. N goes."""
    partitions = Partitions()
    opened(partitions)
    partitions.release(M, P, 1, 9.0, answered=False)
    assert partitions.claim(Claim(M, 2, P, 0, reset=True)) is None
    assert partitions.claim(Claim(N, 1, P, 0)) is None
    assert partitions.closed(P, 130) == [Opened(N, 1, P, 2, 0)]
    partitions.died(N, 9.0)
    assert partitions.closed(P, 40) == [Opened(M, 2, P, 3, 40)]


def test_confirmations_of_older_epochs_are_dropped():
    partitions = Partitions()
    old = opened(partitions).epoch
    partitions.release(M, P, 1, 9.0, answered=False)
    partitions.closed(P, 130)
    partitions.committed(P, old, 130)  # closed, but nothing came after it: counts
    assert partitions.committed_position(P) == 130
    partitions.claim(Claim(M, 2, P, 50, reset=True))
    partitions.committed(P, old, 500)
    partitions.committed(99, old, 500)
    assert partitions.committed_position(P) == 50
    assert partitions.committed_position(99) == UNKNOWN


def test_what_is_known_to_be_committed_never_falls_within_an_epoch():
    partitions = Partitions()
    epoch = opened(partitions).epoch
    partitions.committed(P, epoch, 120)
    partitions.committed(P, epoch, 110)
    assert partitions.committed_position(P) == 120


def test_a_dead_member_drains_what_it_had_and_claims_no_more():
    partitions = Partitions()
    opened(partitions)
    assert partitions.claim(Claim(N, 4, P, 100)) is None
    assert partitions.died(N, 5.0) == []
    assert partitions.died(M, 6.0) == [P]
    assert (partitions.overdue(5.9), partitions.overdue(6.0)) == ([], [P])
    assert partitions.closed(P, 130) == []
    assert partitions.state(P) is State.CLOSED


def test_what_a_dead_member_had_sent_is_void_when_it_is_read_after_its_death():
    partitions = Partitions()
    opened(partitions)
    partitions.died(M, 6.0)
    assert partitions.claim(Claim(M, 2, P, 100)) is None
    assert not partitions.release(M, P, 1, 50.0, answered=True)
    assert partitions.closed(P, 130) == []
    assert partitions.claim(Claim(M, 3, P, 100)) is None
    assert partitions.claim(Claim(N, 1, P, 100)).position == 130


def test_only_so_many_dead_members_are_remembered():
    partitions = Partitions()
    for member in range(1000, 1000 + 2 * DEAD_REMEMBERED):
        partitions.died(member, 0.0)
    assert partitions.claim(Claim(1000 + DEAD_REMEMBERED, 1, P, 100)) is None
    assert len(partitions._dead) == DEAD_REMEMBERED


def test_a_member_that_dies_in_its_callback_gets_no_answer():
    partitions = Partitions()
    opened(partitions)
    partitions.release(M, P, 1, 50.0, answered=True)
    assert partitions.died(M, 60.0) == []
    assert partitions.overdue(50.0) == [P]  # the deadline it had comes first
    assert partitions.closed(P, 130) == []


def test_a_death_brings_a_later_deadline_forward():
    partitions = Partitions()
    opened(partitions)
    partitions.release(M, P, 1, 50.0, answered=True)
    partitions.died(M, 6.0)
    assert partitions.overdue(6.0) == [P]


def test_a_second_release_shortens_the_wait_and_has_nothing_to_commit():
    """Lost, assigned again while it drains, revoked: what was finished before the loss must not
    move the position, which another member may have committed since."""
    partitions = Partitions()
    opened(partitions)
    assert partitions.release(M, P, 1, 9.0, answered=False)  # lost
    assert partitions.claim(Claim(M, 2, P, 150)) is None  # another member came to 150 meanwhile
    assert partitions.release(M, P, 2, 2.0, answered=True)  # and revoked
    assert partitions.overdue(2.0) == [P]
    assert partitions.closed(P, 130) == [Closed(M, 2, P, 1, UNKNOWN)]


def test_a_release_drops_the_claim_that_waits():
    partitions = Partitions()
    opened(partitions)
    partitions.claim(Claim(N, 4, P, 100))
    assert not partitions.release(N, P, 5, 50.0, answered=True)
    partitions.release(M, P, 1, 50.0, answered=False)
    assert partitions.closed(P, 130) == []


def test_a_member_that_lost_a_partition_may_claim_it_while_it_drains():
    partitions = Partitions()
    opened(partitions)
    partitions.release(M, P, 1, 50.0, answered=False)
    assert partitions.claim(Claim(M, 2, P, 100)) is None
    assert partitions.claim(Claim(M, 3, P, 105)) is None
    assert partitions.closed(P, 130) == [Opened(M, 3, P, 2, 130)]


def test_out_of_range_opens_a_new_epoch_at_the_reset_position():
    partitions = Partitions()
    epoch = opened(partitions).epoch
    partitions.release(M, P, 1, 50.0, answered=False)
    partitions.claim(Claim(M, 1, P, 0, reset=True))
    partitions.committed(P, epoch, 110)
    assert partitions.closed(P, 130) == [Opened(M, 1, P, 2, 0)]
    assert partitions.committed_position(P) == 0


def test_a_new_claim_by_the_owner_ends_its_opening():
    """Else it would wait for ever for a release that the member thinks it need not send."""
    partitions = Partitions()
    opened(partitions)
    assert partitions.claim(Claim(M, 2, P, 100)) is None
    assert partitions.state(P) is State.DRAINING
    assert partitions.overdue(1e9) == []
    partitions.died(M, 6.0)
    assert partitions.overdue(6.0) == [P]


def test_the_newest_claim_wins_and_the_older_one_keeps_waiting():
    partitions = Partitions()
    opened(partitions)
    partitions.claim(Claim(N, 1, P, 100))
    partitions.claim(Claim(3, 1, P, 100))
    partitions.died(M, 6.0)
    assert partitions.closed(P, 130) == [Opened(3, 1, P, 2, 130)]
    partitions.died(3, 6.0)
    assert partitions.closed(P, 140) == [Opened(N, 1, P, 3, 140)]


def test_partitions_are_independent_and_share_the_count_of_epochs():
    partitions = Partitions()
    assert partitions.claim(Claim(M, 1, 0, 10)).epoch == 1
    assert partitions.claim(Claim(M, 1, 1, 20)).epoch == 2
    assert partitions.claim(Claim(N, 1, 2, 30)).epoch == 3
    assert sorted(partitions.died(M, 1.0)) == [0, 1]
    assert partitions.openings() == [(2, 3)]
    assert partitions.draining() == [(0, 1, M), (1, 2, M)]
