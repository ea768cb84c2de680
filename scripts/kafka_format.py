"""Everything a node finds on disk when it starts: its settings and Kafka's formatted log directory.

Called by `kafka_cluster` before any node runs. Kafka's own StorageTool does the formatting.
"""

from __future__ import annotations

import base64
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from kafka_jars import KafkaError
from kafka_node import LOG4J, Node, render_properties

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kafka_security import Security

#: Formatting is a short run: a small heap and only the quick compiler halve it.
FORMAT_FLAGS = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
FORMAT_TIMEOUT_S = 60.0
LOG_LINES_SHOWN = 15


def node_file(directory: Path, node: Node, kind: str) -> Path:
    """Return the ``kind`` ("pid", "log" or "properties") of file of ``node``."""
    return directory / f"node{node.number}.{kind}"


def log4j_flag(directory: Path) -> str:
    """Return the JVM flag that makes Kafka print warnings to its standard output."""
    return f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}"


def write_settings(
    directory: Path, nodes: Sequence[Node], security: Security, overrides: Mapping[str, str]
) -> None:
    """Write the settings of every node; they may differ from those of the last start."""
    (directory / "log4j2.properties").write_text(LOG4J, encoding="ascii")
    for node in nodes:
        logs = directory / f"node{node.number}"
        settings = {**security.settings(node, directory), **overrides}
        file = node_file(directory, node, "properties")
        file.touch(mode=0o600)  # with the password of SASL
        file.write_text(render_properties(node, nodes, logs, settings), encoding="ascii")


def format_storage(
    java: Sequence[str], directory: Path, nodes: Sequence[Node], security: Security
) -> None:
    """Give every node an empty log of one new cluster; `write_settings` comes first.

    Args:
        java: the command that ends before the name of the main class.
        directory: the data directory.
        nodes: all nodes of the cluster.
        security: has the user who is made for SCRAM, if any.

    Raises:
        KafkaError: Kafka's tool failed, with the end of what it printed.
    """
    cluster_id = new_cluster_id()
    flags = [*FORMAT_FLAGS, log4j_flag(directory)]

    def format_node(node: Node) -> None:
        properties = str(node_file(directory, node, "properties"))
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", properties]
        tool += security.format_flags()
        command = [java[0], *flags, *java[1:], *tool]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            problem = f"formatting node {node.number} took over {FORMAT_TIMEOUT_S} s"
            raise KafkaError(problem) from None
        if done.returncode != 0:
            raise error_with_log(f"cannot format node {node.number}", done.stdout + done.stderr)

    with ThreadPoolExecutor(len(nodes)) as threads:
        list(threads.map(format_node, nodes))


def new_cluster_id() -> str:
    """Return a random id as Kafka has it: 16 bytes in URL-safe base64, not starting with "-"."""
    cluster_id = "-"
    while cluster_id.startswith("-"):
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return cluster_id


def error_with_log(problem: str, log: str) -> KafkaError:
    """Return an error that shows the last lines of ``log`` below ``problem``."""
    lines = log.strip().splitlines()[-LOG_LINES_SHOWN:] or ["(nothing was printed)"]
    return KafkaError("\n  ".join([f"{problem}; the end of its log:", *lines]))
