"""A processor: runs the user's handler on the messages of one lane.

It reads frames, calls the handler message by message and stores the cursor after each: that store
is the acknowledgement. It knows no Kafka, commits nothing and holds no lock; killed at any moment
it leaves a cursor at which its successor goes on. It ignores INT and TERM and ends on the
coordinator's word, on the end of its control socket, or by its death signal.
"""

import contextlib
import gc
import logging
import os
import select
import sys
import time
from collections.abc import Iterator
from itertools import repeat
from typing import Final, NoReturn

import msgspec
from setproctitle import setproctitle

from kqmp.core.backoff import delay_s
from kqmp.errors import ExitCode, HandlerImportError, KqmpError
from kqmp.handler import Context, Handler, HandlerRef, Outcome, load, mark_processor
from kqmp.handler.loading import trace_of
from kqmp.message import Columns, Message
from kqmp.obs import histogram, logs
from kqmp.ring import bell
from kqmp.ring import words as w
from kqmp.ring.frame import Frame
from kqmp.ring.lane import LaneReader
from kqmp.ring.log import EndsReader
from kqmp.roles import control
from kqmp.roles.channel import Channel
from kqmp.roles.errorhook import ErrorHook
from kqmp.roles.spawn import become_child, first_message
from kqmp.roles.stdio import outlive_readers

#: Longest sleep before the shared words are looked at again, whatever the doorbell says.
WAIT_S: Final = 0.5
#: Handlers that take longer are timed on every message; others on one frame in `SAMPLE_FRAMES`.
TIMED_ALWAYS_NS: Final = 50_000
SAMPLE_FRAMES: Final = 64
#: Back-off between the attempts of a failing message (ForceCommit false).
RETRY_FIRST_S: Final = 0.1
RETRY_MOST_S: Final = 5.0

log = logging.getLogger("kqmp.processor")


class Processor:
    """The loop of one processor process."""

    def __init__(self, spec: control.ProcessorSpec, channel: Channel, handler: Handler) -> None:
        """Attach to the lane where the predecessor left it."""
        self._spec = spec
        self._channel = channel
        self._handler = handler
        self._on_error = ErrorHook(handler, log)
        self._lane = LaneReader(spec.lane_fd)
        self._lane.adopt()
        self._ends = EndsReader(spec.dispatch_fd, spec.index)
        self._words = self._lane.words
        self._skip = self._lane.skipped_epochs()
        number, attempts = self._lane.attempts()
        self._aside = number if attempts >= spec.max_attempts else -1
        self._limit = logs.RateLimited(log)
        self._frames = 0
        self._slow = False
        self._stopping = False
        self._poller = select.poll()
        self._poller.register(spec.bell_fd, select.POLLIN)
        self._poller.register(channel, select.POLLIN)

    def run(self) -> None:
        """Handle frames until told to stop."""
        first: int | None = None
        while not self._stopping:
            self._words[w.HEARTBEAT] += 1
            frame = self._lane.next_frame(self._ends.end(), first)
            if frame is None:
                self._wait()
                continue
            # SAFETY: sole writer of the state word; a death from here on is the doing of the
            # message at the cursor, until that is at the frame's end.
            self._words[w.STATE] = frame.first + frame.count
            self._handle(frame)
            self._words[w.STATE] = w.STATE_OUTSIDE
            if self._lane.cursor != frame.first + frame.count:
                break
            self._lane.release(frame)
            first = frame.first + frame.count

    def close(self) -> None:
        """Report what the rate limit held back."""
        self._limit.report_all()
        self._on_error.close()

    def _wait(self) -> None:
        """Sleep until the doorbell rings, a control message comes, or `WAIT_S` passed."""
        # SAFETY: sole writer. The end is read again after the store; should the two be swapped
        # (TSO allows it) the doorbell may be missed, and the bounded wait makes up for it.
        self._words[w.SLEEPING] = 1
        if self._ends.end() <= self._lane.position:
            self._poller.poll(WAIT_S * 1000)
        self._words[w.SLEEPING] = 0
        bell.clear(self._spec.bell_fd)
        self._limit.report_ended()
        self._look_at_control()

    def _look_at_control(self) -> None:
        stop = any(isinstance(m, control.Stop) for m in self._channel.receive())
        self._stopping = self._stopping or stop or self._channel.closed

    def _handle(self, frame: Frame) -> None:
        """Run the handler on the messages of a frame that are not taken yet."""
        self._frames += 1
        start = max(self._lane.cursor - frame.first, 0)
        if not self._skip and self._aside < frame.first:
            self._run(frame, start, frame.count)
            return
        for begin, end, skipped in self._stretches(frame, start):
            if skipped:
                # SAFETY: sole writer; these messages belong to an opening that was closed by
                # force and are read again by whoever has the partition now.
                self._words[w.SKIPPED] += end - begin
                self._lane.cursor_word[0] = frame.first + end
            else:
                self._run_around_aside(frame, begin, end)
                if self._lane.cursor != frame.first + end:
                    return

    def _stretches(self, frame: Frame, start: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (begin, end, skipped) of adjacent messages from index `start`."""
        begin = 0
        for section in frame.sections:
            end = begin + section.count
            if end > start:
                yield max(begin, start), end, section.epoch in self._skip
            begin = end

    def _run_around_aside(self, frame: Frame, begin: int, end: int) -> None:
        aside = self._aside - frame.first
        if not begin <= aside < end:
            self._run(frame, begin, end)
            return
        if aside > begin:
            self._run(frame, begin, aside)
            if self._lane.cursor != self._aside:
                return
        self._set_aside(frame, aside)
        if aside + 1 < end:
            self._run(frame, aside + 1, end)

    def _set_aside(self, frame: Frame, index: int) -> None:
        """Pass over the message that killed its processors; say all that is known of it."""
        message = self._message(frame, index)
        log.error(
            "set aside after it killed %d processors: %s[%d]@%d key=%r value=%r%s",
            self._spec.max_attempts,
            message.topic,
            message.partition,
            message.offset,
            message.key,
            message.value,
            # A handler of (key, value) is sent nothing else.
            f" headers={message.headers!r}" if "headers" in self._handler.columns else "",
        )
        # SAFETY: sole writer; counted before the cursor passes it.
        self._words[w.SET_ASIDE] += 1
        self._lane.cursor_word[0] = frame.first + index + 1

    def _columns(self, frame: Frame) -> Columns:
        return Columns(
            topic=self._spec.topic,
            sections=[(section.partition, section.count) for section in frame.sections],
            keys=frame.keys,
            values=frame.values,
            offsets=frame.offsets,
            timestamps_ms=frame.timestamps,
            timestamp_types=frame.timestamp_types,
            headers=frame.headers,
        )

    def _message(self, frame: Frame, index: int) -> Message:
        return Message(self._columns(frame), index)

    def _calls(self, frame: Frame, begin: int, end: int) -> Iterator[object]:
        """Return an iterator whose every step is one handler call.

        It goes on with the next message after a call raised.
        """
        if self._handler.form == "key_value":
            if begin == 0 and end == frame.count:
                return map(self._handler.call, frame.keys, frame.values)
            return map(self._handler.call, frame.keys[begin:end], frame.values[begin:end])
        messages = map(Message, repeat(self._columns(frame)), range(begin, end))
        return map(self._handler.call, messages)

    def _run(self, frame: Frame, begin: int, end: int) -> None:
        """Run the handler on messages `begin` to `end`; failures are passed over or retried."""
        calls = self._calls(frame, begin, end)
        number, stop = frame.first + begin, frame.first + end
        loop = self._timed if self._slow or self._frames % SAMPLE_FRAMES == 1 else self._untimed
        while number < stop:
            try:
                loop(calls, number)
                number = self._lane.cursor
                if number < stop:
                    # `for` takes a StopIteration out of the handler for the end of the calls.
                    raise RuntimeError("the handler raised StopIteration")
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - a handler may raise anything
                failure = error
            else:
                continue
            # Not above: what a retry raises would have this failure as its context.
            number = self._lane.cursor
            is_done = self._failed(frame, number - frame.first, failure)
            del failure  # its traceback refers to this frame: leave no cycle
            if not is_done:
                return
            number += 1

    def _untimed(self, calls: Iterator[object], number: int) -> None:
        """The hot loop: per message the handler and one store."""
        cursor = self._lane.cursor_word
        for _ in calls:
            number += 1
            # SAFETY: sole writer. Everything below is finished: this store is the acknowledgement.
            cursor[0] = number

    def _timed(self, calls: Iterator[object], number: int) -> None:
        """The same with a clock."""
        cursor = self._lane.cursor_word
        clock = time.perf_counter_ns
        count, started = number, clock()
        last, words = started, self._words
        first, bucket = w.HISTOGRAM, histogram.bucket
        try:
            for _ in calls:
                number += 1
                cursor[0] = number
                now = clock()
                # SAFETY: sole writer of its histogram; readers add up whole words.
                words[first + bucket(now - last)] += 1
                last = now
        finally:
            count = number - count
            words[w.TIMED_COUNT] += count
            words[w.TIMED_NS] += last - started
            if count:
                self._slow = (last - started) // count > TIMED_ALWAYS_NS

    def _failed(self, frame: Frame, index: int, error: Exception) -> bool:
        """Deal with a message whose handler raised; return whether it is done."""
        failure: Exception | None = error
        attempt = 0
        while failure is not None and not self._passes_over(frame, index, failure):
            attempt += 1
            if not self._waited(frame, attempt):
                return False
            failure = self._retry(frame, index)
        if failure is not None:
            # SAFETY: sole writer; counted before the cursor passes it.
            self._words[w.FAILED] += 1
        self._lane.cursor_word[0] = frame.first + index + 1
        return True

    def _passes_over(self, frame: Frame, index: int, error: Exception) -> bool:
        """Have a failure told, to `on_error` or else the log; return whether that is all."""
        if not self._on_error:
            self._report(frame, index, error)
            return self._spec.force_commit
        said, is_told = self._on_error(self._message(frame, index), error)
        if not is_told:
            self._report(frame, index, error)
        return self._spec.force_commit if said is None else said is Outcome.DONE

    def _report(self, frame: Frame, index: int, error: Exception) -> None:
        """Log a failure; only so many a minute of one kind are written out."""
        if self._limit.admit(type(error).__name__):
            message = self._message(frame, index)
            log.error(
                "%s",
                logs.failure_text(
                    message.topic, message.partition, message.offset, message.key, error
                ),
            )

    def _waited(self, frame: Frame, attempt: int) -> bool:
        """Wait before a message is tried again; False if told to stop meanwhile.

        The lane waits: later messages of it, of this key and of others, stay behind.
        """
        deadline = time.monotonic() + delay_s(attempt, RETRY_FIRST_S, RETRY_MOST_S)
        # A death while it only waits is not the message's doing.
        self._words[w.STATE] = w.STATE_OUTSIDE
        while (left := deadline - time.monotonic()) > 0:
            self._channel_wait(min(left, WAIT_S))
            if self._stopping:
                return False
        self._words[w.STATE] = frame.first + frame.count
        return True

    def _retry(self, frame: Frame, index: int) -> Exception | None:
        """Call the handler on one message again; return what it raised."""
        self._words[w.RETRIED] += 1
        try:
            next(self._calls(frame, index, index + 1))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a handler may raise anything
            return error
        return None

    def _channel_wait(self, timeout_s: float) -> None:
        stop = any(isinstance(m, control.Stop) for m in self._channel.wait(timeout_s))
        self._stopping = self._stopping or stop or self._channel.closed


def _fail(channel: Channel, code: ExitCode, text: str) -> NoReturn:
    channel.tell(control.Failed(int(code), text))
    sys.exit(int(code))


def _yield_to_the_fetcher() -> None:
    """Let a doorbell not take the core away from the fetcher that rings it.

    A woken process of the normal policy preempts whoever woke it: at full speed the fetcher lost a
    fifth of its time so. SCHED_BATCH has the same share of the cores and only waits for the next
    tick. What the handler starts inherits it, which costs that nothing either.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _prepare(spec: control.ProcessorSpec, channel: Channel) -> Handler:
    """Import the handler and call its setup; report and exit if either fails."""
    mark_processor()
    try:
        handler = load(msgspec.msgpack.decode(spec.handler, type=HandlerRef))
    except HandlerImportError as error:
        _fail(channel, ExitCode.HANDLER_IMPORT, str(error))
    context = Context(
        fetcher=spec.fetcher,
        processor=spec.index,
        section=msgspec.json.decode(spec.section),
        document=msgspec.json.decode(spec.document),
        logger=logging.getLogger("kqmp.handler"),
    )
    try:
        handler.setup(context)
    except Exception as error:  # noqa: BLE001 - a handler may raise anything
        # Told by the coordinator, once, however many processors fail of it.
        what = f"{type(error).__name__}: {error}{trace_of(error)}"
        text = f"setup of {handler.name} failed: {what}"
        _fail(channel, ExitCode.WORKER_START, text)
    return handler


def main() -> None:
    """Entry of the process: `python -m kqmp.roles.processor CONTROL_FD PARENT_PID`."""
    channel = become_child(sys.argv, "kqmp: processor")
    spec = first_message(channel)
    assert isinstance(spec, control.ProcessorSpec)
    setproctitle(f"kqmp: {spec.role}")
    outlive_readers()
    logs.setup(spec.role, level=spec.log_level, encoding=spec.log_encoding)
    _yield_to_the_fetcher()
    handler = _prepare(spec, channel)
    processor = Processor(spec, channel, handler)
    # Objects made so far are never garbage: keep the collector off them, but on for the handler's.
    gc.collect()
    gc.freeze()
    channel.tell(control.Ready())
    try:
        processor.run()
        processor.close()
        handler.close()
    except KqmpError as error:
        log.exception("the lane stops")
        _fail(channel, error.exit_code, str(error))


if __name__ == "__main__":
    main()
