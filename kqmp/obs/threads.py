"""What kqmp's own threads have in common."""

import signal
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_signals_to_main() -> None:
    """Block the signals that mean stop in this thread: they are the main thread's to hear."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
