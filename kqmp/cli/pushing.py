"""What `kqmp push` does between opening and closing its pusher: push, show, complain, count."""

import contextlib
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

from kqmp.cli.blocks import StopRequests
from kqmp.cli.screen import Screen
from kqmp.errors import DeliveryError, MessageTooLarge, PushError, QueueFull
from kqmp.kafka.findings import counted
from kqmp.kafka.payload import Headers
from kqmp.message import Message
from kqmp.pusher import Pusher

#: How long one attempt waits for room, so that progress is shown and a signal heard meanwhile.
ATTEMPT_S: Final = 0.2
#: So many failures are told one by one, the others only counted.
TOLD_MAX: Final = 10
_FOR_AUTHORS: Final = re.compile(
    r"^[A-Z_]+ \[[^]]*\] |\[thrd:[^]]*\]: | \((?:after \d+ms|receive) [^)]*\)"
)


class Complaints:
    """Tells of what was not delivered: the first of it in full. Any thread."""

    def __init__(self, screen: Screen) -> None:
        """Write to stderr, above the status line of `screen`."""
        self._screen = screen
        self.count = 0

    def say(self, text: str) -> None:
        """Tell of one message."""
        self.count += 1
        if self.count <= TOLD_MAX:
            self._screen.line(f"kqmp push: {text}")
        elif self.count == TOLD_MAX + 1:
            self._screen.line("kqmp push: and so on; the summary has their number")


class Pushing:
    """Pushes lines through a pusher and knows how far it is."""

    def __init__(
        self, screen: Screen, stop: StopRequests, max_block_s: float, *, shows: bool
    ) -> None:
        """Begin nothing yet: `open` it.

        Args:
            screen: for progress.
            stop: who interrupts.
            max_block_s: how long the brokers may take nothing before it is given up.
            shows: whether there is progress.
        """
        self.pusher: Pusher
        self.complaints = Complaints(screen)
        self._screen = screen
        self._stop = stop
        self._max_block_s = max_block_s
        self._shows = shows
        self._began_s = time.monotonic()
        #: Bytes of all lines read, and of all files where they are known.
        self.read_bytes = 0
        self.whole_bytes = 0
        #: Lines that were read and not taken: refused, or behind where it was given up.
        self.refused = 0
        self.without_key = 0
        #: Whether the input was read to its end.
        self.is_read = False
        #: Whether nothing more can be pushed.
        self.gave_up = False

    def open(self, pusher: Pusher, whole_bytes: int) -> None:
        """Take the pusher and begin the clock.

        Args:
            pusher: with `lost` as its `on_error`.
            whole_bytes: what there is to read, 0 if that is not known.
        """
        self.pusher = pusher
        self.whole_bytes = whole_bytes
        self._began_s = time.monotonic()

    def lost(self, message: Message, error: DeliveryError) -> bool:  # noqa: ARG002
        """Hear of a message that was not delivered: the pusher's `on_error`."""
        self.complaints.say(str(error))
        return True

    def push_values(
        self,
        lines: Sequence[bytes | None],
        key: bytes | None,
        headers: Headers,
        place: str,
        done: int,
    ) -> None:
        """Push lines that are values, all with the same key and headers.

        Args:
            lines: the values.
            key: None for none.
            headers: None for none.
            place: of the lines, for complaints.
            done: lines of that place before these.
        """
        while lines and not self.gave_up and self._stop.count < 2:
            try:
                self.pusher.push_many(lines, key, headers)
            except PushError as error:
                line, at = lines[error.index], error.index + 1
                done += at
                self._mend(error, (line, key, headers), f"{place}:{done}")
                lines = lines[at:]
            else:
                return
        self.refused += len(lines)

    def push_pairs(
        self,
        pairs: Iterable[tuple[bytes | None, bytes | None]],
        headers: Headers,
        place: str,
        done: int,
    ) -> None:
        """Push pairs of key and value; the rest as for `push_values`."""
        push = self.pusher.push
        number = done
        rest = iter(pairs)
        for key, value in rest:
            number += 1
            try:
                push(value, key, headers)
            except PushError as error:
                self._mend(error, (value, key, headers), f"{place}:{number}")
                if self.gave_up or self._stop.count > 1:
                    break
        self.refused += sum(1 for _ in rest)

    def _mend(
        self, error: PushError, message: tuple[bytes | None, bytes | None, Headers], place: str
    ) -> None:
        """Wait for room as long as it may take, or tell of a message that cannot be pushed."""
        deadline_s = time.monotonic() + self._max_block_s
        while isinstance(error, QueueFull):
            if time.monotonic() > deadline_s:
                self.refused += 1
                self._give_up(f"{place}: {self._in_full(error)}")
                return
            if self._stop.count > 1:
                self.refused += 1
                return
            self.show()
            try:
                self.pusher.push(*message)
                return
            except PushError as again:
                error = again
        self.refused += 1
        if isinstance(error, MessageTooLarge):
            self.complaints.say(f"{place}: {error}")
        else:
            self._give_up(f"{place}: {error}")

    def _in_full(self, error: QueueFull) -> str:
        # The pusher's MaxBlock is that of one attempt.
        attempt_s = min(ATTEMPT_S, self._max_block_s)
        return str(error).replace(f"{attempt_s:g} s (Max", f"{self._max_block_s:g} s (Max")

    def _give_up(self, text: str) -> None:
        self.gave_up = True
        self._screen.line(f"kqmp push: given up at {text}")

    def show(self) -> None:
        """Show how far it is; most calls show nothing."""
        passed_s = time.monotonic() - self._began_s
        if not self._shows or passed_s < 1:  # what is short needs no progress
            return
        state = self.pusher.statistics()
        text = f"{state.delivered:,} delivered, {state.waiting:,} on their way"
        text += f", {state.delivered / passed_s:,.0f}/s"
        if self.complaints.count:
            text += f", {self.complaints.count:,} failed"
        if 0 < self.read_bytes <= self.whole_bytes:
            text += f", {self.read_bytes / self.whole_bytes:.0%} read"
        if self._stop.count:
            text += "; stopping"
        self._screen.progress(text)

    def finish(self) -> None:
        """Wait for what is on its way, unless told twice to stop; then close."""
        while self._stop.count < 2 and not self.gave_up:
            self.pusher.flush(ATTEMPT_S)
            if not self.pusher.statistics().waiting:
                break
            self.show()
        self.pusher.close(0)
        self._screen.end_progress()

    @property
    def undelivered(self) -> int:
        """Messages that the brokers do not have, as far as we know."""
        return self.refused + self.pusher.statistics().failed

    @property
    def stopped_short(self) -> bool:
        """Whether it was given up before the input's end, or what may be its end."""
        return self.gave_up and not 0 < self.whole_bytes <= self.read_bytes

    def summary(self) -> str:
        """Say what was done, in one line."""
        passed_s = max(time.monotonic() - self._began_s, 1e-6)
        state = self.pusher.statistics()
        text = (
            f"{counted_large(state.delivered, 'message')} delivered to {self.pusher.name}"
            f" ({shown_size(self.read_bytes)} read) in {passed_s:.1f} s:"
            f" {state.delivered / passed_s:,.0f}/s"
        )
        if self.undelivered:
            text += f"; {self.undelivered:,} NOT DELIVERED"
        if self.without_key:
            text += f"; {counted_large(self.without_key, 'line')} without the separator had no key"
        if self._stop.count:
            text += "; interrupted" if self.is_read else "; interrupted, the rest was not read"
        elif self.gave_up:
            text += "; given up" if self.is_read else "; given up, no more was read"
        return text


class _Trouble(logging.Handler):
    """Says each thing that librdkafka has to say of the connections once."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the text without what is only for librdkafka's authors."""
        text = _FOR_AUTHORS.sub("", record.getMessage())
        if text not in self._said and len(self._said) < TOLD_MAX:
            self._said.add(text)
            self._screen.line(f"kqmp push: {text}")


@contextlib.contextmanager
def trouble(screen: Screen) -> Iterator[None]:
    """Show trouble with the connections, which librdkafka logs and goes on trying."""
    logger, handler = logging.getLogger("kqmp.kafka"), _Trouble(screen)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def counted_large(count: int, noun: str) -> str:
    """Write a count with thousands apart and its noun in singular or plural."""
    return counted(count, noun).replace(str(count), f"{count:,}", 1)


def shown_size(size_bytes: int) -> str:
    """Write a size for people."""
    if size_bytes < 10_000:
        return counted_large(size_bytes, "byte")
    for unit, factor in (("KiB", 1 << 10), ("MiB", 1 << 20)):
        if size_bytes < 1000 * factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes / (1 << 30):,.1f} GiB"


def told(text: str) -> None:
    """Say something to the user, beside the output."""
    click.echo(f"kqmp push: {text}", err=True)
