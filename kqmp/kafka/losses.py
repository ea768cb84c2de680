"""Messages that were not delivered: counted, told to `on_error`, and remembered if nobody cares.

A failure is noted inside librdkafka's delivery report and told outside of it, since what runs in a
report must not poll, and whoever is told may push again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

import confluent_kafka as ck

from kqmp.errors import DeliveryError
from kqmp.kafka.payload import Headers
from kqmp.kafka.producer import Opened, as_message, delivery_error
from kqmp.message import Message

log = logging.getLogger("kqmp.pusher")

#: Told of a message that was lost; true if it has taken care of it.
OnError = Callable[[Message, DeliveryError], object]


class Losses:
    """What a producer could not deliver. Any thread.

    Attributes:
        failed: messages that were not delivered, those that somebody waited for included.
        lost: those of which nobody heard by an exception and nobody took care.
        first: why the first of the lost ones failed.
    """

    def __init__(self, opened: Opened, on_error: OnError | None) -> None:
        """Begin with none."""
        self.failed = 0
        self.lost = 0
        self.first: DeliveryError | None = None
        self._opened = opened
        self._on_error = on_error
        self._untold: deque[tuple[ck.KafkaError, ck.Message, Headers]] = deque()
        self._telling = threading.RLock()
        self._counting = threading.Lock()
        self._new = 0

    def __bool__(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._untold)

    def count(self) -> None:
        """Count a failed message, in its delivery report; whoever waits for it is told later."""
        with self._counting:
            self.failed += 1

    def note(self, error: ck.KafkaError, message: ck.Message, headers: Headers) -> None:
        """Note a failed message, already counted, of which nobody else will hear."""
        with self._counting:
            self._new += 1
        self._untold.append((error, message, headers))

    def explained(self, error: ck.KafkaError, message: ck.Message) -> DeliveryError:
        """Return the exception that tells who waits for a failed message."""
        return delivery_error(error, message, self._opened)

    def since_last(self) -> int:
        """Return how many were noted since the last call: those told by an exception are not."""
        with self._counting:
            new, self._new = self._new, 0
        return new

    def tell(self) -> None:
        """Tell `on_error` of what was noted; not to be called inside a delivery report."""
        with self._telling:
            while self._untold:
                error, message, headers = self._untold.popleft()
                reason = delivery_error(error, message, self._opened)
                self._tell_of(reason, as_message(message, headers))

    def _tell_of(self, reason: DeliveryError, message: Message) -> None:
        is_handled = False
        if self._on_error is None:
            log.error("%s", reason)
        else:
            try:
                is_handled = bool(self._on_error(message, reason))
            except Exception:
                log.exception("on_error failed; it was told: %s", reason)
        if not is_handled:
            with self._counting:
                self.lost += 1
                self.first = self.first or reason
