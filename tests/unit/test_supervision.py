import pytest

from kqmp.core.supervision import (
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
    blamed_message,
)
from kqmp.errors import ExitCode

FRUITLESS = Death(
    role=Role.PROCESSOR,
    exit_code=-9,
    was_ready=True,
    ready_for_s=0.1,
    progressed=False,
    ours=False,
    first_start=False,
)
AT_START = FRUITLESS._replace(was_ready=False, first_start=True, ready_for_s=0.0)


def test_fruitless_deaths_wait_longer_and_longer_and_then_end_the_engine():
    ladder = Ladder()
    actions = [ladder.after(FRUITLESS) for _ in range(GIVE_UP_AFTER)]
    delays = [action.delay_s for action in actions[:-1]]
    assert delays == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    assert actions[-1] == GiveUp(ExitCode.GAVE_UP)


@pytest.mark.parametrize("role", list(Role))
def test_progress_or_a_long_life_starts_the_count_anew(role):
    for good in (
        FRUITLESS._replace(role=role, progressed=True),
        FRUITLESS._replace(role=role, ready_for_s=HEALTHY_S[role]),
    ):
        ladder = Ladder()
        for _ in range(GIVE_UP_AFTER - 1):
            ladder.after(FRUITLESS._replace(role=role))
        assert ladder.after(good) == Restart(0.0)
        assert ladder.failures == 0
        assert isinstance(ladder.after(FRUITLESS._replace(role=role)), Restart)


def test_a_fetcher_has_achieved_nothing_before_it_can_have_joined_the_group():
    short = FRUITLESS._replace(role=Role.FETCHER, ready_for_s=5.0)
    ladder = Ladder()
    assert [ladder.after(short) for _ in range(GIVE_UP_AFTER)][-1] == GiveUp(ExitCode.GAVE_UP)


def poison(number, attempts):
    return FRUITLESS._replace(blamed=number, attempts=attempts, max_attempts=3)


def test_neighbouring_poison_messages_are_set_aside_one_by_one():
    ladder = Ladder()
    deaths = [poison(number, n) for number in range(SET_ASIDE_IN_A_ROW - 1) for n in (1, 2, 3)]
    assert all(isinstance(ladder.after(death), Restart) for death in deaths)
    assert [ladder.after(poison(99, n)).delay_s for n in (1, 2)] == [0.0, 0.1]
    assert ladder.failures == 0


def test_a_handler_that_dies_on_every_message_does_not_set_aside_a_topic():
    ladder = Ladder()
    deaths = [poison(number, n) for number in range(SET_ASIDE_IN_A_ROW) for n in (1, 2, 3)]
    assert [ladder.after(death) for death in deaths][-1] == GiveUp(ExitCode.GAVE_UP)


def test_a_handled_message_between_poison_ones_clears_the_row():
    ladder = Ladder()
    for number in range(5 * SET_ASIDE_IN_A_ROW):
        for attempt in (1, 2, 3):
            death = poison(number, attempt)._replace(progressed=attempt == 1)
            assert isinstance(ladder.after(death), Restart)


def test_progress_without_having_been_ready_is_none():
    ladder = Ladder()
    ladder.after(FRUITLESS._replace(was_ready=False, progressed=True, ready_for_s=99.0))
    assert ladder.failures == 1


def test_what_we_killed_ourselves_neither_counts_nor_clears():
    ladder = Ladder()
    ladder.after(FRUITLESS)
    for _ in range(3 * GIVE_UP_AFTER):
        assert ladder.after(FRUITLESS._replace(ours=True, progressed=True)) == Restart(0.0)
    assert ladder.failures == 1


@pytest.mark.parametrize(
    "code",
    [ExitCode.CONFIG, ExitCode.WORKER_START, ExitCode.HANDLER_IMPORT, ExitCode.BROKER],
)
@pytest.mark.parametrize("role", list(Role))
def test_a_first_start_that_says_why_ends_the_engine_with_that_code(role, code):
    assert Ladder().after(AT_START._replace(role=role, exit_code=int(code))) == GiveUp(code)


def test_a_fetcher_may_say_so_after_it_was_ready_but_before_any_assignment():
    death = AT_START._replace(
        role=Role.FETCHER, exit_code=int(ExitCode.BROKER), was_ready=True, ready_for_s=30.0
    )
    assert Ladder().after(death) == GiveUp(ExitCode.BROKER)


@pytest.mark.parametrize("code", [-9, -11, 1, 6, 139])
def test_any_other_death_at_the_first_start_is_tried_again(code):
    assert Ladder().after(AT_START._replace(exit_code=code)) == Restart(0.0)


def test_a_handler_that_can_no_longer_be_imported_is_tried_again():
    death = FRUITLESS._replace(was_ready=False, exit_code=int(ExitCode.HANDLER_IMPORT))
    ladder = Ladder()
    actions = [ladder.after(death) for _ in range(GIVE_UP_AFTER)]
    assert isinstance(actions[0], Restart)
    assert actions[-1] == GiveUp(ExitCode.GAVE_UP)


def test_no_broker_after_the_first_assignment_never_counts():
    death = FRUITLESS._replace(role=Role.FETCHER, exit_code=int(ExitCode.BROKER))
    ladder = Ladder()
    for _ in range(10 * GIVE_UP_AFTER):
        assert ladder.after(death) == Restart(MOST_DELAY_S)
    assert ladder.failures == 0


def test_a_fetcher_that_says_its_successor_would_do_harm_ends_the_engine():
    after_work = FRUITLESS._replace(role=Role.FETCHER, exit_code=6, progressed=True)
    assert Ladder().after(after_work) == GiveUp(ExitCode.GAVE_UP)
    # A handler may exit with any code it likes.
    assert Ladder().after(after_work._replace(role=Role.PROCESSOR)) == Restart(0.0)


def test_attempts_count_deaths_of_one_message_in_a_row():
    attempts = Attempts()
    assert [attempts.blame(7), attempts.blame(7), attempts.blame(7)] == [1, 2, 3]
    assert attempts.blame(8) == 1
    assert attempts.blame(7) == 1
    assert (attempts.number, attempts.count) == (7, 1)


@pytest.mark.parametrize(
    ("seen", "blamed"),
    [
        ({}, 7),
        ({"in_frame": False}, -1),  # import, setup, waiting, close
        ({"end_number": 7}, -1),  # nothing left to take
        ({"ours": True}, -1),
    ],
)
def test_blame_falls_on_the_message_at_the_cursor_of_a_busy_processor(seen, blamed):
    as_seen = {"in_frame": True, "cursor": 7, "end_number": 8, "ours": False}
    assert blamed_message(**{**as_seen, **seen}) == blamed
