"""The pushers of this process that nobody has closed: their messages still go out at its end.

They are held here, so that one that the program has dropped loses nothing either. Told of a fork
too: a child leaves its parent's producers alone.
"""

import atexit
import logging
import os
import sys
from collections.abc import Callable

from kqmp.errors import PushError

log = logging.getLogger("kqmp.pusher")

#: By pusher: what closes it, and what leaves the parent's producer alone in a child.
_unclosed: dict[object, tuple[Callable[[], None], Callable[[], None]]] = {}
#: The child of multiprocessing that closes them at its end.
_child_pid = 0


def keep(pusher: object, close: Callable[[], None], forget: Callable[[], None]) -> None:
    """Have a pusher closed at the end of the process, unless it is dropped before. Any thread.

    Args:
        pusher: held until then.
        close: sends what waits; its `PushError` is logged.
        forget: called in a forked child, where the parent's threads do not exist.
    """
    _unclosed[pusher] = close, forget
    see_to_end()


def see_to_end() -> None:
    """Have all closed at the end of a child of multiprocessing too; after each opening.

    A child that was forked ends by `os._exit`, without atexit: multiprocessing calls its own
    finalizers alone, and has cleared those that it inherited.
    """
    global _child_pid  # noqa: PLW0603 - one a process
    processes = sys.modules.get("multiprocessing.process")
    util = sys.modules.get("multiprocessing.util")
    if processes is None or util is None or processes.parent_process() is None:
        return
    if _child_pid != os.getpid():
        _child_pid = os.getpid()
        util.Finalize(None, close_all, exitpriority=100)


def drop(pusher: object) -> None:
    """Let go of a pusher that is closed. Any thread."""
    _unclosed.pop(pusher, None)


def close_all() -> None:
    """Close what nobody has closed: it is sent, or its loss is told. At the end of a process."""
    for close, _ in list(_unclosed.values()):
        try:
            close()
        except PushError as error:
            log.error("%s", error)  # noqa: TRY400 - its traceback says nothing


def _forget_all() -> None:
    for _, forget in list(_unclosed.values()):
        forget()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(close_all)
