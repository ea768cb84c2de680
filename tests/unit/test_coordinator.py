"""How the coordinator ends: the first reason counts, and a Ctrl-C that comes twice is one."""

from typing import Any

import pytest

from kqmp.errors import ExitCode
from kqmp.roles.coordinator import Coordinator, Stage


def test_the_first_reason_to_end_is_the_one_that_is_told() -> None:
    coordinator = Coordinator.__new__(Coordinator)
    coordinator.stage = Stage.RUNNING
    coordinator._end(ExitCode.INTERRUPTED, "a further interrupt")
    coordinator._end(ExitCode.GAVE_UP, "processor 0.0 died of it")
    assert (coordinator.exit_code, coordinator.reason) == (
        ExitCode.INTERRUPTED,
        "a further interrupt",
    )


@pytest.mark.parametrize(
    ("parent", "interrupts", "code"),
    [
        # What a terminal sent us, after the Stop of a program that had the same Ctrl-C.
        (object(), [1], ExitCode.CLEAN),
        (object(), [1, 1], ExitCode.CLEAN),
        (object(), [1, 2], ExitCode.INTERRUPTED),
        (None, [1], ExitCode.INTERRUPTED),
    ],
)
def test_a_first_interrupt_while_draining(
    parent: Any, interrupts: list[int], code: ExitCode
) -> None:
    coordinator = Coordinator.__new__(Coordinator)
    coordinator.stage = Stage.DRAINING
    coordinator.exit_code = ExitCode.CLEAN
    coordinator._interrupts = 0
    coordinator._parent = parent
    for count in interrupts:
        coordinator._interrupted(count)
    assert coordinator.exit_code is code
