"""A fetcher: one consumer-group member that feeds its lanes and commits what it is told to.

It polls librdkafka, hands batches to the `Dispatcher`, and carries out the coordinator's words:
open a partition at a position, commit, stop. It decides no offset: where there is a committed
position it reports it, where there is none it chooses by `Offset` and commits that start at once,
so that `last` cannot skip messages. The collector is off: batches have no cycles.
"""

import gc
import logging
import sys
import time
from collections.abc import Iterable
from typing import Final

from setproctitle import setproctitle

from kqmp.config import KqConf
from kqmp.core.batch import SPAN_MAX, Opening, Part
from kqmp.errors import BrokerError, ExitCode
from kqmp.kafka import client
from kqmp.kafka.member import Fetched, KafkaError, KafkaException, Member
from kqmp.obs import logs
from kqmp.obs.repeats import Repeats
from kqmp.ring import words as w
from kqmp.roles import control
from kqmp.roles.assignment import Assignment
from kqmp.roles.channel import Channel
from kqmp.roles.dispatch import Dispatcher
from kqmp.roles.spawn import become_child, first_message, leave

#: Most messages of one fetch.
BATCH: Final = 2000
#: Bytes that one fetch may bring when messages are large (estimated from the last ones).
BATCH_BYTES: Final = 4 << 20
#: Longest wait for a message; bounds how late a control message is read on a quiet topic.
IDLE_S: Final = 0.1
#: The same while an answer of the coordinator is awaited.
EAGER_S: Final = 0.005
#: librdkafka's callbacks are served at least this often while the lanes are full.
SERVE_S: Final = 0.1
#: How long the brokers may take to answer before the engine's first assignment.
CONNECT_S: Final = 20.0
#: How long the final commit is tried.
FINAL_COMMIT_S: Final = 5.0

log = logging.getLogger("kqmp.fetcher")


class Fetcher:
    """The loop of one fetcher process."""

    def __init__(self, spec: control.FetcherSpec, channel: Channel) -> None:
        """Attach to the lanes and create the client."""
        self._conf = KqConf.from_wire(spec.conf)
        self._spec = spec
        self._channel = channel
        now = time.monotonic()
        self._dispatcher = Dispatcher(
            spec.dispatch_fd,
            spec.lane_fds,
            spec.bell_fds,
            self._conf.ordering,
            self._conf.dispatch_ahead_ms / 1000,
            now,
        )
        self._assignment = Assignment(self._conf, channel, self._dispatcher)
        self._member = Member(
            client.consumer_properties(self._conf, spec.index),
            self._conf.topic,
            self._assignment,
            spec.columns,
        )
        self._member.on_committed = self._committed
        self._assignment.member = self._member
        self._joined = spec.assigned_before
        #: Partition -> (epoch, position) of commits that wait for the answer to one under way.
        self._next_commit: dict[int, tuple[int, int]] = {}
        self._served_s = self._told_lag_s = self._claimed_s = now
        self._bytes_each = 100
        self._bays_full = False
        self._long_span: set[int] = set()
        self._paused: set[int] = set()
        self._drained = False
        self._finish: list[tuple[int, int, int]] | None = None

    def run(self) -> None:
        """Join the group and feed the lanes until told to finish."""
        if not self._connect():
            return
        self._member.subscribe()
        while self._finish is None and not self._channel.closed:
            self._turn()
        if self._finish is not None:
            self._leave(self._finish)

    def _connect(self) -> bool:
        """Find the topic and wait for `Start`; return False if told to stop meanwhile.

        Raises:
            BrokerError: no broker answered, refused us, or has no such topic, and the engine
                never had an assignment.
        """
        deadline = time.monotonic() + CONNECT_S
        while (partitions := self._topic_partitions(deadline)) < 0:
            if self._stopped(self._channel.receive()):
                return False
        self._channel.tell(control.Ready(partitions, self._member.slow_because))
        while not self._channel.closed:
            messages = self._channel.wait(1.0)
            if self._stopped(messages):
                return False
            if any(isinstance(message, control.Start) for message in messages):
                return True
        return False

    @staticmethod
    def _stopped(messages: list[control.Message]) -> bool:
        return any(isinstance(m, control.Stop | control.Finish) for m in messages)

    def _topic_partitions(self, deadline_s: float) -> int:
        """Return the topic's partitions, or -1 to try again."""
        names = ", ".join(self._conf.brokers)
        try:
            count = self._member.topic_partitions(2.0)
        except KafkaException as error:
            self._member.fetch(1, 0.2)
            if self._joined:
                return -1
            if self._member.refused is not None:
                told = self._member.refused.str()
                raise BrokerError(client.refusal(self._conf, told)) from None
            if time.monotonic() < deadline_s:
                return -1
            told = (self._member.last_error or error.args[0]).str()
            msg = f"no answer from the brokers {names} (Brokers) within {CONNECT_S:.0f} s: {told}"
            raise BrokerError(msg) from None
        if not count and not self._joined:
            msg = f"topic {self._conf.topic!r} (Topic) does not exist on {names}: create it first"
            raise BrokerError(msg)
        if not count:
            self._member.fetch(1, 1.0)
        return count or -1

    def _turn(self) -> None:
        """Turn the loop once: control, lanes, fetch, dispatch."""
        now = time.monotonic()
        self._control()
        self._dispatcher.look(now)
        stopping, sleeps = self._assignment.stopping, False
        wanted = 0 if stopping else self._dispatcher.wanted()
        if wanted:
            count = max(1, min(wanted, BATCH, BATCH_BYTES // self._bytes_each))
            eager = self._assignment.unclaimed or not self._assignment.openings
            wait_s = min(EAGER_S if eager else IDLE_S, self._dispatcher.bays_wait_s())
            self._served_s = now
            self._take(self._member.fetch(count, wait_s))
            # On a fresh look at the lanes: the fetch may have waited since the last one.
            self._dispatcher.look(time.monotonic())
            self._dispatcher.send()
        elif now - self._served_s >= SERVE_S:
            self._served_s = now
            self._take(self._member.serve())
            self._dispatcher.send()
        else:
            sleeps = not self._dispatcher.send()
        self._housekeeping(now)
        if sleeps:
            wait_s = self._dispatcher.bays_wait_s() if stopping else self._dispatcher.wait_s()
            self._assignment.deferred += self._channel.wait(wait_s)

    def _take(self, fetched: Fetched | None) -> None:
        """Place a batch, less what is not open or lies below its position."""
        while self._member.out_of_range:
            self._assignment.out_of_range(*self._member.out_of_range.pop())
        if fetched is None:
            return
        columns, count = fetched.columns, len(fetched.columns.keys)
        parts, mask = self._wanted_parts(fetched)
        dropped = mask.count(0)
        if dropped:
            columns = columns.select(bytes(mask))
        self._bytes_each = max(1, fetched.value_bytes // count)
        if parts:
            self._dispatcher.place(columns, parts, fetched.value_bytes)
            self._watch_spans(opening for opening, _ in parts)
        self._dispatcher.count_up(count, fetched.value_bytes, dropped)

    def _watch_spans(self, openings: Iterable[Opening]) -> None:
        """Note which have so much under way that they must pause until more is committed."""
        for opening in openings:
            if opening.fetched_position - opening.committed_position > SPAN_MAX - 2 * BATCH:
                self._long_span.add(opening.partition)

    def _wanted_parts(self, fetched: Fetched) -> tuple[list[Part], bytearray]:
        """Return the parts to place, and a mask of their messages."""
        openings = {} if self._assignment.stopping else self._assignment.openings
        offsets = fetched.columns.offsets
        parts: list[Part] = []
        mask = bytearray()
        start = 0
        for partition, size in fetched.runs:
            opening = openings.get(partition)
            kept = 0
            if opening is not None:
                low = opening.fetched_position
                kept = size
                if offsets[start] < low:
                    kept = sum(offset >= low for offset in offsets[start : start + size])
                if kept:
                    parts.append(Part(opening, kept))
            mask += b"\0" * (size - kept) + b"\1" * kept
            start += size
        return parts, mask

    def _control(self) -> None:
        """Carry out what the coordinator says."""
        messages = self._assignment.deferred + self._channel.receive()
        self._assignment.deferred = []
        for message in messages:
            match message:
                case control.Opens():
                    self._assignment.open(message)
                    self._watch_spans(self._assignment.openings.values())
                    self._throttle()
                case control.Commit(items):
                    self._commit(items)
                case control.Stop():
                    self._assignment.stopping = True
                    self._assignment.unclaimed.clear()
                case control.Finish(items):
                    self._finish = items
                case _:
                    pass

    def _commit(self, items: list[tuple[int, int, int]]) -> None:
        """Send a commit; while one is unanswered the newest of each partition waits."""
        if self._assignment.unanswered:
            self._next_commit |= {p: (epoch, position) for p, epoch, position in items}
            return
        openings = self._assignment.openings
        current = {
            p: (epoch, position)
            for p, epoch, position in items
            if p in openings and openings[p].epoch == epoch
        }
        if not current:
            self._channel.tell(control.Committed([]))
            return
        self._assignment.unanswered = current
        try:
            self._member.commit_later({p: position for p, (_, position) in current.items()})
        except KafkaException as error:
            self._committed(error.args[0], [])

    def _committed(self, error: KafkaError | None, taken: list[tuple[int, int]]) -> None:
        """The broker answered a commit (callback inside `fetch`)."""
        sent, self._assignment.unanswered = self._assignment.unanswered, {}
        items = []
        for partition, position in taken:
            epoch, wanted = sent.get(partition, (0, -1))
            opening = self._assignment.openings.get(partition)
            if position != wanted:
                continue
            items.append((partition, epoch, position))
            if opening is not None and opening.epoch == epoch:
                opening.committed_position = max(opening.committed_position, position)
        self._channel.tell(control.Committed(items, error.str() if error else ""))
        self._claimed_s = 0.0  # what waited for this answer is claimed in this turn
        if self._next_commit:
            waiting, self._next_commit = self._next_commit, {}
            self._commit([(p, epoch, position) for p, (epoch, position) in waiting.items()])

    def _housekeeping(self, now: float) -> None:
        """Backpressure, claims to try again, lag, and the answer to `Stop`."""
        self._dispatcher.beat()
        self._throttle()
        if self._assignment.unclaimed and now - self._claimed_s >= 1.0:
            self._claimed_s = now
            self._assignment.claim()
        if now - self._told_lag_s >= 1.0:
            self._told_lag_s = now
            self._tell_lag()
        if not self._joined and self._member.refused is not None:
            raise BrokerError(client.refusal(self._conf, self._member.refused.str()))
        if self._member.fatal is not None:
            raise KafkaException(self._member.fatal)
        self._joined = self._joined or bool(self._assignment.openings)
        holds = self._dispatcher.held_count or self._dispatcher.pending
        if self._assignment.stopping and not self._drained and not holds:
            self._drained = True
            self._channel.tell(control.Drained())

    def _throttle(self) -> None:
        """Pause what is over a bound, with wide hysteresis: a pause drops what was prefetched."""
        fullness = self._dispatcher.fullness
        self._bays_full = fullness >= 1 or (self._bays_full and fullness > 0.25)
        openings = self._assignment.openings
        crowded = self._dispatcher.crowded()
        is_over = self._bays_full or self._long_span or crowded
        if not (is_over or self._paused or self._assignment.stopping):
            return
        self._long_span = {
            p
            for p in self._long_span
            if p in openings
            and openings[p].fetched_position - openings[p].committed_position > SPAN_MAX // 2
        }
        everything = self._bays_full or self._assignment.stopping
        wanted = set(openings) if everything else self._long_span | crowded
        self._paused &= set(openings)
        pause, resume = wanted - self._paused, self._paused - wanted
        if pause:
            self._member.pause(pause)
            self._dispatcher.log.words[w.PAUSED_COUNT] += len(pause)
        if resume:
            self._member.resume(resume)
        self._paused = set(wanted)

    def _tell_lag(self) -> None:
        openings = self._assignment.openings
        ends = [(partition, self._member.high_watermark(partition)) for partition in openings]
        lag = sum(max(0, end - openings[partition].committed_position) for partition, end in ends)
        self._channel.tell(control.Lag(lag, len(openings)))
        for some in control.in_messages(ends):
            self._channel.tell(control.Ends(some))

    def _leave(self, items: list[tuple[int, int, int]]) -> None:
        """Commit the final positions, tell what was confirmed, leave the group."""
        openings = self._assignment.openings
        final = {p: (e, pos) for p, e, pos in items}
        deadline = time.monotonic() + FINAL_COMMIT_S
        while time.monotonic() < deadline:
            # Between two attempts a rebalance may have taken some: another member has them now.
            final = {p: f for p, f in final.items() if p in openings and openings[p].epoch == f[0]}
            if not final:
                break
            try:
                taken = self._member.commit_now({p: pos for p, (_, pos) in final.items()})
            except KafkaException as error:
                log.warning("final commit: %s", error)
                self._member.fetch(1, 0.1)
                continue
            done = [(p, final.pop(p)[0], pos) for p, pos in taken.items() if p in final]
            for some in control.in_messages(done):
                self._channel.tell(control.Committed(some))
            if final:
                self._member.fetch(1, 0.1)
        self._assignment.closing = True
        self._member.close()


def _fetcher(spec: control.FetcherSpec, channel: Channel) -> Fetcher:
    try:
        return Fetcher(spec, channel)
    except KafkaException as error:
        # librdkafka knows no such property, or not with such a value.
        told = error.args[0].str()
        mend = client.key_to_mend(KqConf.from_wire(spec.conf), told)
        text = f"librdkafka refuses the configuration: {told}; mend {mend}"
        channel.tell(control.Failed(int(ExitCode.CONFIG), text))
        leave(ExitCode.CONFIG)


def main() -> None:
    """Entry of the process: `python -m kqmp.roles.fetcher CONTROL_FD PARENT_PID`."""
    channel = become_child(sys.argv, "kqmp: fetcher")
    spec = first_message(channel)
    assert isinstance(spec, control.FetcherSpec)
    setproctitle(f"kqmp: {spec.role}")
    logs.setup(spec.role, level=spec.log_level, encoding=spec.log_encoding)
    logging.getLogger("kqmp.kafka").addFilter(Repeats(log))
    gc.disable()
    conf = KqConf.from_wire(spec.conf)
    fetcher = _fetcher(spec, channel)
    code = 0
    try:
        fetcher.run()
    except BrokerError as error:
        code = ExitCode.BROKER
        channel.tell(control.Failed(code, str(error)))
    except KafkaException as error:
        code, text = client.last_words(client.instance_id(conf, spec.index), error.args[0])
        channel.tell(control.Failed(code, text))
    except Exception:
        code = 1
        log.exception("it cannot go on")
    leave(code)


if __name__ == "__main__":
    main()
