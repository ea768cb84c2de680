"""The ledger of `kqmp demo`: what its handlers write down, and what that proves.

Handlers append one record a message, so the table at the end rests on nothing that the engine
says of itself. The ledger is an anonymous file (memfd) that other processes open through /proc:
there is nothing to clean up, however the demo ends. Judging is pure.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

#: 32 bytes, a divisor of the page size: a record never spans two pages, so that a kill in the
#: middle of a write leaves all of it or nothing.
_RECORD: Final = struct.Struct("<IIIIqq")
RECORD_BYTES: Final = _RECORD.size


class Record(NamedTuple):
    """One handled message."""

    #: Number of its key, and its own number among the messages of that key, both from 0.
    key: int
    number: int
    pid: int
    #: CRC-32 of the value as the handler got it.
    crc: int
    #: CLOCK_MONOTONIC, which all processes share, when the handler began and when it was done.
    start_ns: int
    end_ns: int

    def pack(self) -> bytes:
        """Return the bytes that stand in the ledger; one `os.write` of them is atomic."""
        return _RECORD.pack(*self)


class Ledger:
    """The demo's end: makes the file, counts and reads. A context manager."""

    def __init__(self) -> None:
        """Create an empty ledger."""
        self._fd = os.memfd_create("kqmp-demo-ledger")
        #: Handlers open it under this name, which lasts as long as this process.
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    @property
    def count(self) -> int:
        """Records written so far."""
        return os.fstat(self._fd).st_size // RECORD_BYTES

    def read(self, start: int = 0) -> list[Record]:
        """Return the records from number `start` on, in the order of their writing."""
        size = os.fstat(self._fd).st_size
        data = os.pread(self._fd, max(0, size - start * RECORD_BYTES), start * RECORD_BYTES)
        return list(parse(data))

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._fd)

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_for_append(path: str) -> int:
    """Open a ledger in a handler's process; every write goes to its end."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def parse(data: bytes) -> Iterator[Record]:
    """Read records; bytes after the last whole one are ignored."""
    whole = len(data) - len(data) % RECORD_BYTES
    return map(Record._make, _RECORD.iter_unpack(data[:whole]))


@dataclass
class Verdict:
    """What a ledger proves."""

    #: Different messages that were handled.
    distinct: int = 0
    #: Messages that were produced and never handled.
    lost: int = 0
    #: Times a message was handled again.
    repeated: int = 0
    #: Records of messages that were never produced, or that arrived altered.
    invented: int = 0
    #: Times a message was begun before every earlier one of its key was done.
    disordered: int = 0
    #: From the first begin to the last end, and all handler calls added up.
    elapsed_ns: int = 0
    busy_ns: int = 0
    #: When each process began its first message.
    first_start_ns: dict[int, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Different messages handled in a second; 0 if there are none."""
        return self.distinct * 1e9 / self.elapsed_ns if self.elapsed_ns else 0.0


def judge(records: Sequence[Record], crcs: Sequence[Sequence[int]]) -> Verdict:
    """Judge a whole ledger.

    Args:
        records: in any order.
        crcs: for each key the CRC-32 of each of its messages' values, in the order in which they
            were produced.
    """
    verdict = Verdict()
    by_key: list[dict[int, list[Record]]] = [{} for _ in crcs]
    for record in records:
        known = record.key < len(crcs) and record.number < len(crcs[record.key])
        if not known or crcs[record.key][record.number] != record.crc:
            verdict.invented += 1
            continue
        by_key[record.key].setdefault(record.number, []).append(record)
        verdict.busy_ns += record.end_ns - record.start_ns
        first = verdict.first_start_ns.get(record.pid, record.start_ns)
        verdict.first_start_ns[record.pid] = min(first, record.start_ns)
    for handled, expected in zip(by_key, crcs, strict=True):
        verdict.distinct += len(handled)
        verdict.lost += len(expected) - len(handled)
        verdict.repeated += sum(map(len, handled.values())) - len(handled)
        verdict.disordered += _disordered(handled)
    if verdict.first_start_ns:
        last_ns = max(record.end_ns for record in records)
        verdict.elapsed_ns = last_ns - min(verdict.first_start_ns.values())
    return verdict


def _disordered(handled: dict[int, list[Record]]) -> int:
    """Count the records of one key that began before an earlier message had been done once.

    A repeat of an earlier message later on breaks nothing: it had been done before.
    """
    count = done_ns = 0
    for number in sorted(handled):
        count += sum(record.start_ns < done_ns for record in handled[number])
        done_ns = max(done_ns, min(record.end_ns for record in handled[number]))
    return count
