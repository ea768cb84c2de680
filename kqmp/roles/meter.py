"""Calls a program's `metrics` function, on a thread that belongs to it alone."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from kqmp.obs.metrics import Metrics

#: So many intervals may wait for a function that is still at an earlier one.
WAITING_MAX: Final = 4
#: After the engine's end the function gets so long for what waits.
LAST_S: Final = 1.0

log = logging.getLogger("kqmp.metrics")


class Meter:
    """Hands metrics to a function. It may block or raise: neither reaches the engine."""

    def __init__(self, function: Callable[[Metrics], object]) -> None:
        """Start the thread."""
        self._function = function
        self._waiting: queue.Queue[Metrics | None] = queue.Queue(WAITING_MAX)
        self._thread = threading.Thread(target=self._run, name="kqmp-metrics", daemon=True)
        self._thread.start()

    def put(self, metrics: Metrics) -> None:
        """Have the function called; never waits."""
        try:
            self._waiting.put_nowait(metrics)
        except queue.Full:
            log.warning("metrics: the function still runs after %d intervals", WAITING_MAX)

    def close(self) -> None:
        """Let the function see what waits, but not for long."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        if threading.current_thread() is not self._thread:
            self._thread.join(LAST_S)

    def _run(self) -> None:
        while (metrics := self._waiting.get()) is not None:
            try:
                self._function(metrics)
            except BaseException:
                # A SystemExit too: it would end this thread, and say nothing.
                log.exception("metrics: the function failed")
