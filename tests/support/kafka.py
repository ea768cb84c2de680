"""Real Apache Kafka for the tests: scripts/kafka_cluster.py, loaded by path, and what is missing.

`kafka_cluster` is the same code as `scripts/kafka`; scripts are no package, hence the load by path.
"""

import functools
import importlib.util
import os
import re
import sys
import time
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

ROOT = Path(__file__).resolve().parents[2]

#: With this variable set to 1 a machine without Java and Maven fails the tests that need Kafka.
REQUIRE_VARIABLE = "KQMP_REQUIRE_KAFKA"


@functools.cache
def cluster_module() -> ModuleType:
    """Return the module `scripts/kafka_cluster.py`."""
    scripts = ROOT / "scripts"
    if str(scripts) not in sys.path:
        sys.path.append(str(scripts))  # it imports its neighbours by name
    spec = importlib.util.spec_from_file_location("kafka_cluster", scripts / "kafka_cluster.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kafka_cluster"] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def missing_tools() -> str | None:
    """Say what this machine lacks to run Kafka, None if nothing."""
    reason: str | None = cluster_module().missing_tools()
    return reason


def kafka_is_required() -> bool:
    """Whether the absence of Kafka is a failure (CI) instead of a skip."""
    return os.environ.get(REQUIRE_VARIABLE, "") not in ("", "0")


def unique_name(stem: str) -> str:
    """Return a legal topic or group name that no other test uses."""
    return f"{re.sub(r'[^a-zA-Z0-9._-]', '-', stem)[:80]}-{uuid.uuid4().hex[:8]}"


def create_topic(
    admin: AdminClient, name: str, partitions: int, config: dict[str, str] | None, replicas: int
) -> None:
    """Create a topic and return when every partition of it has a leader.

    The broker's answer alone does not suffice: metadata spreads after it, and a client that asks
    in between is told that the topic is unknown.
    """
    new = NewTopic(
        name, num_partitions=partitions, replication_factor=replicas, config=config or {}
    )
    admin.create_topics([new])[name].result(timeout=30)
    deadline = time.monotonic() + 30
    while True:
        topic: Any = admin.list_topics(name, timeout=10).topics[name]
        leaders = [p.leader for p in topic.partitions.values()]
        if topic.error is None and len(leaders) == partitions and min(leaders) >= 0:
            return
        assert time.monotonic() < deadline, f"topic {name} has no leaders after 30 s: {leaders}"
        time.sleep(0.02)
