"""Restarts and blame against the plain reading of the table."""

from hypothesis import given
from hypothesis import strategies as st

from kqmp.core.backoff import delay_s
from kqmp.core.supervision import (
    GIVE_UP_AFTER,
    HEALTHY_S,
    MOST_DELAY_S,
    Attempts,
    Death,
    GiveUp,
    Ladder,
    Restart,
    Role,
)
from kqmp.errors import ExitCode

deaths = st.builds(
    Death,
    role=st.sampled_from(Role),
    exit_code=st.sampled_from([-9, -11, 0, 1, 2, 3, 4, 5, 6, 139]),
    was_ready=st.booleans(),
    ready_for_s=st.floats(0, 60),
    progressed=st.booleans(),
    ours=st.booleans(),
    first_start=st.booleans(),
    blamed=st.just(-1),
    attempts=st.just(0),
    max_attempts=st.just(3),
)


def is_fruitless(death):
    achieved = death.progressed or death.ready_for_s >= HEALTHY_S[death.role]
    no_broker = death.role is Role.FETCHER and death.exit_code == ExitCode.BROKER
    return not death.ours and not (death.was_ready and achieved) and not no_broker


def clears(death):
    achieved = death.progressed or death.ready_for_s >= HEALTHY_S[death.role]
    return not death.ours and death.was_ready and achieved


@given(st.lists(deaths, max_size=60))
def test_a_ladder_gives_up_only_for_a_reason_and_never_waits_too_long(history):
    ladder = Ladder()
    fruitless = 0
    last_delay_s = 0.0
    for death in history:
        action = ladder.after(death)
        if death.first_start and not death.ours and death.exit_code in (2, 3, 4, 5):
            assert action == GiveUp(ExitCode(death.exit_code))
            return
        if clears(death):
            fruitless, last_delay_s = 0, 0.0
            assert action == Restart(0.0)
        elif is_fruitless(death):
            fruitless += 1
            if fruitless == GIVE_UP_AFTER:
                assert action == GiveUp(ExitCode.GAVE_UP)
                return
            assert isinstance(action, Restart)
            assert last_delay_s <= action.delay_s <= MOST_DELAY_S
            assert action.delay_s > 0 or fruitless == 1
            last_delay_s = action.delay_s
        else:
            assert action == Restart(0.0 if death.ours else MOST_DELAY_S)


@given(st.lists(st.integers(0, 3), min_size=1))
def test_attempts_are_the_run_of_the_same_message_at_the_end(numbers):
    attempts = Attempts()
    for count in range(1, len(numbers) + 1):
        history = numbers[:count]
        run = next(
            (i for i, number in enumerate(reversed(history)) if number != history[-1]), count
        )
        assert attempts.blame(history[-1]) == run


@given(st.integers(0, 10**6), st.floats(0.001, 10), st.floats(0.001, 1000))
def test_the_delay_never_falls_and_is_bounded(attempt, first_s, most_s):
    delays = [delay_s(n, first_s, most_s) for n in (attempt, attempt + 1)]
    assert 0.0 <= delays[0] <= delays[1] <= most_s
    assert (delays[0] == 0.0) == (attempt == 0)
