"""The ledger: what the handler itself writes down, from which tests judge the engine.

Workload side: `Ledger` writes one fixed record with one `os.write` at the start and at the end of
each handler call. Both reach the file before the handler returns, so before the engine can take the
message for done, and they survive any kill. All processes append to one file (O_APPEND), whose
order is therefore the order in which things happened.

Test side: `Tail` reads the file as it grows. What is right or wrong is decided in
`tests.support.judge`, which knows nothing of handlers.

A produced value begins with its decimal uid and a space (`tests.support.feed`), so that also a
`(key, value)` handler, which sees no offset, leaves a record that can be judged.
"""

import contextlib
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

#: Environment variable that tells handlers where the ledger is.
PATH_VARIABLE = "KQMP_TEST_LEDGER"

RECORD = struct.Struct("<BxHIqq16sqI12x")
assert RECORD.size == 64

START, END, FAILED = 1, 2, 3

#: Stands for "this handler form does not see it".
NO_PARTITION = 0xFFFF
NO_OFFSET = -1
#: Stands for a null key; no test key looks like it.
NULL_KEY = b"\xff" * 16


class Record(NamedTuple):
    """One line of the ledger."""

    kind: int
    partition: int
    pid: int
    offset: int
    ns: int
    key: bytes
    uid: int
    crc: int


def key_field(key: bytes | None) -> bytes:
    """Return a key as it stands in a record."""
    return NULL_KEY if key is None else key.ljust(16, b"\0")


class Ledger:
    """The handler's pen. One per process, made when the handler's module is imported."""

    def __init__(self, path: str | None = None) -> None:
        name = path or os.environ[PATH_VARIABLE]
        self._fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def _write(self, kind: int, place: tuple[int, int], key: bytes | None, value: bytes) -> None:
        uid = int(value[: value.index(b" ")])
        record = RECORD.pack(
            kind,
            place[0],
            os.getpid(),
            place[1],
            time.monotonic_ns(),
            key_field(key),
            uid,
            zlib.crc32(value),
        )
        os.write(self._fd, record)

    def start(self, message: Any) -> None:
        """Note that the handler was entered."""
        place = (message.partition, message.offset)
        self._write(START, place, message.key, message.value)

    def end(self, message: Any) -> None:
        """Note that the handler is done with the message."""
        place = (message.partition, message.offset)
        self._write(END, place, message.key, message.value)

    @contextlib.contextmanager
    def handling(self, message: Any) -> Iterator[None]:
        """Note start and end; a failure is noted as such, what ends the process not at all."""
        self.start(message)
        try:
            yield
        except MemoryError:
            raise
        except Exception:
            place = (message.partition, message.offset)
            self._write(FAILED, place, message.key, message.value)
            raise
        self.end(message)

    @contextlib.contextmanager
    def handling_value(self, key: bytes | None, value: bytes) -> Iterator[None]:
        """The same for a `(key, value)` handler."""
        self._write(START, (NO_PARTITION, NO_OFFSET), key, value)
        yield
        self._write(END, (NO_PARTITION, NO_OFFSET), key, value)


class Records:
    """Records in file order, kept as bytes: a soak writes millions."""

    def __init__(self) -> None:
        self._portions: list[bytes] = []

    def append(self, portion: bytes) -> None:
        """Add whole records."""
        self._portions.append(portion)

    def __iter__(self) -> Iterator[Record]:
        for portion in self._portions:
            yield from unpack(portion)

    def __len__(self) -> int:
        return sum(map(len, self._portions)) // RECORD.size


def unpack(portion: bytes) -> Iterator[Record]:
    """Yield the records of some bytes."""
    return map(Record._make, RECORD.iter_unpack(portion))


class Tail:
    """Reads a growing ledger; keeps all records and which uids have ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self.records = Records()
        self.ended: set[int] = set()

    @property
    def written(self) -> int:
        """Number of records in the file now, read or not."""
        try:
            return self._path.stat().st_size // RECORD.size
        except FileNotFoundError:
            return 0

    def poll(self) -> list[Record]:
        """Read what is new and return it."""
        whole = self.written * RECORD.size
        if whole <= self._read_bytes:
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read(whole - self._read_bytes)
        self._read_bytes = whole
        self.records.append(data)
        new = list(unpack(data))
        self.ended.update(record.uid for record in new if record.kind != START)
        return new
