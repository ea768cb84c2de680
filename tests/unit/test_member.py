"""A group member on librdkafka's mock cluster: what a partition that comes back still brings."""

import time
from collections.abc import Iterator

import pytest

from kqmp.config import KqConf
from kqmp.kafka.client import consumer_properties
from kqmp.kafka.member import Member
from kqmp.kafka.mock import MockHost
from kqmp.kafka.plain import produce

TOPIC = "orders"

pytestmark = pytest.mark.engine


class Group:
    """Hears of assignments."""

    def __init__(self) -> None:
        self.assignment: list[int] = []

    def assigned(self, partitions: list[int]) -> None:
        self.assignment += partitions

    def revoked(self, partitions: list[int]) -> None:
        """Nothing is to be done."""

    lost = revoked


@pytest.fixture
def member() -> Iterator[Member]:
    with MockHost(TOPIC, 1) as host:
        for _ in produce(host.bootstrap, TOPIC, [(b"key", b"value")] * 200):
            pass
        conf = KqConf(brokers=[host.bootstrap], group="g", topic=TOPIC)
        group = Group()
        one = Member(consumer_properties(conf, 0), TOPIC, group, ())
        one.subscribe()
        deadline = time.monotonic() + 30
        while not group.assignment:
            assert time.monotonic() < deadline
            one.fetch(1, 0.1)
        yield one
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
