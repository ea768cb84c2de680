"""How the coordinator ends: the first reason counts."""

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
