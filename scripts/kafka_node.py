"""What one Kafka node is: its settings, its ports, and whether it answers.

Pure text plus small sockets on 127.0.0.1; called by `kafka_cluster` only.
"""

from __future__ import annotations

import random
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

HOST = "127.0.0.1"
MEBIBYTE = 1 << 20
#: A 5-10 MB message must fit, with room for its headers and batch.
MESSAGE_BYTES_MAX = 20 * MEBIBYTE
METADATA_API = 3
#: An answer to Metadata with no topics is a few hundred bytes; more is not Kafka.
ANSWER_BYTES_MAX = MEBIBYTE

LOG4J = """\
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d] %p %m (%c)%n
"""


@dataclass(frozen=True, slots=True)
class Node:
    """One broker-and-controller of a cluster; ``number`` is Kafka's node.id, from 1."""

    number: int
    port: int
    controller_port: int
    #: Where the nodes speak to each other if ``port`` asks for SASL or TLS, else 0.
    inner_port: int = 0


def render_properties(
    node: Node, nodes: Sequence[Node], data: Path, overrides: Mapping[str, str]
) -> str:
    """Return the server.properties of ``node`` in a cluster of ``nodes``.

    Args:
        node: the node itself, one of ``nodes``.
        nodes: all of them; replication is three-fold if there are at least three.
        data: the directory for the node's log (``log.dirs``).
        overrides: settings that replace or extend ours.
    """
    replicas = min(3, len(nodes))
    in_sync = max(1, replicas - 1)
    settings = {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        # A static quorum, as its addresses may change from one start to the next; a dynamic one
        # keeps the voters' ports in the log.
        "controller.quorum.voters": ",".join(
            f"{n.number}@{HOST}:{n.controller_port}" for n in nodes
        ),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAIN",
        "listeners": f"PLAIN://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"PLAIN://{HOST}:{node.port}",
        "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        # A misspelt topic is an error, not a new topic.
        "auto.create.topics.enable": "false",
        "num.partitions": "12",
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(in_sync),
        "message.max.bytes": str(MESSAGE_BYTES_MAX),
        "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
        "log.retention.ms": "-1",
        "log.retention.bytes": "-1",
        "log.segment.bytes": str(128 * MEBIBYTE),
        "log.index.size.max.bytes": str(MEBIBYTE),
        # The default takes 128 MiB of heap for a cleaner that has next to nothing to do.
        "log.cleaner.dedupe.buffer.size": str(2 * MEBIBYTE),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": str(replicas),
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "group.consumer.min.session.timeout.ms": "3000",
        "group.consumer.session.timeout.ms": "3000",
        "group.consumer.min.heartbeat.interval.ms": "500",
        "group.consumer.heartbeat.interval.ms": "500",
        # A broker that was killed is let back in only when the session of its former self ends.
        # With the default, 9 s, a restart after a crash takes 12 s; with 3 s it takes 5.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "num.network.threads": "2",
        "num.io.threads": "2",
        "background.threads": "2",
        "num.recovery.threads.per.data.dir": "1",
    }
    settings |= overrides
    return "".join(f"{key}={_escaped(value)}\n" for key, value in settings.items())


def _escaped(value: str) -> str:
    """Write a value as java.util.Properties reads it: Latin-1 with backslash escapes."""
    utf_16 = value.replace("\\", "\\\\").encode("utf-16-be", "surrogatepass")
    units = [unit for (unit,) in struct.iter_unpack(">H", utf_16)]
    return "".join(chr(unit) if 32 <= unit < 127 else f"\\u{unit:04x}" for unit in units)


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on 127.0.0.1:``port`` now."""
    with socket.socket() as probe:
        # As Java does: connections in TIME_WAIT do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose_ports(count: int, taken: Collection[int] = ()) -> list[int]:
    """Return ``count`` different free ports, none of them in ``taken``.

    They lie below the kernel's ephemeral range. In that range an outgoing connection could sit on
    the port of a killed broker, and a client that keeps dialling it can even connect to itself.
    """
    span = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    low = int(span[0])
    candidates = range(10_000, low) if low > 12_000 else range(int(span[1]) + 1, 65_536)
    ports: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(ports) == count:
            break
        if port not in taken and port_is_free(port):
            ports.append(port)
    return ports


def live_brokers(port: int, timeout_s: float = 2.0) -> frozenset[int]:
    """Ask the broker on 127.0.0.1:``port`` which nodes of its cluster are alive.

    A broker accepts connections a moment before the controller lets it serve (it is "fenced"), so
    an open port alone does not mean that a topic can be made. The answer to a Metadata request
    lists the unfenced brokers only.

    Returns:
        Their node numbers; empty if nobody answers or the answer is not Kafka's.
    """
    # Metadata v1: api key, version, correlation id, null client id; then an empty list of topics.
    request = struct.pack(">hhihi", METADATA_API, 1, 1, -1, 0)
    try:
        with socket.create_connection((HOST, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (length,) = struct.unpack(">i", _receive(connection, 4))
            if not 0 < length <= ANSWER_BYTES_MAX:
                return frozenset()
            return parse_brokers(_receive(connection, length))
    except (OSError, EOFError, struct.error):
        return frozenset()


def parse_brokers(answer: bytes) -> frozenset[int]:
    """Return the node numbers in a Metadata v1 response (without its length prefix).

    Raises:
        struct.error: the response is cut short.
    """
    _, count = struct.unpack_from(">ii", answer)
    position = 8
    numbers = set()
    for _ in range(count):
        number, host_length = struct.unpack_from(">ih", answer, position)
        position += 6 + host_length + 4
        (rack_length,) = struct.unpack_from(">h", answer, position)
        position += 2 + max(0, rack_length)
        numbers.add(number)
    return frozenset(numbers)


def _receive(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        piece = connection.recv(count - len(received))
        if not piece:
            raise EOFError
        received += piece
    return received
