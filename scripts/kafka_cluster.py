"""Real Apache Kafka in KRaft mode on 127.0.0.1, for tests and for trying kqmp out.

`Cluster` is the whole interface. A test uses it as a context manager and its JVMs die with the
test's process, however that ends; `scripts/kafka` makes clusters that outlive it.

All that is known about a cluster lies in its data directory, so that another process can pick it
up (`Cluster.open`): ``cluster.json`` (shape and ports), and per node N ``nodeN/`` (Kafka's log),
``nodeN.properties``, ``nodeN.log`` (what the JVM printed) and ``nodeN.pid``.
"""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

# This file is also loaded by its path, which does not put its siblings within reach.
if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from kafka_jars import KAFKA_VERSION, KafkaError, class_path, find_java, missing_tools
from kafka_node import (
    HOST,
    LOG4J,
    Node,
    choose_ports,
    live_brokers,
    port_is_free,
    render_properties,
)
from kafka_process import ProcessId, launch_detached, launch_tied, stop_all

__all__ = [
    "DEFAULT_HEAP",
    "KAFKA_VERSION",
    "Cluster",
    "KafkaError",
    "NodeStatus",
    "launch_detached",
    "launch_tied",
    "missing_tools",
]

DEFAULT_HEAP = "-Xms256m -Xmx1g -XX:+UseG1GC"
#: Formatting is a short run: a small heap and the quick compiler halve it.
FORMAT_FLAGS = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
FORMAT_TIMEOUT_S = 60.0
START_TIMEOUT_S = 60.0
#: A clean shutdown takes about 1 s; a node without a quorum would wait for minutes.
STOP_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.05
LOG_LINES_SHOWN = 15


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node as `Cluster.status` found it."""

    number: int
    port: int
    #: None if the node does not run.
    pid: int | None
    log: Path


class Cluster:
    """A Kafka cluster of one or three nodes, listening on 127.0.0.1 only.

    Guarantees: after `start` returned, every node serves and knows all others; when `start` raises,
    nothing of it is left running; `stop` returns only when no JVM of the cluster is left. Only JVMs
    that it started itself are ever signalled. Not guaranteed: that a node which came back from
    `restart` has caught up with the others.

    Methods may be called from any thread, but one at a time.
    """

    def __init__(
        self,
        nodes: int = 1,
        port: int | None = None,
        data: Path | str | None = None,
        heap: str = DEFAULT_HEAP,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Describe a cluster; nothing happens before `start`.

        Args:
            nodes: 1 or 3.
            port: of node 1; the others take the next ones. None: any free ports.
            data: where the data are kept from start to start (made if missing). None: in a
                temporary directory that `stop` removes.
            heap: JVM flags for every node.
            properties: broker settings that replace or extend those of `render_properties`.

        Raises:
            KafkaError: ``nodes`` or ``port`` is out of range.
        """
        if nodes not in (1, 3):
            raise KafkaError(f"nodes: {nodes} is not possible; take 1 or 3")
        if port is not None and not 1 <= port <= 65_535 - nodes:
            raise KafkaError(f"port: {port} is not a port; take one from 1 to {65_535 - nodes}")
        self._count = nodes
        self._port = port
        self._kept = None if data is None else Path(data).absolute()
        self._heap = heap
        self._properties = dict(properties or {})
        self._directory = self._kept
        self._nodes: list[Node] = []
        self.launch: Callable[[Sequence[str], Path, Path], ProcessId] = launch_tied
        self.say: Callable[[str], None] = lambda line: None

    @classmethod
    def open(cls, directory: Path) -> Cluster:
        """Pick up the cluster whose data lie in ``directory``, running or not.

        Raises:
            KafkaError: there is no cluster in ``directory``.
        """
        try:
            record = json.loads((directory / "cluster.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise KafkaError(f"{directory} holds no Kafka cluster") from None
        nodes = [Node(**node) for node in record["nodes"]]
        kept = None if record["temporary"] else directory
        found = cls(len(nodes), nodes[0].port, kept, record["heap"], record["properties"])
        found._directory = directory
        found._nodes = nodes
        return found

    @property
    def bootstrap(self) -> str:
        """The address for clients, "127.0.0.1:PORT": node 1's.

        Raises:
            KafkaError: the cluster was not started.
        """
        return f"{HOST}:{self._node(1).port}"

    @property
    def directory(self) -> Path:
        """Where data and logs lie.

        Raises:
            KafkaError: the data are temporary and the cluster was not started.
        """
        if self._directory is None:
            raise KafkaError("the cluster is not started")
        return self._directory

    @property
    def is_temporary(self) -> bool:
        """Whether `stop` removes the data."""
        return self._kept is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start all nodes and wait until each of them serves and knows all others.

        Blocking: at most about ``timeout_s`` after formatting; the very first start also fetches
        the jars.

        Raises:
            KafkaError: a tool is missing, a port is taken, the cluster runs already, the data do
                not fit, or a node ended or did not answer in time (with the end of its log).
        """
        java = [find_java(), "-cp", class_path(self.say)]
        self._take_directory()
        try:
            self._take_ports()
            self._format(java)
            self._record()
            for node in self._nodes:
                self._launch(java, node)
            everyone = frozenset(node.number for node in self._nodes)
            deadline_s = time.monotonic() + timeout_s
            for node in self._nodes:
                self._wait_serving(node, everyone, deadline_s)
        except BaseException:
            self._end_nodes(self._nodes, term_timeout_s=0.0)
            self._remove_temporary()
            raise

    def stop(self) -> None:
        """End every node, cleanly if it obeys within 10 s, and remove temporary data.

        Does nothing for a cluster that does not run.
        """
        self._end_nodes(self._nodes, STOP_TIMEOUT_S)
        self._remove_temporary()

    def kill(self, number: int) -> None:
        """Kill node ``number`` with SIGKILL, as a crash would, and wait until it is gone.

        Raises:
            KafkaError: there is no such node, or it does not run.
        """
        process = self._running(self._node(number))
        if process is None:
            raise KafkaError(f"node {number} does not run")
        process.send(signal.SIGKILL)
        process.wait_gone(STOP_TIMEOUT_S)

    def restart(self, number: int, timeout_s: float = START_TIMEOUT_S) -> None:
        """Stop node ``number`` if it runs, start it again on its ports, wait until it serves.

        Raises:
            KafkaError: there is no such node, or it did not come up (it is killed then; the
                others are left as they are).
        """
        node = self._node(number)
        process = self._running(node)
        if process is not None:
            stop_all([process], STOP_TIMEOUT_S)
        java = [find_java(), "-cp", class_path(self.say)]
        self._launch(java, node)
        try:
            self._wait_serving(node, frozenset({number}), time.monotonic() + timeout_s)
        except BaseException:
            self._end_nodes([node], term_timeout_s=0.0)
            raise

    def status(self) -> list[NodeStatus]:
        """Describe every node; empty before the first start."""
        found = []
        for node in self._nodes:
            process = self._running(node)
            pid = None if process is None else process.pid
            found.append(NodeStatus(node.number, node.port, pid, self._file(node, "log")))
        return found

    def _node(self, number: int) -> Node:
        for node in self._nodes:
            if node.number == number:
                return node
        if not self._nodes:
            raise KafkaError("the cluster is not started")
        raise KafkaError(f"there is no node {number}; this cluster has 1 to {len(self._nodes)}")

    def _file(self, node: Node, kind: str) -> Path:
        return self.directory / f"node{node.number}.{kind}"

    def _running(self, node: Node) -> ProcessId | None:
        process = ProcessId.read(self._file(node, "pid"))
        return process if process is not None and process.is_running() else None

    def _end_nodes(self, nodes: Sequence[Node], term_timeout_s: float) -> None:
        records = [ProcessId.read(self._file(node, "pid")) for node in nodes]
        stop_all([record for record in records if record is not None], term_timeout_s)

    def _remove_temporary(self) -> None:
        if self._kept is None and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
            self._nodes = []

    def _take_directory(self) -> None:
        if any(status.pid is not None for status in self.status()):
            raise KafkaError(f"the cluster runs already, on {self.bootstrap}")
        self._remove_temporary()
        if self._kept is None:
            self._directory = Path(tempfile.mkdtemp(prefix="kqmp-kafka-"))
            return
        self._kept.mkdir(parents=True, exist_ok=True)
        if not any(self._kept.iterdir()):
            return
        there = Cluster.open(self._kept)
        if any(status.pid is not None for status in there.status()):
            raise KafkaError(f"the cluster in {self._kept} runs already, on {there.bootstrap}")
        if len(there._nodes) != self._count:
            raise KafkaError(
                f"{self._kept} holds a cluster of {len(there._nodes)} node(s), not {self._count}: "
                "ask for that number, or for another directory"
            )

    def _take_ports(self) -> None:
        if self._port is None:
            ports = choose_ports(self._count)
        else:
            ports = list(range(self._port, self._port + self._count))
            for port in ports:
                if not port_is_free(port):
                    raise KafkaError(f"port {port} on {HOST} is in use by another program")
        controller_ports = choose_ports(self._count, taken=ports)
        self._nodes = [
            Node(index + 1, port, controller_port)
            for index, (port, controller_port) in enumerate(
                zip(ports, controller_ports, strict=True)
            )
        ]

    def _format(self, java: Sequence[str]) -> None:
        (self.directory / "log4j2.properties").write_text(LOG4J, encoding="utf-8")
        for node in self._nodes:
            logs = self.directory / f"node{node.number}"
            text = render_properties(node, self._nodes, logs, self._properties)
            self._file(node, "properties").write_text(text, encoding="utf-8")
        if (self.directory / "cluster.json").exists():
            return
        # Kafka's ids are 22 characters of URL-safe base64 and must not look like an option.
        cluster_id = "-"
        while cluster_id.startswith("-"):
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        with ThreadPoolExecutor(len(self._nodes)) as threads:
            list(threads.map(lambda node: self._format_node(java, node, cluster_id), self._nodes))

    def _format_node(self, java: Sequence[str], node: Node, cluster_id: str) -> None:
        properties = str(self._file(node, "properties"))
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", properties]
        command = [java[0], *FORMAT_FLAGS, *self._log_flags(), *java[1:], *tool]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines()[-LOG_LINES_SHOWN:]
            raise KafkaError("\n  ".join([f"cannot format the data of node {node.number}:", *lines]))

    def _record(self) -> None:
        record = {
            "nodes": [asdict(node) for node in self._nodes],
            "temporary": self.is_temporary,
            "heap": self._heap,
            "properties": self._properties,
        }
        partial = self.directory / "cluster.json.partial"
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.directory / "cluster.json")

    def _log_flags(self) -> list[str]:
        return [f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"]

    def _launch(self, java: Sequence[str], node: Node) -> None:
        flags = [*shlex.split(self._heap), "-XX:+ExitOnOutOfMemoryError", *self._log_flags()]
        main = ["kafka.Kafka", str(self._file(node, "properties"))]
        command = [java[0], *flags, *java[1:], *main]
        self.launch(command, self._file(node, "pid"), self._file(node, "log"))

    def _wait_serving(self, node: Node, others: frozenset[int], deadline_s: float) -> None:
        """Wait until ``node`` answers and knows ``others``, or fail with the end of its log."""
        process = ProcessId.read(self._file(node, "pid"))
        assert process is not None
        while True:
            if process.wait_gone(POLL_INTERVAL_S):
                problem = f"node {node.number} ended while starting"
                break
            if live_brokers(node.port) >= others:
                return
            if time.monotonic() >= deadline_s:
                problem = f"node {node.number} did not serve in time"
                break
        log = self._file(node, "log").read_text(encoding="utf-8", errors="replace")
        lines = log.strip().splitlines()[-LOG_LINES_SHOWN:]
        raise KafkaError("\n  ".join([f"{problem}; the end of its log:", *lines]))
