"""Push one message and wait for its delivery: in a thread, or on an event loop without blocking it.

While somebody waits the sender has all sent at once, whatever its linger time.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kqmp.kafka.payload import Headers, Key
from kqmp.kafka.sending import Sender

#: How long an event loop does something else while the queue is full.
_PAUSE_S: Final = 0.01


class Delivery(NamedTuple):
    """Where a delivered message stands."""

    topic: str
    partition: int
    offset: int


def push_and_wait(
    sender: Sender, value: str | bytes | None, key: Key, headers: Headers
) -> Delivery:
    """Push and wait until the brokers have the message.

    Raises:
        DeliveryError: they did not take it.
        PushError: it cannot be pushed.
        TypeError: key or headers are of a wrong type.
    """
    done = threading.Event()

    def tell() -> None:
        sender.settled(done)
        done.set()

    outcome = _Outcome(sender, headers, tell)
    how = (-1, outcome.report, None, 0, headers)
    sender.expect(done)
    try:
        if not _is_taken(sender, value, key, how):
            sender.insist(BufferError(), value, key, how)
            next(sender.numbers)
        sender.wake()
        sender.wait_until(done)
    except BaseException:
        outcome.leave()
        raise
    finally:
        sender.settled(done)
    return outcome.taken()


async def apush(
    sender: Sender, value: str | bytes | None, key: Key, headers: Headers, max_block_s: float
) -> Delivery:
    """Push and return when the brokers have the message; errors as for `push_and_wait`.

    Cancelled, the message still goes out, and its failure is told as that of any other.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        sender.settled(future)
        with contextlib.suppress(RuntimeError):  # the loop is closed: who waited has left
            loop.call_soon_threadsafe(_finish, future)

    outcome = _Outcome(sender, headers, tell)
    sender.expect(future)
    try:
        await _in_turn(sender, value, key, (-1, outcome.report, None, 0, headers), max_block_s)
        sender.wake()
        await future
    except BaseException:
        outcome.leave()
        raise
    finally:
        sender.settled(future)
    return outcome.taken()


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class _Outcome:
    """What became of one message: for who waits for it, or, once he has left, for `on_error`.

    No lock, since a signal may interrupt who waits anywhere: each side first says what it did and
    then looks at the other, and only one can take what was reported.
    """

    def __init__(self, sender: Sender, headers: Headers, tell: Callable[[], None]) -> None:
        """Begin before the message is pushed; `tell` wakes who waits."""
        self._sender = sender
        self._headers = headers
        self._tell = tell
        self._reported: list[tuple[Any, Any]] = []
        self._has_left = False

    def report(self, error: Any, message: Any) -> None:
        """Hear of the message: its delivery report."""
        if error is not None:
            self._sender.losses.count()
        self._reported.append((error, message))
        if self._has_left:
            self._pass_on()
        self._tell()

    def leave(self) -> None:
        """Wait no more, of his own accord."""
        self._has_left = True
        self._pass_on()

    def taken(self) -> Delivery:
        """Return where the message stands, once told; raises `DeliveryError`."""
        error, message = self._reported.pop()
        if error is not None:
            raise self._sender.losses.explained(error, message)
        return Delivery(message.topic(), message.partition(), message.offset())

    def _pass_on(self) -> None:
        with contextlib.suppress(IndexError):
            error, message = self._reported.pop()
            if error is not None:
                self._sender.hand_over(error, message, self._headers)


class _Line:
    """Who waits on one event loop for room in a sender's queue, first come, first served."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.turn = asyncio.Lock()
        self.waiting = 0


#: By sender and event loop, while somebody waits there. Who comes then stands behind the others
#: even when it is nobody's turn: the lock is free for a moment when it passes to the next.
_lines: dict[tuple[Sender, asyncio.AbstractEventLoop], _Line] = {}


async def _in_turn(
    sender: Sender, value: str | bytes | None, key: Key, how: tuple[Any, ...], max_block_s: float
) -> None:
    """Hand a message over in the order of the calls, also where the queue is full for a while."""
    place = sender, asyncio.get_running_loop()
    if place not in _lines and _is_taken(sender, value, key, how):
        return
    deadline_s = time.monotonic() + max_block_s
    line = _lines.setdefault(place, _Line())
    line.waiting += 1
    try:
        async with line.turn:
            while not _is_taken(sender, value, key, how):
                if time.monotonic() > deadline_s:
                    raise sender.queue_full()
                await asyncio.sleep(_PAUSE_S)
    finally:
        line.waiting -= 1
        if not line.waiting:
            del _lines[place]


def _is_taken(sender: Sender, value: str | bytes | None, key: Key, how: tuple[Any, ...]) -> bool:
    """Hand a message over unless the queue is full."""
    sender.check_open()
    try:
        sender.produce(sender.topic, value, key, *how)
    except BufferError:
        return False
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again
        raise sender.refused(error, value, key, how[-1]) from None
    next(sender.numbers)
    return True
