"""How many messages an engine has handled, read from outside without costing it anything.

kqmp: the cursors of its lanes, from the coordinator's shared memory. The rivals: a page of shared
memory into which each of their processes stores its count, which it keeps anyway.
"""

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from kqmp.errors import RingCorrupt
from kqmp.ring import words as w

LANE_NAME: Final = "/memfd:kqmp-lane"
_LINE: Final = 8


class Progress(Protocol):
    """Counts handled messages; monotonic, valid also after the engine's end."""

    def count(self) -> int:
        """Return the messages handled so far."""
        ...

    def close(self) -> None:
        """Unmap."""
        ...


class LaneProgress:
    """The sum of the lanes' cursors, exact at any moment.

    A cursor counts each message once the handler has returned. The pages are mapped read-only
    through the coordinator's descriptors: the engine does not notice.
    """

    def __init__(self, pid: int, lanes: int) -> None:
        """Describe the engine; its lanes are mapped by the first `count` that finds them all."""
        self._pid = pid
        self._expected = lanes
        self._maps: list[w.Mapping] = []

    def count(self) -> int:
        """Return the messages handled so far, 0 while the engine still starts."""
        if not self._maps:
            self._attach()
        return sum(memory.words[w.CURSOR] for memory in self._maps)

    def per_lane(self) -> list[int]:
        """Return the cursors."""
        return [memory.words[w.CURSOR] for memory in self._maps]

    def close(self) -> None:
        """Unmap."""
        for memory in self._maps:
            memory.close()
        self._maps = []

    def _attach(self) -> None:
        with contextlib.ExitStack() as stack:
            found = []
            for fd in _lane_fds(self._pid):
                stack.callback(os.close, fd)
                with contextlib.suppress(RingCorrupt, ValueError):
                    _, entries = w.read_header(fd, w.LANE_MAGIC)
                    found.append((fd, w.ring_start(entries)))
            if len(found) == self._expected:
                self._maps = [w.Mapping(fd, size, writable=False) for fd, size in found]


def _lane_fds(pid: int) -> Iterator[int]:
    """Open the lanes that process `pid` holds."""
    seen = set()
    with contextlib.suppress(OSError):
        for path in sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda path: int(path.name)):
            with contextlib.suppress(OSError):
                # Each lane stands there twice, as a map keeps a descriptor of its own.
                inode = path.stat().st_ino
                if inode not in seen and str(path.readlink()).startswith(LANE_NAME):
                    seen.add(inode)
                    yield os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class SharedProgress:
    """A page shared with the processes of a rival: their counts, and our words `go` and `stop`.

    Each process has an index and a cache line of its own; every word has one writer.
    """

    GO: Final = 0
    STOP: Final = 1

    def __init__(self, fd: int | None = None, processes: int = 1) -> None:
        """Create the page, or map the one of `fd`."""
        self._processes = processes
        self.fd = os.memfd_create("kqmp-perf") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, mmap.PAGESIZE)
        self._memory = mmap.mmap(self.fd, mmap.PAGESIZE)
        self.words = memoryview(self._memory).cast("Q")

    @staticmethod
    def word_of(index: int) -> int:
        """Return the word with the count of process `index`; the next one says that it is ready."""
        return (index + 1) * _LINE

    def count(self) -> int:
        """Return the messages handled so far by all processes."""
        return sum(self.words[self.word_of(index)] for index in range(self._processes))

    def ready(self) -> bool:
        """Whether all processes wait for `go`."""
        return all(self.words[self.word_of(index) + 1] for index in range(self._processes))

    def close(self) -> None:
        """Unmap and close."""
        self.words.release()
        self._memory.close()
        os.close(self.fd)
