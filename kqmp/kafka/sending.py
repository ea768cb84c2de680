"""What serves a pusher's producer: deliveries are heard of, failures told, waiters woken.

Every message ends in one delivery report, a call of Python inside `poll`. Who polls? A thread that
pushes often does so by itself, now and then (`serve`), since another thread would have to ask for
the interpreter's lock once a report. Where nobody does, the serving thread polls: each `TICK_S`
while anything is on its way, never while nothing is. A success costs nothing but the call: what was
delivered is what was taken less what failed and what waits.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, islice, repeat
from operator import length_hint
from typing import Any, Final, NamedTuple

import confluent_kafka as ck

from kqmp.config import PusherConf
from kqmp.errors import MessageTooLarge, PushError, QueueFull
from kqmp.kafka.losses import Losses, OnError
from kqmp.kafka.payload import Headers, Key, encoded, size_of, unpushable
from kqmp.kafka.producer import (
    DeliveryReport,
    KafkaError,
    KafkaException,
    Reports,
    open_producer,
)

log = logging.getLogger("kqmp.pusher")

#: Longest a delivery report waits while nobody pushes.
TICK_S: Final = 0.02
#: While nothing is on its way: how often librdkafka's log is looked at.
IDLE_S: Final = 1.0
#: How long librdkafka is told to send at once before it is looked who still waits for it.
HURRY_S: Final = 0.05
#: How long it is waited where somebody waits, though nothing is on its way: he will see it soon.
SETTLE_S: Final = 0.001
#: A thread that pushes hears of deliveries once in so many messages; a power of two, less one.
SERVE_MASK: Final = 63
#: So many are pushed between two looks at what was delivered where many are pushed at once.
CHUNK_MESSAGES: Final = 256
#: What librdkafka takes as it is.
_PLAIN: Final = {bytes, str}
#: How long one wait for room in a full queue lasts.
ROOM_S: Final = 0.01
#: How long librdkafka gets to give back what was not delivered when it is closed.
PURGE_S: Final = 5.0


class PusherStatistics(NamedTuple):
    """What a pusher has done so far in this process."""

    #: Messages taken.
    pushed: int
    #: Of these: acknowledged by all replicas in sync; not delivered, for good; still on their way.
    delivered: int
    failed: int
    waiting: int


class Sender:
    """A producer of one topic and the thread that serves it. `close` it.

    Attributes:
        topic: where all messages go.
        produce: the producer's `produce(topic, value, key, ...)`: never blocks; raises what
            `refused` explains. To be followed by `next(numbers)`.
        numbers: counts what was taken; safe from several threads.
        losses: what was not delivered.
        is_idle: whether the serving thread sleeps and must be woken by `wake`.
    """

    def __init__(self, conf: PusherConf, reports: Reports, on_error: OnError | None) -> None:
        """Ask the brokers for the topic and start the thread.

        Raises:
            ConfigError: librdkafka refuses a property.
            BrokerError: no broker answers or they refuse us, or the topic is missing.
        """
        self._conf = conf
        self._opened = open_producer(conf, reports, self._reported)
        self.losses = Losses(self._opened, on_error)
        self._producer = self._opened.producer
        # Typed loosely: the stubs know no str in the pairs of headers.
        self.produce: Callable[..., None] = self._producer.produce
        self.topic = conf.topic
        self.numbers = count()
        self.is_idle = False
        self._was_served = False
        #: No more messages are taken; then also: nobody serves any more.
        self._is_refusing = False
        self._is_closing = False
        self._wake = threading.Event()
        #: Who waits for the delivery of one message: then none waits for others to join it.
        self._waiters: set[object] = set()
        self._counting = threading.Lock()
        self._looks = 0
        #: Taken by `push_all`, which counts what it did at once.
        self._taken_at_once = 0
        self._thread = threading.Thread(target=self._serve_all, name="kqmp-pusher", daemon=True)
        self._thread.start()

    @property
    def taken(self) -> int:
        """Messages that librdkafka has taken so far."""
        with self._counting:
            # The count can only be read by counting on.
            self._looks += 1
            return next(self.numbers) - self._looks + 1 + self._taken_at_once

    def statistics(self) -> PusherStatistics:
        """Return what was done so far; after `close` nothing waits."""
        # Before the count of what waits, lest something be in neither.
        taken, failed = self.taken, self.losses.failed
        waiting = 0 if self._is_closing else min(len(self._producer), taken - failed)
        return PusherStatistics(taken, taken - failed - waiting, failed, waiting)

    def serve(self) -> None:
        """Hear of what was delivered; never blocks. For threads that push often."""
        self._was_served = True
        if not self._is_refusing:
            self._producer.poll(0)

    def wake(self) -> None:
        """Wake the serving thread."""
        self.is_idle = False
        self._wake.set()

    def push_all(self, values: Iterable[object], key: Key) -> None:
        """Push many values, in a loop of C as long as nothing is in the way.

        Where one is wrong, or `values` itself fails, those before it are on their way.

        Raises:
            PushError: as `insist`, with `index`.
            TypeError: a value or the key is of a wrong type.
        """
        rest = iter(values)
        done = 0
        chunk: list[Any] = [None]
        try:
            while chunk:
                chunk = []
                try:
                    _fill(chunk, rest)
                finally:
                    self._push_chunk(chunk, key, done)
                done += len(chunk)
                self.serve()
        finally:
            self.wake()

    def _push_chunk(self, chunk: list[Any], key: Key, done: int) -> None:
        if chunk and self._is_refusing:
            raise self._closed(done)
        rest = iter(chunk)
        before = 0
        while before < len(chunk):
            try:
                deque(map(self.produce, repeat(self.topic), rest, repeat(key)), 0)
            except Exception as error:  # noqa: BLE001 - insist raises what it cannot mend
                at = len(chunk) - length_hint(rest) - 1
                self._took(at - before)
                try:
                    self.insist(error, chunk[at], key)
                except PushError as why:
                    why.index = done + at
                    raise
                self._took(1)
                before = at + 1
            else:
                self._took(len(chunk) - before)
                return

    def _took(self, count: int) -> None:
        with self._counting:
            self._taken_at_once += count

    def insist(
        self, error: Exception, value: str | bytes | None, key: Key, how: tuple[Any, ...] = ()
    ) -> None:
        """Do what `produce` would not: wait until the queue has room, or say what is wrong.

        While it waits librdkafka sends at once.

        Args:
            error: what `produce` raised.
            value: the message's value.
            key: its key.
            how: the arguments of `produce` behind these.

        Raises:
            QueueFull: there was no room for as long as MaxBlock.
            PushError: it cannot be pushed at all.
            TypeError: key or headers are of a wrong type.
        """
        deadline_s = time.monotonic() + self._conf.max_block_s
        while isinstance(error, BufferError):
            self.check_open()
            if time.monotonic() > deadline_s:
                raise self.queue_full() from None
            self._was_served = True
            self._producer.flush(ROOM_S)
            try:
                self.produce(self._conf.topic, value, key, *how)
            except Exception as again:  # noqa: BLE001 - explained below
                error = again
            else:
                return
        raise self.refused(error, value, key, how[-1] if how else None) from None

    def check_open(self) -> None:
        """Raise `PushError` where `close` has begun: it would wait for ever on who pushes on."""
        if self._is_refusing:
            raise self._closed()

    def _closed(self, index: int = -1) -> PushError:
        error = PushError(f"topic {self._conf.topic}: the pusher is closed")
        error.index = index
        return error

    def queue_full(self) -> QueueFull:
        """Return the error for a queue that stayed full."""
        known = self._opened.errors
        why = f" ({known[-1].str()})" if known else ""
        waiting = self.statistics().waiting
        return QueueFull(
            f"topic {self._conf.topic}: the queue is full, {waiting:,} messages wait to"
            f" be delivered, and there was no room for another in {self._conf.max_block_s:g} s"
            f" (MaxBlock){why}"
        )

    def refused(
        self, error: Exception, value: str | bytes | None, key: Key, headers: Headers
    ) -> Exception:
        """Return what to raise where `produce` raised `error`."""
        topic = self._conf.topic
        if said := unpushable(error, value, key):
            return TypeError(said) if isinstance(error, TypeError) else PushError(said)
        if not isinstance(error, KafkaException):
            return self._closed() if self._is_refusing else error
        reason = error.args[0]
        if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            size, limit = size_of(value, key, headers), self._opened.limit
            return MessageTooLarge(
                f"topic {topic}: a message of {size:,} bytes (key, value and headers) is too large:"
                f" the limit is {limit:,} bytes, its frame included ({self._opened.limit_name})",
                size,
                limit,
            )
        if reason.fatal():
            return PushError(
                f"topic {topic}: librdkafka cannot go on without a risk of loss or repetition:"
                f" {reason.str()}; close this pusher and make a new one"
            )
        return PushError(f"topic {topic}: {reason.str()}")

    def wait_until(self, done: threading.Event) -> None:
        """Wait for a delivery report; on the serving thread itself too."""
        while threading.current_thread() is self._thread and not done.is_set():
            self._producer.flush(HURRY_S)
        done.wait()

    def expect(self, waiter: object) -> None:
        """Have everything sent at once while somebody waits; called before `produce`."""
        self._waiters.add(waiter)

    def settled(self, waiter: object) -> None:
        """Somebody has what he waited for, or does not wait any more."""
        self._waiters.discard(waiter)

    def hand_over(self, error: ck.KafkaError, message: ck.Message, headers: Headers) -> None:
        """Take a failed message, already counted, of which nobody else will hear."""
        self.losses.note(error, message, headers)
        self.wake()

    def report_with(self, headers: Headers) -> DeliveryReport:
        """Return the delivery report of a message with headers, which librdkafka forgets."""
        return partial(self._reported, headers=headers)

    def flush(self, timeout_s: float | None) -> int:
        """Have everything sent at once, and wait until it is delivered or has failed.

        Args:
            timeout_s: the longest to wait; None: until librdkafka has given up on the last one.

        Returns:
            Messages that still wait, and those that failed since the last call.
        """
        left = self._producer.flush(-1 if timeout_s is None else max(0.0, timeout_s))
        self.losses.tell()
        # What is left may be librdkafka's own events, which are no messages.
        waiting = self.statistics().waiting if left else 0
        return waiting + self.losses.since_last()

    def check_closable(self) -> None:
        """Raise `RuntimeError` on the serving thread, inside `on_error`: it cannot end itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("close() cannot be called inside on_error")

    def close(self, timeout_s: float) -> None:
        """Refuse more, flush, give up what is not delivered by then, end thread and producer.

        Bounded by the timeout and a few times `PURGE_S`. Interrupted, it can be called again.

        Raises:
            RuntimeError: as `check_closable`.
        """
        self.check_closable()
        self._is_refusing = True
        try:
            self._producer.flush(max(0.0, timeout_s))
            self._give_up_rest()
            self._is_closing = True
            self.wake()
            self._thread.join()
            # What a thread had in hand while it was flushed; the producer's close has no limit.
            self._give_up_rest()
            self._producer.close()
        except BaseException:
            self._is_refusing = False
            raise
        self.losses.tell()

    def _give_up_rest(self) -> None:
        if len(self._producer):
            self._producer.purge()
            self._producer.flush(PURGE_S)

    def _reported(
        self, error: ck.KafkaError | None, message: ck.Message, headers: Headers = None
    ) -> None:
        """Hear of one message, inside `poll`."""
        if error is not None:
            self.losses.count()
            self.hand_over(error, message, headers)

    def _serve_all(self) -> None:
        """Serve the producer until it is closed; the body of the thread."""
        while not self._is_closing:
            try:
                self._serve_once()
            except Exception:
                log.exception("serving the producer failed; it goes on")
                self._wake.wait(IDLE_S)

    def _serve_once(self) -> None:
        if self.losses:
            self.losses.tell()
        if self._waiters:
            if not self._producer.flush(HURRY_S):
                self._wake.wait(SETTLE_S)
        elif len(self._producer):
            if not self._was_served:
                self._producer.poll(0)
            self._was_served = False
            self._wake.wait(TICK_S)
        else:
            # First said, then looked: a push either finds it said or is found.
            self.is_idle = True
            if not (len(self._producer) or self._waiters or self.losses or self._is_closing):
                self._wake.wait(IDLE_S)
            self.is_idle = False
            self._producer.poll(0)
        self._wake.clear()


def _fill(chunk: list[Any], values: Iterator[object]) -> None:
    """Take some values as they are written; where one fails the chunk holds those before it."""
    given: list[object] = []
    try:
        # Not list(): what it has taken when the iterator fails is gone.
        given.extend(islice(values, CHUNK_MESSAGES))
    finally:
        is_plain = _PLAIN.issuperset(map(type, given))
        chunk.extend(given if is_plain else map(encoded, given))
