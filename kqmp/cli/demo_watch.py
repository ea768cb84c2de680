"""How far the ledger of `kqmp demo` has come, and whether it still moves."""

import time
from typing import Final

from kqmp.cli.demo_ledger import Ledger

#: Nothing handled for so long means that nothing more will be: processors come back in less than a
#: second, a rebalance on the mock takes its session timeout.
STALL_S: Final = 20.0


class Watch:
    """Follows one ledger; `goes_on` reads what is new."""

    def __init__(self, ledger: Ledger, total: int) -> None:
        """Start now: `total` different messages are expected."""
        self._ledger = ledger
        self._total = total
        self._read = 0
        self._distinct: set[tuple[int, int]] = set()
        self._active: set[int] = set()
        self._moved_s = time.monotonic()
        self._first_s = 0.0

    @property
    def done(self) -> int:
        """Different messages handled."""
        return len(self._distinct)

    @property
    def passed_s(self) -> float:
        """Time since the first message was seen; 0 before that."""
        return time.monotonic() - self._first_s if self._first_s else 0.0

    def goes_on(self) -> bool:
        """Read what is new; tell whether there is more to come."""
        new = self._ledger.read(self._read)
        now_s = time.monotonic()
        if new:
            self._read += len(new)
            self._moved_s = now_s
            self._first_s = self._first_s or now_s
            self._distinct.update((record.key, record.number) for record in new)
            self._active.update(record.pid for record in new)
        return self.done < self._total and now_s - self._moved_s < STALL_S

    def take_active(self) -> set[int]:
        """Return the processes that wrote since the last call."""
        active, self._active = self._active, set()
        return active

    def __str__(self) -> str:
        passed_s = self.passed_s
        rate = f"  {self.done / passed_s:,.0f}/s" if passed_s > 0.5 else ""
        return f"{self.done:>9,} of {self._total:,}{rate}"
