"""Real Apache Kafka in KRaft mode on 127.0.0.1, for tests and for trying kqmp out.

`Cluster` is the whole interface. A test uses it as a context manager and its JVMs die with the
test's process, however that ends; `scripts/kafka` makes clusters that outlive it.

All that is known about a cluster lies in its data directory (`kafka_data`), so that another process
can take it up with `Cluster.open`.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

# This file is also loaded by its path, which does not put its siblings within reach.
if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from kafka_data import RECORD_NAME, Record, check_kept, new_owned_temporary, new_temporary
from kafka_format import (
    error_with_log,
    format_storage,
    log4j_flag,
    node_file,
    write_settings,
)
from kafka_jars import (
    KAFKA_VERSION,
    Java,
    KafkaError,
    class_archive,
    class_path,
    find_java,
    missing_tools,
)
from kafka_node import HOST, Node, choose_ports, live_brokers, port_is_free
from kafka_process import Launch, ProcessId, kill_all, launch_detached, launch_tied, stop_all
from kafka_security import CA_NAME, OPEN, Security, make_certificates

__all__ = [
    "DEFAULT_HEAP",
    "KAFKA_VERSION",
    "Cluster",
    "KafkaError",
    "NodeStatus",
    "Security",
    "launch_detached",
    "launch_tied",
    "missing_tools",
]

DEFAULT_HEAP = "-Xms256m -Xmx1g -XX:+UseG1GC"
START_TIMEOUT_S = 60.0
#: One node takes 0.3 s, three take 6 s, as the last one waits for a quorum that is gone.
STOP_TIMEOUT_S = 10.0
#: Data that are removed anyway need no clean end.
TEMPORARY_STOP_TIMEOUT_S = 1.0
#: Writing the class archive at the end of a rehearsal takes 2 to 3 s.
REHEARSAL_STOP_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.05


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
        security: Security = OPEN,
    ) -> None:
        """Describe a cluster; nothing happens before `start`.

        Args:
            nodes: 1 or 3.
            port: of node 1; the others take the next ones. None: any free ports.
            data: where the data are kept from start to start (made if missing). None: in a
                temporary directory that `stop` removes.
            heap: JVM flags for every node.
            properties: broker settings that replace or extend those of `render_properties`.
            security: what clients must bring.

        Raises:
            KafkaError: ``nodes`` or ``port`` is out of range.
        """
        if nodes not in (1, 3):
            raise KafkaError(f"nodes: {nodes} is not possible; take 1 or 3")
        port_max = 65_536 - nodes
        if port is not None and not 1 <= port <= port_max:
            raise KafkaError(f"port: {port} is not possible; take one from 1 to {port_max}")
        self._count = nodes
        self._port = port
        self._kept = None if data is None else Path(data).absolute()
        self._heap = heap
        self._properties = dict(properties or {})
        #: What clients must bring.
        self.security = security
        self._directory = self._kept
        self._nodes: list[Node] = []
        self._java_command: list[str] = []
        #: How a JVM is started: `launch_tied` (it dies with this process) or `launch_detached`.
        self.launch: Launch = launch_tied
        #: Told in one line what takes long: fetching the jars, once.
        self.say: Callable[[str], None] = lambda line: None

    @classmethod
    def open(cls, directory: Path) -> Cluster:
        """Take up the cluster whose data lie in ``directory``, running or not.

        Raises:
            KafkaError: there is no cluster in ``directory``.
        """
        record = Record.load(directory)
        kept = None if record.temporary else directory
        port = record.nodes[0].port
        found = cls(len(record.nodes), port, kept, record.heap, record.properties, record.security)
        found._directory = directory
        found._nodes = record.nodes
        return found

    @property
    def bootstrap(self) -> str:
        """The address for clients, "127.0.0.1:PORT"; for three nodes, all three with commas.

        It names nodes that were killed too, as a client should know all of them.

        Raises:
            KafkaError: the cluster was not started.
        """
        return ",".join(f"{HOST}:{port}" for port in self.ports)

    @property
    def ports(self) -> list[int]:
        """The port of each node, node 1 first.

        Raises:
            KafkaError: the cluster was not started.
        """
        if not self._nodes:
            raise KafkaError("the cluster is not started")
        return [node.port for node in self._nodes]

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
    def ca_file(self) -> Path | None:
        """The PEM file that clients verify the nodes by; None without TLS."""
        return self.directory / CA_NAME if self.security.tls else None

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

        Blocking: at most about ``timeout_s`` after formatting (1 s). The very first start also
        fetches the jars and rehearses, which takes 10 s or more.

        Raises:
            KafkaError: a tool is missing, a port is taken, the cluster runs already, the data do
                not fit, or a node ended or did not answer in time (with the end of its log).
        """
        self._find_java()
        self._take_directory()
        try:
            self._take_ports()
            if self.security.tls:
                make_certificates(self._java_command, self.directory)
            write_settings(self.directory, self._nodes, self.security, self._properties)
            if not (self.directory / RECORD_NAME).exists():
                format_storage(self._java_command, self.directory, self._nodes, self.security)
            self._record().save(self.directory)
            for node in self._nodes:
                self._launch(node)
            everyone = frozenset(node.number for node in self._nodes)
            deadline_s = time.monotonic() + timeout_s
            for node in self._nodes:
                self._wait_serving(node, everyone, deadline_s)
        except BaseException:
            kill_all(self._processes(self._nodes))
            self._remove_temporary()
            raise

    def stop(self) -> None:
        """End every node, by SIGKILL if it does not end in time, and remove temporary data.

        Does nothing for a cluster that does not run. Blocking: up to 10 s, with temporary data 1 s.
        """
        term_timeout_s = STOP_TIMEOUT_S if self._kept else TEMPORARY_STOP_TIMEOUT_S
        stop_all(self._processes(self._nodes), term_timeout_s)
        self._remove_temporary()

    def kill(self, number: int) -> None:
        """Kill node ``number`` with SIGKILL, as a crash would, and wait until it is gone.

        Raises:
            KafkaError: there is no such node, or it does not run.
        """
        process = self._running(self._node(number))
        if process is None:
            raise KafkaError(f"node {number} does not run")
        kill_all([process])

    def restart(self, number: int, timeout_s: float = START_TIMEOUT_S) -> None:
        """Stop node ``number`` if it runs, start it again on its ports, wait until it serves.

        Raises:
            KafkaError: there is no such node, or it did not come up (it is killed then; the
                others are left as they are).
        """
        node = self._node(number)
        self._find_java()
        stop_all(self._processes([node]), STOP_TIMEOUT_S)
        self._launch(node)
        try:
            self._wait_serving(node, frozenset({number}), time.monotonic() + timeout_s)
        except BaseException:
            kill_all(self._processes([node]))
            raise

    def status(self) -> list[NodeStatus]:
        """Describe every node; empty before the first start."""
        found = []
        for node in self._nodes:
            process = self._running(node)
            pid = None if process is None else process.pid
            found.append(
                NodeStatus(node.number, node.port, pid, node_file(self.directory, node, "log"))
            )
        return found

    def _node(self, number: int) -> Node:
        for node in self._nodes:
            if node.number == number:
                return node
        if not self._nodes:
            raise KafkaError("the cluster is not started")
        raise KafkaError(f"there is no node {number}; this cluster has 1 to {len(self._nodes)}")

    def _running(self, node: Node) -> ProcessId | None:
        process = ProcessId.read(node_file(self.directory, node, "pid"))
        return process if process is not None and process.is_running() else None

    def _processes(self, nodes: Sequence[Node]) -> list[ProcessId]:
        """Return the processes last started for ``nodes``, also dead ones, which need reaping."""
        records = [ProcessId.read(node_file(self.directory, node, "pid")) for node in nodes]
        return [record for record in records if record is not None]

    def _remove_temporary(self) -> None:
        if self._kept is None and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
            self._nodes = []

    def _find_java(self) -> None:
        """Settle the command that every JVM of the cluster starts with."""
        if self._java_command:
            return
        java = find_java()
        classes = class_path(self.say)
        archive = self._archive(java)
        sharing = [] if archive is None else [f"-XX:SharedArchiveFile={archive}"]
        self._java_command = [java.path, *sharing, "-cp", classes]

    def _archive(self, java: Java) -> Path | None:
        return class_archive(java, _rehearse)

    def _take_directory(self) -> None:
        if any(status.pid is not None for status in self.status()):
            raise KafkaError(f"the cluster runs already, on {self.bootstrap}")
        self._remove_temporary()
        if self._kept is None:
            tied = self.launch is launch_tied
            self._directory = new_owned_temporary() if tied else new_temporary()
            return
        check_kept(self._kept, self._count, self.security)
        if not (self._kept / RECORD_NAME).exists():
            return
        there = Cluster.open(self._kept)
        if any(status.pid is not None for status in there.status()):
            raise KafkaError(f"the cluster in {self._kept} runs already, on {there.bootstrap}")
        self.security = there.security

    def _take_ports(self) -> None:
        if self._port is None:
            ports = choose_ports(self._count)
        else:
            ports = list(range(self._port, self._port + self._count))
            for port in ports:
                if not port_is_free(port):
                    raise KafkaError(f"port {port} on {HOST} is in use by another program")
        inner = choose_ports(2 * self._count, taken=ports)
        controller_ports, plain = inner[: self._count], inner[self._count :]
        if self.security.is_open:
            plain = [0] * self._count
        rows = zip(ports, controller_ports, plain, strict=True)
        self._nodes = [Node(number, *row) for number, row in enumerate(rows, start=1)]

    def _record(self) -> Record:
        temporary = self._kept is None
        return Record(self._nodes, temporary, self._heap, self._properties, self.security)

    def _launch(self, node: Node) -> None:
        flags = [*shlex.split(self._heap), "-XX:+ExitOnOutOfMemoryError"]
        flags.append(log4j_flag(self.directory))
        main = ["kafka.Kafka", str(node_file(self.directory, node, "properties"))]
        command = [self._java_command[0], *flags, *self._java_command[1:], *main]
        pid_file, log = (node_file(self.directory, node, kind) for kind in ("pid", "log"))
        self.launch(command, pid_file, log)

    def _wait_serving(self, node: Node, others: frozenset[int], deadline_s: float) -> None:
        """Wait until ``node`` answers and knows ``others``, or fail with the end of its log."""
        (process,) = self._processes([node])
        problem = f"node {node.number} ended while starting"
        while not process.wait_gone(POLL_INTERVAL_S):
            if live_brokers(node.inner_port or node.port) >= others:
                return
            if time.monotonic() >= deadline_s:
                problem = f"node {node.number} did not serve in time"
                break
        log = node_file(self.directory, node, "log").read_text(encoding="utf-8", errors="replace")
        raise error_with_log(problem, log)


class _Rehearsal(Cluster):
    """A throw-away node that makes the class archive, and so starts without one."""

    def _archive(self, java: Java) -> None:
        """Use none: it is not there yet, and asking for it would wait for this very rehearsal."""

    def end(self) -> None:
        """Let the JVM write the archive, which it does at a clean end only."""
        stop_all(self._processes(self._nodes), REHEARSAL_STOP_TIMEOUT_S)


def _rehearse(archive: Path) -> None:
    with _Rehearsal(heap=f"{DEFAULT_HEAP} -XX:ArchiveClassesAtExit={archive}") as cluster:
        cluster.end()
