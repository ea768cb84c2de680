"""A group member without an engine around it: for tests of `kqmp.kafka.member` and its sources."""

import time

from kqmp.kafka.member import Member


class Group:
    """Hears of assignments."""

    def __init__(self) -> None:
        self.assignment: list[int] = []

    def assigned(self, partitions: list[int]) -> None:
        self.assignment += partitions

    def revoked(self, partitions: list[int]) -> None:
        """Nothing is to be done."""

    lost = revoked


def join(member: Member, group: Group, partitions: int, within_s: float) -> None:
    """Subscribe, and serve the member until it is assigned so many partitions."""
    member.subscribe()
    deadline_s = time.monotonic() + within_s
    while len(group.assignment) < partitions:
        assert time.monotonic() < deadline_s, "it was not assigned"
        member.fetch(1, 0.1)
