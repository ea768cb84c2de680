"""THE table of shared words: where each one lies and which process alone may write it.

Two kinds of anonymous memory (`memfd_create`, passed by descriptor, gone with the last process):

```
lane memory, one per processor                     dispatch memory, one per fetcher
page 0    header        coordinator, once          page 0    header        coordinator, once
page 1-2  attempts,     coordinator                page 1    counted       coordinator
          skip list                                page 2    dispatched,   fetcher
page 3    cursor,       processor                            counters
          released,                                page 3..  lane ends,    fetcher
          counters,                                          slot 0, slot 1
          histogram                                then      dispatch log  fetcher
page 4..  open table    processor
then      ring of       fetcher
          frames
then      region        fetcher (only while one message is larger than half the ring)
```

Rules that every store keeps:

- **One writer a word.** A process killed between any two stores leaves nothing locked, and nothing
  that a reader could take for whole while it is half: data are written first, and one 8-byte
  aligned store makes them count (`dispatched` for frames and log records, `cursor` for messages
  taken).
- **Store order.** x86-64 keeps stores in program order and loads in program order (TSO), and each
  Python store is its own C call, so that no compiler reorders them. `memcpy` of a block is ordered
  against the stores after it (string stores and the `sfence` behind non-temporal copies). A store
  followed by a load of another word may be swapped: every "say that I sleep, then look again" is
  therefore bounded by a time-out. Other machines are refused by `require_supported_machine`.
- **A position is monotonic**; the place in the ring is `position % ring_bytes`.

The layout is final for format version 1: a change of it raises `LAYOUT_VERSION`.
"""

import mmap
import os
import platform
from typing import Final

from kqmp.errors import RingCorrupt, WorkerStartError

PAGE: Final = 4096
#: 8-byte words on one cache line; a word that another process polls has a line of its own.
LINE: Final = 8
LAYOUT_VERSION: Final = 1

LANE_MAGIC: Final = 0x6B716D704C414E45
DISPATCH_MAGIC: Final = 0x6B716D7044495350

# Header words (page 0 of both kinds), written once by the coordinator before anyone else maps it.
HEADER_MAGIC: Final = 0
HEADER_VERSION: Final = 1
#: Lane: bytes of the frame ring. Dispatch memory: bytes of the log.
HEADER_RING_BYTES: Final = 2
#: Lane: entries of the open table. Dispatch memory: number of lanes.
HEADER_ENTRIES: Final = 3

# Lane, pages 1 and 2: only the coordinator writes, and only while the lane has no processor, so
# that a processor reads them once, when it attaches.
#: Number of the message that killed its processor, plus one (0 = none).
ATTEMPTS_NUMBER: Final = 1 * PAGE // 8
#: How often that message has killed a processor.
ATTEMPTS_COUNT: Final = ATTEMPTS_NUMBER + 1
#: Entries of the skip list that count.
SKIP_COUNT: Final = ATTEMPTS_NUMBER + 2
#: The epochs themselves: messages of these are passed over unrun.
SKIP_LIST: Final = ATTEMPTS_NUMBER + LINE
SKIP_LIMIT: Final = 2 * PAGE // 8 - LINE

# Lane, page 3: only the processor writes.
#: Messages taken: each message below is finished or stands in the open table.
CURSOR: Final = 3 * PAGE // 8
#: Bytes of the ring that may be overwritten: always a frame boundary.
RELEASED: Final = CURSOR + LINE
#: The lane's number after the last message of the frame in hand, or `STATE_OUTSIDE`.
STATE: Final = CURSOR + 2 * LINE
#: 1 while the processor waits on its doorbell.
SLEEPING: Final = CURSOR + 3 * LINE
#: Raised each time round the processor's loop; shows that it is alive.
HEARTBEAT: Final = CURSOR + 4 * LINE
#: Messages whose handler returned.
HANDLED: Final = CURSOR + 5 * LINE
#: Messages whose handler raised (and were passed over).
FAILED: Final = HANDLED + 1
#: Messages set aside because they killed `MaxAttempts` processors.
SET_ASIDE: Final = HANDLED + 2
#: Messages of skipped epochs.
SKIPPED: Final = HANDLED + 3
#: Handler calls that were timed, and the sum of their times in ns.
TIMED_COUNT: Final = HANDLED + 4
TIMED_NS: Final = HANDLED + 5
#: Retries of failed messages (ForceCommit false).
RETRIED: Final = HANDLED + 6
#: Histogram of the timed calls, see `kqmp.obs.stats`.
HISTOGRAM: Final = CURSOR + 16 * LINE
HISTOGRAM_BUCKETS: Final = 256

#: The open table begins at page 4; entry = message number << 3 | entry state, 0 = empty.
OPEN_TABLE: Final = 4 * PAGE // 8
OPEN_ENTRIES_DEFAULT: Final = 64
OPEN_ENTRIES_MAX: Final = 4096

#: No frame in hand: importing, in setup, waiting, stopping or closing. Else the message at the
#: cursor, where that is below the state word, is in hand: a death now is its doing. (A mere flag
#: would blame the first message of the next frame, which may be published after the death.)
STATE_OUTSIDE: Final = 0

# Dispatch memory, page 1: only the coordinator writes.
#: Log records read: those up to it may be overwritten.
COUNTED: Final = 1 * PAGE // 8

# Dispatch memory, page 2: only the fetcher writes.
#: Number of the last log record that counts. ONE store here publishes a batch on all lanes.
DISPATCHED: Final = 2 * PAGE // 8
#: Raised each time round the fetcher's loop, rebalance waits included.
FETCHER_HEARTBEAT: Final = DISPATCHED + LINE
#: Messages taken from librdkafka, and their value bytes.
FETCHED_COUNT: Final = DISPATCHED + 2 * LINE
FETCHED_BYTES: Final = FETCHED_COUNT + 1
#: Messages dropped on arrival (partition not open, or below its position).
DROPPED_COUNT: Final = FETCHED_COUNT + 2
#: How often fetching of a partition was paused.
PAUSED_COUNT: Final = FETCHED_COUNT + 3
#: Messages that wait in bays now.
HELD_COUNT: Final = FETCHED_COUNT + 4

#: The two slots of lane ends begin at page 3.
SLOTS: Final = 3 * PAGE // 8


def slot_words(lane_count: int) -> int:
    """Return the words of one slot: the log's end, then (end bytes, end number) of each lane."""
    words = 1 + 2 * lane_count
    return -(-words // (PAGE // 8)) * (PAGE // 8)


def log_start(lane_count: int) -> int:
    """Return the byte at which the dispatch log begins."""
    return (SLOTS + 2 * slot_words(lane_count)) * 8


def ring_start(open_entries: int) -> int:
    """Return the byte at which a lane's frame ring begins (its control pages end there)."""
    return (OPEN_TABLE * 8) + -(-open_entries * 8 // PAGE) * PAGE


def require_supported_machine() -> None:
    """Refuse to start where the order of stores was not tested.

    Raises:
        WorkerStartError: the machine is not x86-64.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        msg = (
            f"kqmp's shared memory relies on the store order of x86-64 and was not tested on "
            f"{machine}: run it on an x86-64 machine"
        )
        raise WorkerStartError(msg)


def create_memory(name: str, size: int, header: dict[int, int]) -> int:
    """Create anonymous shared memory with its header and return the descriptor.

    Called by the coordinator. The descriptor is close-on-exec; `spawn` passes it on by number.
    Pages are taken from the system when first touched.

    Args:
        name: shown in /proc/PID/maps only.
        size: bytes, a multiple of the page size.
        header: header word -> value.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    with mmap.mmap(fd, PAGE) as memory, memoryview(memory) as raw, raw.cast("Q") as words:
        for word, value in header.items():
            words[word] = value
    return fd


def read_header(fd: int, magic: int) -> tuple[int, int]:
    """Return (ring bytes, entries) from the header of a lane or of dispatch memory.

    Raises:
        RingCorrupt: the memory is not of that kind or version.
    """
    with (
        mmap.mmap(fd, PAGE, prot=mmap.PROT_READ) as memory,
        memoryview(memory) as raw,
        raw.cast("Q") as words,
    ):
        found = (words[HEADER_MAGIC], words[HEADER_VERSION])
        if found != (magic, LAYOUT_VERSION):
            msg = f"shared memory header is {found}, expected {(magic, LAYOUT_VERSION)}"
            raise RingCorrupt(msg)
        return words[HEADER_RING_BYTES], words[HEADER_ENTRIES]


class Mapping:
    """One mapping of shared memory: `bytes_` (a byte view) and `words` (64-bit view).

    Closing releases the views first, so that no map outlives its owner.
    """

    __slots__ = ("_memory", "bytes_", "words")

    def __init__(self, fd: int, size: int, *, writable: bool = True) -> None:
        """Map the first `size` bytes of `fd`, shared; read-only unless `writable`."""
        prot = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        self._memory = mmap.mmap(fd, size, mmap.MAP_SHARED, prot)
        self.bytes_ = memoryview(self._memory)
        self.words = self.bytes_.cast("Q")

    def close(self) -> None:
        """Unmap. Idempotent."""
        self.words.release()
        self.bytes_.release()
        self._memory.close()
