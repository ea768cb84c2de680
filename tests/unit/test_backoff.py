import pytest

from kqmp.core.backoff import delay_s


def test_no_failure_means_no_wait():
    assert delay_s(0, 0.1, 5.0) == 0.0


def test_the_wait_doubles_up_to_its_bound():
    assert [delay_s(n, 0.1, 5.0) for n in range(1, 9)] == pytest.approx(
        [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    )


def test_the_bound_holds_for_the_first_wait_and_for_any_number_of_failures():
    assert delay_s(1, 9.0, 5.0) == 5.0
    assert delay_s(100_000, 0.1, 5.0) == 5.0
