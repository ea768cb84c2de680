"""Log records of kqmp's own processes: whole records on a descriptor, bounded and rate-limited.

`setup` runs once at the start of every process that kqmp made, never in a user's program: there,
`relay` gives the records of the children to the program's own `logging`. Imports the standard
library only, and nothing of Kafka, so that every role can log before it does anything else.
"""

import codecs
import json
import logging
import os
import select
import stat
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

Encoding = Literal["plain", "json"]

#: Characters of a record's message or traceback; what is longer loses its middle.
TEXT_MAX: Final = 32_768
#: Frames of a traceback, the innermost ones.
FRAMES_MAX: Final = 50
#: Bytes of a key that a failure shows.
KEY_BYTES_MAX: Final = 64
#: Characters of an exception's text in the first line of a failure.
SUMMARY_MAX: Final = 200
#: How long a record may wait for a descriptor that was set not to block, in seconds.
WRITE_WAIT_S: Final = 1.0

_PACKAGE = str(Path(__file__).parent.parent) + os.sep


def setup(
    role: str,
    *,
    level: int | str = logging.INFO,
    encoding: Encoding = "plain",
    stream_fd: int = 2,
) -> None:
    """Let all `logging` of this process, the handler's own included, go to a descriptor.

    The root logger is ours here: what was set up before is replaced, `warnings` become records
    too. A later `logging.basicConfig()` of the user's module changes nothing; `force=True` or
    `dictConfig` do, and are the user's choice.

    A record is one write, traceback included, so that the lines of several processes never
    tangle; to a pipe, which takes 4,096 bytes whole at most, a longer record goes in several
    writes that end at line ends. A record that cannot be written (a closed terminal, a reader
    that is gone) is dropped: logging never fails a handler.

    Args:
        role: Who writes, as in `ps`: "coordinator", "fetcher 0", "processor 0.3".
        level: Records below it are dropped; a number or a name of `logging`.
        encoding: `plain` for people and files, `json` for one object a line, as `relay` reads it.
        stream_fd: The descriptor; it stays open and stays the caller's.

    Raises:
        ValueError: `level` is no level.

    Blocking: as the descriptor does; up to `WRITE_WAIT_S` where it was set not to block.
    """
    root = logging.getLogger()
    root.setLevel(level)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    ours = _WholeRecords(stream_fd)
    ours.setFormatter(_JsonFormatter(role) if encoding == "json" else _PlainFormatter(role))
    root.addHandler(ours)
    logging.captureWarnings(capture=True)


def level_name(level: str) -> str:
    """Return the level of `logging` that go-zero, or the command line, calls so in lower case."""
    return "CRITICAL" if level == "severe" else level.upper()


class _WholeRecords(logging.Handler):
    """Writes each record whole to a descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        try:
            self._is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
        except OSError:
            self._is_pipe = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`; what its formatting raises is reported as `logging` does."""
        try:
            text = self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - a wrong format string fails no handler
            self.handleError(record)
            return
        data = text.encode("utf-8", "backslashreplace")
        for part in _parts(data) if self._is_pipe else (data,):
            if not _write(self._fd, part):
                return


def _parts(data: bytes) -> Iterator[bytes]:
    """Cut `data` at line ends into parts that a pipe takes whole, as far as the lines allow."""
    start = 0
    while len(data) - start > select.PIPE_BUF:
        end = data.rfind(b"\n", start, start + select.PIPE_BUF) + 1
        if end <= 0:
            end = data.index(b"\n", start) + 1
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]


def _write(fd: int, data: bytes) -> bool:
    deadline = time.monotonic() + WRITE_WAIT_S
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            wait_s = deadline - time.monotonic()
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            if wait_s <= 0 or not poll.poll(wait_s * 1000):
                return False
        except OSError:
            return False
    return True


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC).astimezone()
    return moment.isoformat(timespec="milliseconds")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the traceback and the stack that a record carries, "" where it carries neither."""
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return _shortened("\n".join(parts), TEXT_MAX)


class _PlainFormatter(logging.Formatter):
    """`2026-11-24T10:26:11.123+00:00 WARNING processor 0.3: text`, the traceback below it."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        text = _shortened(record.getMessage(), TEXT_MAX)
        head = f"{_time(record)} {record.levelname:<7} {self._role}: {text}"
        trace = _trace(self, record)
        return f"{head}\n{trace}" if trace else head


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, ASCII, with what `relay` needs."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record),
            "level": record.levelname,
            "role": self._role,
            "message": _shortened(record.getMessage(), TEXT_MAX),
            "exc_text": _trace(self, record) or None,
            "name": record.name,
            "levelno": record.levelno,
            "created": record.created,
            "pathname": record.pathname,
            "lineno": record.lineno,
            "function": record.funcName,
            "process": record.process,
        }
        return json.dumps(fields)


def relay(line: bytes, logger: logging.Logger) -> None:
    """Hand a line that a child wrote with encoding `json` to the program's `logging`.

    The record keeps its time, its logger's name, its place in the source and its traceback; its
    `processName` and `role` are the child's. `logger` and its handlers decide whether it is shown.
    Any other line, as a C library or a `print` to stderr leaves it, becomes a warning: nothing a
    child says is lost. Never raises because of the line.

    Caller: the program that runs a `Queue`, on the thread that reads the children's records.
    """
    record = _record_of(line)
    if record is None:
        text = line.decode("utf-8", "backslashreplace").rstrip()
        if text:
            logger.warning("%s", text)
    elif logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _record_of(line: bytes) -> logging.LogRecord | None:
    try:
        fields = json.loads(line)
        record = logging.LogRecord(
            name=str(fields["name"]),
            level=int(fields["levelno"]),
            pathname=str(fields["pathname"]),
            lineno=int(fields["lineno"]),
            msg=str(fields["message"]),
            args=None,
            exc_info=None,
            func=fields["function"],
        )
        record.created = float(fields["created"])
        record.msecs = record.created % 1 * 1000
        record.exc_text = fields["exc_text"]
        record.process = fields["process"]
        record.processName = record.role = str(fields["role"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record


@dataclass(slots=True)
class _Window:
    started_s: float
    admitted: int = 0
    suppressed: int = 0


class RateLimited:
    """Says which records of a kind may be written: the first `limit` of every interval.

    What was suppressed is written as one line when the interval is over and the kind comes up
    again, at `report_ended`, or at `report_all`. Bounded: of at most `kinds_max` kinds, the one
    whose interval began first is reported and forgotten. For one thread.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        limit: int = 5,
        interval_s: float = 60.0,
        kinds_max: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._limit = limit
        self._interval_s = interval_s
        self._kinds_max = kinds_max
        self._clock = clock
        # In the order in which the intervals began.
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def admit(self, kind: str) -> bool:
        """Tell whether a record of `kind` may be written now; counts it either way.

        Asked before the text is built: a handler that fails on every message must not spend its
        time on tracebacks that nobody sees.
        """
        now_s = self._clock()
        window = self._windows.get(kind)
        if window is not None and now_s - window.started_s >= self._interval_s:
            self._end(kind)
            window = None
        if window is None:
            if len(self._windows) >= self._kinds_max:
                self._end(next(iter(self._windows)))
            window = self._windows[kind] = _Window(now_s)
        if window.admitted < self._limit:
            window.admitted += 1
            return True
        window.suppressed += 1
        return False

    def report_ended(self) -> None:
        """Write the lines of all intervals that are over. Cheap: call it every second or so."""
        over_s = self._clock() - self._interval_s
        while self._windows:
            kind, window = next(iter(self._windows.items()))
            if window.started_s > over_s:
                return
            self._end(kind)

    def report_all(self) -> None:
        """Write all lines that are due or not yet, before the process ends."""
        while self._windows:
            self._end(next(iter(self._windows)))

    def _end(self, kind: str) -> None:
        window = self._windows.pop(kind)
        if window.suppressed:
            passed_s = min(self._clock() - window.started_s, self._interval_s)
            self._logger.warning(
                "suppressed %d similar records in %.0f s: %s", window.suppressed, passed_s, kind
            )


def failure_text(
    topic: str, partition: int, offset: int, key: bytes | None, error: BaseException
) -> str:
    """Describe a message whose handler failed: where it is, its key, the user's traceback.

    The first line holds it all but the traceback, so that one `grep` finds it. The key is cut
    after `KEY_BYTES_MAX` bytes and escaped; the value never appears. kqmp's own frames are left
    out, and the traceback where nothing else is left.

    Args:
        topic: Name of the topic.
        partition: >= 0.
        offset: The message's own offset.
        key: None for a message without one.
        error: What the handler raised.
    """
    trace = traceback.TracebackException.from_exception(error, limit=-FRAMES_MAX, compact=True)
    has_frames = _drop_own_frames(trace)
    what = " ".join("".join(trace.format_exception_only()).split())
    head = (
        f"handler failed: topic {topic} partition {partition} offset {offset}"
        f" key {shown_key(key)}: "
    )
    if len(what) > SUMMARY_MAX:
        what = what[:SUMMARY_MAX] + "..."
    if not has_frames:
        return head + what
    lines = "".join(trace.format()).rstrip("\n")
    return f"{head}{what}\n{_shortened(lines, TEXT_MAX - len(head) - len(what) - 100)}"


def _drop_own_frames(trace: traceback.TracebackException) -> bool:
    """Take kqmp's frames out of a traceback and of all that caused it; tell whether any is left."""
    found = False
    left: list[traceback.TracebackException | None] = [trace]
    while left:
        part = left.pop()
        if part is None:
            continue
        kept = [frame for frame in part.stack if not frame.filename.startswith(_PACKAGE)]
        part.stack = traceback.StackSummary.from_list(kept)
        found = found or bool(kept)
        left += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return found


def shown_key(key: bytes | None) -> str:
    """Return a key as logs show it: on one line, escaped, at most `KEY_BYTES_MAX` bytes of it."""
    if key is None:
        return "none"
    head = key[:KEY_BYTES_MAX]
    is_cut = len(head) < len(key)
    try:
        # A character that the cut went through is left out.
        text, _ = codecs.utf_8_decode(head, "strict", not is_cut)
        shown = repr(text) if text.isprintable() else repr(head)
    except UnicodeDecodeError:
        shown = repr(head)
    return f"{shown}... ({len(key)} bytes)" if is_cut else shown
