"""Every exception kqmp raises on purpose, and the exit code each one ends a process with.

Imports only the standard library, so that any module may import it. All exceptions pickle (they
cross processes in a user's own pools) and none carries a password in its text.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of `kqmp run` and of the coordinator; the table stands in `kqmp run --help`.

    1 is left to Python, which exits with it on an uncaught exception, that is on a bug.
    """

    #: One line for `--help`.
    description: str

    def __new__(cls, value: int, description: str = "") -> ExitCode:
        """Make a member out of its number and its one-line description."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    CLEAN = 0, "stopped cleanly: drained, committed, left the group"
    CONFIG = 2, "the configuration, a flag or a librdkafka property is wrong"
    WORKER_START = 3, "a process of the engine could not be started, or its pages' port is in use"
    HANDLER_IMPORT = 4, "the handler could not be imported or cannot be used"
    BROKER = 5, "no broker answered, or the topic is missing, before the first assignment"
    GAVE_UP = 6, "gave up: processes died again and again, damaged memory, InstanceId in use twice"
    DRAIN_DEADLINE = 7, "DrainTimeout passed; what was unfinished will be repeated"
    UNDELIVERED = 8, "kqmp push: some messages were not delivered"
    INTERRUPTED = 130, "stopped at once by a second interrupt"


class KqmpError(Exception):
    """The base of all errors kqmp raises on purpose.

    `exit_code` is what a process that ends because of this error exits with.
    """

    exit_code: ExitCode = ExitCode.GAVE_UP


class ConfigError(KqmpError):
    """The configuration is wrong in one or more places.

    Each argument is one problem: a line that names the key as the user wrote it, the value (never
    a password) and what is allowed. `str()` gives one problem a line.
    """

    exit_code = ExitCode.CONFIG

    def __init__(self, *problems: str) -> None:
        """Keep `problems` in the order given; there is at least one."""
        super().__init__(*problems)

    @property
    def problems(self) -> tuple[str, ...]:
        """All problems, in the order the user should read them."""
        return self.args

    def __str__(self) -> str:
        """One problem a line."""
        return "\n".join(self.problems)


class HandlerImportError(KqmpError):
    """The handler cannot be imported, or is not of a form that can be called."""

    exit_code = ExitCode.HANDLER_IMPORT


class BrokerError(KqmpError):
    """The brokers do not answer or refuse us, or the topic is missing.

    Ends an engine only before its first assignment; afterwards no outage ends anything.
    """

    exit_code = ExitCode.BROKER


class WorkerStartError(KqmpError):
    """A process of the engine could not be started, or a port of its pages is in use."""

    exit_code = ExitCode.WORKER_START


class RingCorrupt(KqmpError):
    """A frame or log record in shared memory is damaged; the text names it and what was found."""


class InternalError(KqmpError):
    """A bug in kqmp: a state that its own rules forbid."""

    def __str__(self) -> str:
        """The text, with the request to report it."""
        return f"{super().__str__()} (this is a bug in kqmp, please report it)"


class EngineEnded(KqmpError):
    """An engine that a program started has ended in another way than by a clean stop.

    `exit_code` says how: it gave up (6), `DrainTimeout` passed (7), it was interrupted (130).
    """

    def __init__(self, text: str, exit_code: ExitCode = ExitCode.GAVE_UP) -> None:
        """Say why, and what `kqmp run` would have exited with."""
        super().__init__(text, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        """Say why."""
        return str(self.args[0])


class PushError(KqmpError):
    """A message cannot be pushed, or messages were lost: the base of all that a pusher raises.

    `index` is the place of the message among those given to `push_many`, from 0; else -1.
    """

    exit_code = ExitCode.UNDELIVERED
    index: int = -1


class DeliveryError(PushError):
    """The brokers did not take a message, whatever was tried.

    `code` is Kafka's name of the reason, such as `_MSG_TIMED_OUT` or `TOPIC_AUTHORIZATION_FAILED`.
    """

    def __init__(self, text: str, code: str = "") -> None:
        """Say what was not delivered and why."""
        super().__init__(text, code)
        self.code = code

    def __str__(self) -> str:
        """Say what was not delivered and why."""
        return str(self.args[0])


class MessageTooLarge(PushError):
    """One message is larger than the topic takes; the others are not concerned.

    `size` and `limit` are in bytes.
    """

    def __init__(self, text: str, size: int = 0, limit: int = 0) -> None:
        """Say how large it is, and what the limit is."""
        super().__init__(text, size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        """Say how large it is, and what the limit is."""
        return str(self.args[0])


class QueueFull(PushError):
    """There was no room for a message for as long as `max_block`: the brokers do not keep up."""
