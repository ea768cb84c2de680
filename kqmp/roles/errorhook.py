"""Calls the user's `on_error(message, error)` in a processor: kq's error handler, with a say."""

import logging

from kqmp.handler import Handler, Outcome
from kqmp.message import Message
from kqmp.obs.logs import RateLimited


class ErrorHook:
    """A handler's `on_error`, if it has one. For the one thread of a processor."""

    def __init__(self, handler: Handler, logger: logging.Logger) -> None:
        """Take the handler; what goes wrong with its `on_error` is logged there."""
        self._hook = handler.on_error
        self._name = handler.name
        self._log = logger
        self._limit = RateLimited(logger)

    def __bool__(self) -> bool:
        """Whether there is an `on_error`."""
        return self._hook is not None

    def __call__(self, message: Message, error: Exception) -> tuple[Outcome | None, bool]:
        """Return its say, and whether it took note of the failure: it may have raised itself.

        What it raises or returns besides is logged and counts as None. What is no `Exception` ends
        the processor, as it does in a handler.
        """
        assert self._hook is not None
        try:
            said = self._hook(message, error)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - the user's function may raise anything
            if self._limit.admit("on_error failed"):
                self._log.exception("on_error of %s failed for %r", self._name, message)
            return None, False
        if said is None or isinstance(said, Outcome):
            return said, True
        if self._limit.admit("on_error returned what means nothing"):
            shown = f"{said!r:.60}"
            use = "use kqmp.DONE, kqmp.RETRY or None"
            self._log.error("on_error of %s returned %s: %s", self._name, shown, use)
        return None, True

    def close(self) -> None:
        """Report what the rate limit held back."""
        self._limit.report_all()
