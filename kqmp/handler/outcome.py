"""What an `on_error(message, error)` may say of a message whose handler raised."""

import enum
from typing import Final


class Outcome(enum.Enum):
    """What becomes of the message; an `on_error` that returns None leaves it to ForceCommit."""

    #: Done with, whatever ForceCommit says: counted as failed, passed over, committed.
    DONE = "done"
    #: The handler is called again after a back-off, whatever ForceCommit says; the lane waits.
    RETRY = "retry"


DONE: Final = Outcome.DONE
RETRY: Final = Outcome.RETRY
