"""What follows a death: one table of (role, how it died) -> action, with back-off.

Pure: the coordinator tells what it saw and gets an action. A death counts towards giving up only if
the process achieved nothing: it was never ready, or it died soon and without progress. What the
coordinator killed itself never counts, and no death counts because of a broker outage.

| a child that | is followed by |
|---|---|
| we killed or told to stop | a successor at once |
| is a fetcher whose successor would do harm, and says so | the end, with exit code 6 |
| says at its first start that another would fail too | the end, with its exit code |
| made progress, or was ready for long enough | a successor at once; its failures are forgotten |
| found no broker, later than at the first start | a successor after the longest wait |
| died of a message | a successor after a wait that doubles with each attempt at it |
| achieved nothing | a successor after a wait that doubles each time |

The last two end the engine when there are too many of them and nothing was achieved in between:
`SET_ASIDE_IN_A_ROW` messages, or `GIVE_UP_AFTER` deaths that blame none.
"""

import enum
from typing import Final, NamedTuple

from kqmp.core.backoff import delay_s
from kqmp.errors import ExitCode

#: Fruitless deaths in a row of one child before the engine gives up.
GIVE_UP_AFTER: Final = 8
#: Messages set aside in a row, with none handled in between, before it gives up: a few bad messages
#: side by side must not stop a service, a handler that always dies must not set aside a topic.
SET_ASIDE_IN_A_ROW: Final = 20
FIRST_DELAY_S: Final = 0.1
MOST_DELAY_S: Final = 5.0


class Role(enum.Enum):
    """The roles a coordinator supervises."""

    FETCHER = "fetcher"
    PROCESSOR = "processor"


#: A process that was ready for this long did achieve something. A fetcher joins the group first,
#: which alone takes some seconds, and an idle one shows no progress.
HEALTHY_S: Final = {Role.FETCHER: 30.0, Role.PROCESSOR: 2.0}


class Death(NamedTuple):
    """What the coordinator saw of a child that ended.

    Attributes:
        role: its role.
        exit_code: as of `waitstatus_to_exitcode`: negative = signal.
        was_ready: it had reported ready (processor: handler imported and set up).
        ready_for_s: how long it was ready.
        progressed: a processor's handler returned for, or passed over, at least one message: one
            that was only set aside or skipped does not count, or a handler that always dies would
            set aside a whole topic. A fetcher published at least one batch: an assignment does not
            count, or one that dies of its first batch would do so for ever.
        ours: the coordinator killed it or told it to stop.
        first_start: no processor of this index was ready yet, this one included; for a fetcher,
            the engine has had no assignment yet.
        blamed: number of the message that was in its hands, or -1.
        attempts: how often that message has killed its processor, this death included.
        max_attempts: as often as that it may (`MaxAttempts`).
    """

    role: Role
    exit_code: int
    was_ready: bool
    ready_for_s: float
    progressed: bool
    ours: bool
    first_start: bool
    blamed: int = -1
    attempts: int = 0
    max_attempts: int = 1


class Restart(NamedTuple):
    """Start a successor after `delay_s`."""

    delay_s: float


class GiveUp(NamedTuple):
    """End the engine with this exit code."""

    exit_code: ExitCode


class Ladder:
    """The failures in a row of one child (role and index)."""

    __slots__ = ("blamed", "failures")

    def __init__(self) -> None:
        """Start without failures."""
        #: Fruitless deaths that blame no message, in a row.
        self.failures = 0
        #: Fruitless deaths that blame one, in a row.
        self.blamed = 0

    def after(self, death: Death) -> Restart | GiveUp:
        """Decide what follows a death."""
        if death.ours:
            return Restart(0.0)
        if death.role is Role.FETCHER and death.exit_code == ExitCode.GAVE_UP:
            return GiveUp(ExitCode.GAVE_UP)
        if death.first_start and death.exit_code in _START_CODES:
            return GiveUp(_START_CODES[death.exit_code])
        if death.was_ready and (death.progressed or death.ready_for_s >= HEALTHY_S[death.role]):
            self.failures = self.blamed = 0
            return Restart(0.0)
        return self._after_fruitless(death)

    def _after_fruitless(self, death: Death) -> Restart | GiveUp:
        """Decide what follows a death that achieved nothing."""
        if death.blamed >= 0:
            self.blamed += 1
            hopeless = self.blamed >= SET_ASIDE_IN_A_ROW * death.max_attempts
            wait_s = delay_s(death.attempts - 1, FIRST_DELAY_S, MOST_DELAY_S)
        elif death.role is Role.FETCHER and death.exit_code == ExitCode.BROKER:
            hopeless, wait_s = False, MOST_DELAY_S
        else:
            self.failures += 1
            hopeless = self.failures >= GIVE_UP_AFTER
            wait_s = delay_s(self.failures - 1, FIRST_DELAY_S, MOST_DELAY_S)
        return GiveUp(ExitCode.GAVE_UP) if hopeless else Restart(wait_s)


#: Codes with which a child says at its first start that starting it again is useless.
_START_CODES: Final = {
    int(code): code
    for code in (ExitCode.CONFIG, ExitCode.WORKER_START, ExitCode.HANDLER_IMPORT, ExitCode.BROKER)
}


class Attempts:
    """How often messages of one lane killed their processor: decides when one is set aside."""

    __slots__ = ("count", "number")

    def __init__(self) -> None:
        """Start with nobody blamed."""
        self.number = -1
        self.count = 0

    def blame(self, number: int) -> int:
        """Count a death against message `number` and return its deaths so far."""
        self.count = self.count + 1 if number == self.number else 1
        self.number = number
        return self.count


def blamed_message(*, in_frame: bool, cursor: int, end_number: int, ours: bool) -> int:
    """Return the number of the message that was in a dead processor's hands, or -1.

    Busy means that its state word names a frame of which the cursor is not at the end, and that
    the cursor is below the published end; a death in import, setup or close, or by our own hand,
    blames no message.
    """
    return cursor if in_frame and cursor < end_number and not ours else -1
