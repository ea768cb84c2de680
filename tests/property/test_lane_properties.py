"""Lanes and log against naive deques: any order of steps, any actor killed at any store."""

import os
from contextlib import contextmanager

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kqmp.ring import words as w
from tests.support.rig import Rig
from tests.support.stores import Killed, Steps, watch

LANES = 2
RING = w.PAGE
#: Bytes of the values of a frame; more than half the ring (2048) with all around it needs a region.
LARGE = 5000
sizes = st.lists(st.none() | st.sampled_from([0, 1, 100, 700, 1800, 1900]), min_size=1, max_size=5)
sizes |= st.just([LARGE])
lane = st.integers(0, LANES - 1)
#: A store at which the actor is killed; mostly (None) it lives.
kill = st.integers(0, 99).map(lambda n: n - 85 if n >= 85 else None)


class LaneMachine(RuleBasedStateMachine):
    """A fetcher, two lanes with their processors, and the coordinator."""

    def __init__(self):
        super().__init__()
        self.rig = Rig(LANES, RING)
        self.parked = [set() for _ in range(LANES)]

    def teardown(self):
        try:
            for index in range(LANES):
                self.finish_all(index)
            self.rig.kill_fetcher()
            self.rig.go_on()
        finally:
            self.rig.close()

    def finish_all(self, index):
        for number in sorted(self.parked[index]):
            self.rig.processors[index].finish(number)
        self.parked[index].clear()

    def batch(self, sizes):
        """Return values of these sizes; no two of a machine are the same bytes."""
        text = b"%d " % self.rig.offset
        return [None if size is None else (text * size)[:size] for size in sizes]

    # The fetcher.

    @contextmanager
    def fetcher_may_die(self, kill_at):
        self.rig.watch_fetcher(Steps(kill_at, look=self.rig.check_visible))
        try:
            yield
        except Killed:
            self.rig.kill_fetcher()
        finally:
            self.rig.watch_fetcher(Steps())

    @rule(index=lane, sizes=sizes, kill_at=kill)
    def write(self, index, sizes, kill_at):
        writer = self.rig.writers[index]
        # Nothing of this lane is in use: then it must take whatever comes.
        idle = writer.end == self.rig.controls[index]._words[w.RELEASED]
        with self.fetcher_may_die(kill_at):
            assert self.rig.write(index, self.batch(sizes)) or not idle

    @rule(kill_at=kill)
    def publish(self, kill_at):
        idle = not self.rig.records
        with self.fetcher_may_die(kill_at):
            assert self.rig.publish() or not idle

    @rule(index=lane, sizes=sizes, kill_at=kill)
    def write_and_publish(self, index, sizes, kill_at):
        with self.fetcher_may_die(kill_at):
            self.rig.write(index, self.batch(sizes))
            self.rig.publish()

    @rule(times=st.integers(1, 100))
    def publish_until_the_log_is_full(self, times):
        """Records without messages, as when all of a batch were dropped."""
        for _ in range(times):
            if not self.rig.publish():
                break

    @rule()
    def fetcher_dies(self):
        self.rig.kill_fetcher()

    @initialize(rounds=st.integers(0, 120))
    def begin_anywhere(self, rounds):
        """Put the ends of lanes and log at any place, after any number of laps."""
        self.go_round(rounds)

    @rule(rounds=st.integers(1, 30))
    def go_round(self, rounds):
        """Everybody works on undisturbed."""
        for index in range(LANES):
            self.finish_all(index)
        self.rig.drain()
        # What was written and not published takes room that nobody can give back.
        assert self.rig.publish()
        self.rig.drain()
        for number in range(rounds):
            assert self.rig.write(number % LANES, self.batch([10 * number]))
            assert self.rig.publish()
            self.rig.drain()

    # The coordinator.

    @rule()
    def count(self):
        self.rig.count()

    # Processors.

    @contextmanager
    def processor_may_die(self, index, kill_at):
        steps = Steps(kill_at, look=self.a_cursor_and_its_open_table_are_the_models)
        watch(self.rig.processors[index].reader, steps)
        try:
            yield
        except Killed:
            self.rig.kill_processor(index)
        finally:
            watch(self.rig.processors[index].reader, Steps())

    @rule(index=lane)
    def read(self, index):
        if self.rig.processors[index].frame is None:
            self.rig.processors[index].read()

    @rule(index=lane, kill_at=kill, data=st.data())
    def take(self, index, kill_at, data):
        processor = self.rig.processors[index]
        count = data.draw(st.integers(0, processor.untaken))
        with self.processor_may_die(index, kill_at):
            processor.take(count)

    @rule(index=lane, kill_at=st.sampled_from([None, None, 0, 1]))
    def park(self, index, kill_at):
        processor = self.rig.processors[index]
        number = processor.reader.cursor
        if processor.untaken:
            with self.processor_may_die(index, kill_at):
                processor.park()
            if self.rig.controls[index].cursor > number:
                self.parked[index].add(number)

    @precondition(lambda self: any(self.parked))
    @rule(index=lane)
    def finish(self, index):
        self.finish_all(index)

    @rule(index=lane, kill_at=kill)
    def release(self, index, kill_at):
        processor = self.rig.processors[index]
        if processor.frame is not None and not processor.untaken and not self.parked[index]:
            with self.processor_may_die(index, kill_at):
                processor.release()

    @rule(index=lane)
    def handle_all(self, index):
        self.finish_all(index)
        self.rig.handle_all(index)

    @rule(index=lane)
    def processor_dies(self, index):
        self.rig.kill_processor(index)

    # What holds at any moment.

    @invariant()
    def whoever_looks_sees_one_record_whole(self):
        self.rig.check_visible()

    @invariant()
    def a_cursor_and_its_open_table_are_the_models(self):
        for control, parked, sent in zip(
            self.rig.controls, self.parked, self.rig.sent, strict=True
        ):
            assert control.cursor <= len(sent)
            assert control.open_numbers(control.cursor) == sorted(parked)

    @invariant()
    def memory_is_bounded(self):
        for fd, writer in zip(self.rig.lane_fds, self.rig.writers, strict=True):
            assert 0 <= writer.free_bytes() <= RING
            largest_region = 5 * LARGE
            assert os.fstat(fd).st_size <= self.rig.file_bytes + largest_region


TestLanes = LaneMachine.TestCase
TestLanes.settings = settings(
    max_examples=70,
    stateful_step_count=50,
    deadline=None,
    # Without `explain`, which takes as long as all the rest.
    phases=[Phase.reuse, Phase.generate, Phase.shrink],
)
