"""Doorbells: an eventfd that wakes a processor which waits for frames.

A bell carries no information: whoever wakes looks at the shared words. A ring that is lost (its
reader died and took the counter along) costs at most one bounded wait. Waiting is the business of
the caller, with `select.poll` and a time-out, since it waits on its control socket as well.
"""

import contextlib
import os


def create() -> int:
    """Return a new non-blocking, close-on-exec eventfd. Called by the coordinator."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def ring(fd: int) -> None:
    """Wake whoever waits on `fd`. Never blocks; a full counter is already loud enough."""
    with contextlib.suppress(BlockingIOError):
        os.eventfd_write(fd, 1)


def clear(fd: int) -> None:
    """Take all rings so far, so that the next wait sleeps."""
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(fd)
