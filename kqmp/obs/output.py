"""Notice that nobody reads our output any more, as `| head -1` does it."""

import os
import select
import stat

#: stdout and stderr.
OUTPUTS = (1, 2)


class OutputWatch:
    """Looks at the pipes among some descriptors. Python ignores SIGPIPE, so somebody has to."""

    def __init__(self, fds: tuple[int, ...] = OUTPUTS) -> None:
        """Take those of `fds` that are pipes; files, terminals and sockets are left alone."""
        self._poll = select.poll()
        for fd in fds:
            if _is_pipe(fd):
                # No event asked for: an error is always told.
                self._poll.register(fd, 0)

    def is_gone(self) -> bool:
        """Tell whether the last reader of one of the pipes is gone. Never blocks."""
        return any(events & select.POLLERR for _, events in self._poll.poll(0))


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False
