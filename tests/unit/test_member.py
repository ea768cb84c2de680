"""A group member on librdkafka's mock cluster, with messages by each of the two ways.

What a partition that comes back still brings, who hears of errors, what is dropped.
"""

import gc
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator

import pytest

from kqmp.config import KqConf
from kqmp.kafka import compiled
from kqmp.kafka.client import consumer_properties
from kqmp.kafka.member import Member
from kqmp.kafka.mock import MockHost
from kqmp.kafka.plain import produce
from tests.support.member import Group, join

TOPIC = "orders"

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with MockHost(TOPIC, 1) as host:
        for _ in produce(host.bootstrap, TOPIC, [(b"key", b"value")] * 200):
            pass
        yield host.bootstrap


@pytest.fixture(params=["compiled", "plain"])
def member(
    request: pytest.FixtureRequest, bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Member]:
    if request.param == "plain":
        monkeypatch.setenv(compiled.SWITCH, "0")
    elif why := compiled.why_not():
        pytest.skip(why)
    conf = KqConf(brokers=[bootstrap], group=f"g{time.monotonic_ns()}", topic=TOPIC)
    group = Group()
    one = Member(consumer_properties(conf, 0), TOPIC, group, ())
    assert bool(one.slow_because) == (request.param == "plain")
    try:
        join(one, group, 1, within_s=10)
        yield one
    finally:
        # Always: the end of a client that is not closed waits for callbacks that nobody serves.
        one.close()


def offsets_of(member: Member, count: int, within_s: float) -> list[int]:
    offsets: list[int] = []
    deadline = time.monotonic() + within_s
    while len(offsets) < count and time.monotonic() < deadline:
        fetched = member.fetch(count - len(offsets), 0.1)
        if fetched is not None:
            offsets += fetched.columns.offsets
    return offsets


def test_a_partition_given_up_while_paused_is_read_when_it_comes_back(member: Member) -> None:
    member.read_from({0: 0})
    assert offsets_of(member, 5, 30) == [0, 1, 2, 3, 4]
    member.pause([0])
    member.stop_reading([0])
    member.read_from({0: 100})
    assert offsets_of(member, 5, 10) == [100, 101, 102, 103, 104]


def test_what_is_paused_brings_nothing_and_then_goes_on_where_it_was(member: Member) -> None:
    member.read_from({0: 10})
    assert offsets_of(member, 5, 30) == [10, 11, 12, 13, 14]
    member.pause([0])
    assert offsets_of(member, 1, 0.5) == []
    member.resume([0])
    assert offsets_of(member, 5, 10) == [15, 16, 17, 18, 19]


def test_an_offset_that_the_log_does_not_have_is_told(member: Member) -> None:
    member.read_from({0: 5000})
    deadline = time.monotonic() + 10
    while not member.out_of_range:
        assert time.monotonic() < deadline
        assert member.fetch(10, 0.1) is None
    assert member.out_of_range[0] == (0, 5000)
    member.stop_reading([0])
    member.read_from({0: 199})
    assert offsets_of(member, 1, 10) == [199]


def test_what_is_given_up_and_taken_again_at_once_is_read_each_time(member: Member) -> None:
    for offset in range(60):
        member.read_from({0: offset})
        assert offsets_of(member, 1, 5) == [offset]
        member.stop_reading([0])


def test_a_member_that_was_closed_can_be_collected(member: Member, bootstrap: str) -> None:
    conf = KqConf(brokers=[bootstrap], group="other", topic=TOPIC)
    one = Member(consumer_properties(conf, 0), TOPIC, Group(), ())
    one.close()
    seen = weakref.ref(one)
    del one
    gc.collect()
    assert seen() is None


def test_it_closes_with_messages_that_nobody_took(member: Member) -> None:
    member.read_from({0: 0})
    assert offsets_of(member, 1, 30) == [0]
    # The rest waits in librdkafka's queues; the fixture closes the member.


END_UNCLOSED = """
import sys, time
from kqmp.config import KqConf
from kqmp.kafka.client import consumer_properties
from kqmp.kafka.member import Member
from kqmp.roles.spawn import leave

class Group:
    assigned = revoked = lost = lambda self, partitions: None

conf = KqConf(brokers=[sys.argv[1]], group="unclosed", topic=sys.argv[2])
member = Member(consumer_properties(conf, 0), conf.topic, Group(), ())
member.subscribe()
time.sleep(3)  # it is assigned, and nobody hears of it
leave(3)
"""


def test_a_process_that_leaves_does_not_wait_for_callbacks_nobody_serves(bootstrap: str) -> None:
    """By `sys.exit` it would: the client's destructor waits for ever."""
    command = [sys.executable, "-c", END_UNCLOSED, bootstrap, TOPIC]
    assert subprocess.run(command, timeout=30, check=False).returncode == 3
