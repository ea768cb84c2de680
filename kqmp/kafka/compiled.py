"""The fast path of a fetcher: messages as columns from compiled code, where that is installed.

An installation compiles `_columns.c` if it finds a C compiler. `CompiledSource` saves a `Message`
object for each message, which is 0.3 us of 0.8. Without it, or with `KQMP_COMPILED=0` in the
environment, a fetcher takes the same columns from `Message` objects (`columns.PlainSource`).
"""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Final

import confluent_kafka as ck

from kqmp.core.batch import Columns
from kqmp.kafka.columns import Fetched, OnError, PlainSource, in_few_runs

_absent = ""
try:
    from kqmp.kafka import _columns
except ImportError as error:
    _absent = str(error)

#: Messages wait in a queue of their own, beside the one of callbacks: while a fetch waits for
#: messages, callbacks are served this often.
SERVE_S: Final = 0.1
#: Set to 0: Python only.
SWITCH: Final = "KQMP_COMPILED"
#: Of the compiled module that fits this one.
VERSION: Final = 1
_PLUGINS: Final = "plugin.library.paths"


def why_not() -> str:
    """Return why `CompiledSource` cannot be used; "" where it can."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    if _absent:
        return f"it was not compiled when kqmp was installed ({_absent})"
    if _columns.VERSION != VERSION:
        return "it was compiled from another version's source: install kqmp again"
    path = ck.cimpl.__file__
    return "" if _columns.find_library(path) else f"{path} is linked to no librdkafka that fits"


def with_plugin(properties: Mapping[str, object]) -> dict[str, object]:
    """Return properties for a client whose messages a `CompiledSource` is to take."""
    paths = filter(None, [str(properties.get(_PLUGINS, "")), _columns.__file__])
    return {**properties, _PLUGINS: ";".join(paths)}


class CompiledSource(PlainSource):
    """Takes messages without `Message` objects; what comes beside them is taken as ever."""

    def __init__(self, consumer: ck.Consumer, wanted: frozenset[str], on_error: OnError) -> None:
        """Take from `consumer`, the last client made on this thread, `with_plugin`.

        Arguments as for `PlainSource`.
        """
        super().__init__(consumer, wanted, on_error)
        self._reader = _columns.Reader(consumer, "timestamp" in wanted, "headers" in wanted)

    def expect(self, topic: str, partitions: Iterable[int]) -> None:
        """Have the messages of these partitions come to the reader's queue.

        Before it is assigned, lest its first messages go to the client's own queue; and after, as
        the end of an earlier assignment, which librdkafka carries out later, undoes it.
        """
        for partition in partitions:
            self._reader.forward(topic, partition)

    def close(self) -> None:
        """Give the queue back."""
        self._reader.close()

    def fetch(self, count: int, timeout_s: float) -> Fetched | None:
        """Return messages, as `Source` has it; callbacks run inside `poll`."""
        deadline_s = time.monotonic() + timeout_s
        wait_s = 0.0
        while True:
            other = self._consumer.poll(0)
            if other is not None:  # an error that is not of a partition's fetching; no message
                return self.columns_of([other])
            taken = self._reader.read(count, round(wait_s * 1000))
            if taken is not None:
                return self._fetched(taken)
            wait_s = min(deadline_s - time.monotonic(), SERVE_S)
            if wait_s < 0.001:  # librdkafka waits whole milliseconds
                return None

    def _fetched(self, taken: "_columns.Taken") -> Fetched | None:
        runs, offsets, keys, values, stamps, types, headers, value_bytes, errors = taken
        for partition, offset, code, text in errors:
            self._on_error(partition, offset, ck.KafkaError(code, text))
        if not keys:
            return None
        columns = Columns(offsets, keys, values, stamps, types, headers)
        return in_few_runs(Fetched(columns, runs, value_bytes))
