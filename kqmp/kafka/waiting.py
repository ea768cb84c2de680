"""Push one message and wait for its delivery: in a thread, or on an event loop without blocking it.

While somebody waits the sender has all sent at once, whatever its linger time.
"""

import asyncio
import threading
import time
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
    told: list[tuple[Any, Any]] = []

    def report(error: Any, message: Any) -> None:
        told.append((error, message))
        sender.settled(done)
        done.set()

    how = (-1, report, None, 0, headers)
    sender.expect(done)
    try:
        if not _is_taken(sender, value, key, how):
            sender.insist(BufferError(), value, key, how)
            next(sender.numbers)
        sender.wake()
        sender.wait_until(done)
    finally:
        sender.settled(done)
    error, message = told[0]
    if error is None:
        return _delivery(message)
    raise sender.losses.explained(error, message)


async def apush(
    sender: Sender, value: str | bytes | None, key: Key, headers: Headers, max_block_s: float
) -> Delivery:
    """Push and return when the brokers have the message; errors as for `push_and_wait`.

    Cancelled, the message still goes out, and its failure is told as that of any other.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Delivery] = loop.create_future()

    def report(error: Any, message: Any) -> None:
        sender.settled(future)
        try:
            loop.call_soon_threadsafe(_settle, future, sender, error, message, headers)
        except RuntimeError:  # the loop is closed: nobody waits any more
            if error is not None:
                sender.hand_over(error, message, headers)

    sender.expect(future)
    try:
        await _in_turn(sender, value, key, (-1, report, None, 0, headers), max_block_s)
    except BaseException:
        sender.settled(future)
        raise
    sender.wake()
    return await future


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


def _settle(
    future: "asyncio.Future[Delivery]", sender: Sender, error: Any, message: Any, headers: Headers
) -> None:
    """Tell who waits, on the event loop."""
    if error is None:
        if not future.done():
            future.set_result(_delivery(message))
    elif future.done():  # cancelled: nobody else would hear
        sender.hand_over(error, message, headers)
    else:
        future.set_exception(sender.losses.explained(error, message))


def _delivery(message: Any) -> Delivery:
    return Delivery(message.topic(), message.partition(), message.offset())
