"""Who is in a consumer group: asked in a short-lived process of its own, over and over.

`python -m tests.support.group BOOTSTRAP GROUP` prints, some times a second, a JSON object of member
id -> partitions, empty while the group rebalances. The process is ended with SIGKILL: librdkafka
2.16 may hang for ever when an admin client that asked for a group is freed.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.kafka import ROOT

EVERY_S = 0.1


def members(admin: AdminClient, group: str) -> dict[str, list[int]]:
    """Return member id -> its partitions, empty while the group rebalances."""
    try:
        description = admin.describe_consumer_groups([group], request_timeout=10)[group].result()
    except KafkaException:
        return {}
    if description.state is not ConsumerGroupState.STABLE:
        return {}
    return {
        member.member_id: [part.partition for part in member.assignment.topic_partitions]
        for member in description.members
    }


class Members:
    """The answers of one such process."""

    def __init__(self, lines: IO[str]) -> None:
        self._lines = lines

    def next(self) -> dict[str, set[int]]:
        """Wait for the next answer: member id -> partitions, empty while the group rebalances."""
        line = self._lines.readline()
        assert line, "the process that looks at the group ended"
        return {member: set(partitions) for member, partitions in json.loads(line).items()}


@contextlib.contextmanager
def watched(bootstrap: str, group: str) -> Iterator[Members]:
    """Look at a group's members for a while."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.group", bootstrap, group],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield Members(process.stdout)
        finally:
            process.kill()


def main() -> None:
    """Print answers until killed."""
    bootstrap, group = sys.argv[1:]
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    while True:
        print(json.dumps(members(admin, group)), flush=True)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
