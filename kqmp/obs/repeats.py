"""Let a chatty library say each thing a few times a minute, not a hundred times a second."""

import logging
import re
from typing import Final

from kqmp.obs.logs import RateLimited

_NUMBERS: Final = re.compile(r"\d+")
_KIND_MAX: Final = 120
#: What librdkafka logs of a lost connection it reports as an error too, which is logged by us.
_TOLD_TWICE: Final = "FAIL ["


class Repeats(logging.Filter):
    """A filter for the logger of librdkafka: texts that differ in numbers only are of one kind.

    Of each kind the first three of a minute pass; how many did not is told later.
    """

    def __init__(self, report_to: logging.Logger) -> None:
        """Report what was held back to a logger that has not this filter."""
        super().__init__()
        self._limit = RateLimited(report_to, limit=3)

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether `record` may be written."""
        text = record.getMessage()
        if text.startswith(_TOLD_TWICE):
            return False
        return self._limit.admit(_NUMBERS.sub("N", text)[:_KIND_MAX])
