"""The messages of `kqmp demo` and the handler that the plain loop and the engine both run.

The work is a chain of hashes in a Python loop: it needs nothing but CPU, and holds the GIL, so
that threads would not make it faster. Runs in processors and in the plain loop's process; imports
neither click nor librdkafka.
"""

import hashlib
import json
import os
import random
import time
import zlib
from collections.abc import Iterator
from typing import Final

from kqmp.cli.demo_ledger import Record, open_for_append
from kqmp.handler import Context

#: Environment variables that tell a handler where its ledger is and how much to work.
LEDGER_VARIABLE: Final = "KQMP_DEMO_LEDGER"
ROUNDS_VARIABLE: Final = "KQMP_DEMO_ROUNDS"
#: Different keys of a demo.
KEYS: Final = 1000
_SEED: Final = 20_000


def key_of(key: int) -> bytes:
    """Return the key with this number."""
    return b"account-%04d" % key


def value_of(key: int, number: int) -> bytes:
    """Return the value of message `number` of a key: about 130 bytes of JSON."""
    order = {
        "account": key,
        "number": number,
        "amount": (key * 7919 + number * 104_729) % 1_000_000 / 100,
        "currency": "EUR",
        "note": f"payment {number} of account {key}, please confirm",
    }
    return json.dumps(order).encode()


def messages(count: int) -> Iterator[tuple[int, int]]:
    """Yield (key, number) of `count` messages in the order of producing, the same at each call."""
    choice = random.Random(_SEED)
    seen = [0] * KEYS
    for _ in range(count):
        key = choice.randrange(KEYS)
        yield key, seen[key]
        seen[key] += 1


def crcs_of(count: int) -> list[list[int]]:
    """Return what `judge` compares a ledger of `count` messages with."""
    crcs: list[list[int]] = [[] for _ in range(KEYS)]
    for key, number in messages(count):
        crcs[key].append(zlib.crc32(value_of(key, number)))
    return crcs


def work(value: bytes, rounds: int) -> bytes:
    """Hash `value` over and over; takes about 0.5 us of CPU a round."""
    for _ in range(rounds):
        value = hashlib.sha256(value).digest()
    return value


class Handler:
    """`kqmp.cli.demo_handler:Handler`: works on a message, then writes it into the ledger."""

    def setup(self, _context: Context | None = None) -> None:
        """Open the ledger."""
        self._ledger = open_for_append(os.environ[LEDGER_VARIABLE])
        self._rounds = int(os.environ[ROUNDS_VARIABLE])
        self._pid = os.getpid()

    def consume(self, _key: bytes, value: bytes) -> None:
        """Handle one message."""
        start_ns = time.monotonic_ns()
        order = json.loads(value)
        work(value, self._rounds)
        crc = zlib.crc32(value)
        end_ns = time.monotonic_ns()
        record = Record(order["account"], order["number"], self._pid, crc, start_ns, end_ns)
        os.write(self._ledger, record.pack())

    def close(self) -> None:
        """Close the ledger."""
        os.close(self._ledger)
