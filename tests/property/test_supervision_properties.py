"""Restarts and blame against the plain reading of the table."""

from hypothesis import given
from hypothesis import strategies as st

from kqmp.core.backoff import delay_s
from kqmp.core.supervision import (
    FIRST_DELAY_S,
    GIVE_UP_AFTER,
    HEALTHY_S,
    MOST_DELAY_S,
    SET_ASIDE_IN_A_ROW,
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


def achieved(death):
    return death.was_ready and (death.progressed or death.ready_for_s >= HEALTHY_S[death.role])


def no_broker(death):
    return death.role is Role.FETCHER and death.exit_code == ExitCode.BROKER


@given(st.lists(deaths, max_size=100))
def test_a_ladder_gives_up_only_for_a_reason_and_never_waits_too_long(history):
    ladder = Ladder()
    blamed, fruitless = 0, []
    for death in history:
        action = ladder.after(death)
        if death.ours:
            assert action == Restart(0.0)
        elif death.role is Role.FETCHER and death.exit_code == ExitCode.GAVE_UP:
            assert action == GiveUp(ExitCode.GAVE_UP)
            return
        elif death.first_start and death.exit_code in (2, 3, 4, 5):
            assert action == GiveUp(ExitCode(death.exit_code))
            return
        elif achieved(death):
            blamed, fruitless = 0, []
            assert action == Restart(0.0)
        elif death.blamed >= 0:
            blamed += 1
            if blamed == SET_ASIDE_IN_A_ROW * death.max_attempts:
                assert action == GiveUp(ExitCode.GAVE_UP)
                return
            assert action == Restart(delay_s(death.attempts - 1, FIRST_DELAY_S, MOST_DELAY_S))
        elif no_broker(death):
            assert action == Restart(MOST_DELAY_S)
        elif len(fruitless) == GIVE_UP_AFTER - 1:
            assert action == GiveUp(ExitCode.GAVE_UP)
            return
        else:
            fruitless.append(action.delay_s)
            assert fruitless == sorted(fruitless)
            assert fruitless[0] == 0.0
            assert fruitless[-1] <= MOST_DELAY_S


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
