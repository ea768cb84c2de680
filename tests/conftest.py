"""Fixtures and rules for all tests: real Kafka where it can run, and nothing left behind.

A test that uses `kafka` or `topic` gets the marker `kafka` by itself. One that starts engine
processes carries `@pytest.mark.engine`: after it no process, descriptor or thread may be left.
"""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from hypothesis import settings

from tests.support import kafka as kafka_support
from tests.support import leaks

#: `topic(partitions=1, config=None)` returns the name of a new topic.
TopicFactory = Callable[..., str]

KAFKA_FIXTURES = frozenset({"kafka", "topic", "kafka_admin"})
SKIPPED = pytest.StashKey[int]()

# No deadline: a shared machine makes any example slow now and then, which is no failure.
settings.register_profile("everyday", deadline=None, print_blob=True)
settings.load_profile("everyday")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SKIPPED] = 0
    leaks.adopt_orphans()
    # A shell's `&` in a script has its command ignore Ctrl-C; tests would hand that on to engines.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Kafka, before -m selects by marker."""
    for item in items:
        if KAFKA_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail where it is required, a test whose Kafka cannot run here."""
    if item.get_closest_marker("kafka") is None:
        return
    missing = kafka_support.missing_tools()
    if missing is None:
        return
    if kafka_support.kafka_is_required():
        pytest.fail(f"{kafka_support.REQUIRE_VARIABLE}=1, but {missing}", pytrace=False)
    item.config.stash[SKIPPED] += 1
    pytest.skip(f"real Kafka cannot run here: {missing}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    count = config.stash[SKIPPED]
    if count:
        terminalreporter.write_line(
            f"{count} tests skipped: real Kafka needs Java 17+ and Maven:"
            f" {kafka_support.missing_tools()}",
            yellow=True,
        )


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test marked `engine` that leaves processes, descriptors, threads or shared memory."""
    if request.node.get_closest_marker("engine") is None:
        yield
        return
    before = leaks.snapshot()
    yield
    found = leaks.wait_until_clean(before)
    leaks.kill_all(found.processes)
    leaks.reap_adopted()
    if found:
        pytest.fail(f"left behind: {found}", pytrace=False)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Any]:
    """Give the session's running one-node cluster (`scripts/kafka_cluster.py`: Cluster).

    A test that stops or kills its node must start it again.
    """
    cluster = kafka_support.cluster_module().Cluster(nodes=1)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def kafka_admin(kafka: Any) -> AdminClient:
    """Give an admin client of the session's cluster.

    One for all tests: each client has threads and pipes, which the check for leaks would see.
    """
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.list_topics(timeout=30)
    return admin


@pytest.fixture
def topic(kafka_admin: AdminClient, request: pytest.FixtureRequest) -> Iterator[TopicFactory]:
    """Give a factory of topics, named after the test and unique; they are deleted after it."""
    created: list[str] = []

    def create(partitions: int = 1, config: dict[str, str] | None = None, replicas: int = 1) -> str:
        name = kafka_support.unique_name(request.node.name)
        kafka_support.create_topic(kafka_admin, name, partitions, config, replicas)
        created.append(name)
        return name

    yield create
    if created:
        for future in kafka_admin.delete_topics(created).values():
            future.result(timeout=30)


@pytest.fixture
def group(request: pytest.FixtureRequest) -> str:
    """Give a consumer group's name that no other test uses."""
    return kafka_support.unique_name(request.node.name)
