"""The data directory of a cluster: what it is, where temporary ones lie, who may remove them.

Used by `kafka_cluster` in the process that owns or controls a cluster. Only files; no JVM.

A directory holds ``cluster.json`` (`Record`) and per node N ``nodeN/`` (Kafka's own log),
``nodeN.properties``, ``nodeN.log`` (what the JVM printed) and ``nodeN.pid``. A temporary one whose
JVMs are tied to a process has that process in ``owner``, so that the next start can remove what a
killed test session left.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from kafka_jars import KafkaError
from kafka_node import Node
from kafka_process import ProcessId
from kafka_security import OPEN, Security

TEMPORARY_PREFIX = "kqmp-kafka-"
RECORD_NAME = "cluster.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What another process must know to take up a cluster; written before its first JVM starts."""

    nodes: list[Node]
    #: Whether `stop` removes the directory.
    temporary: bool
    #: JVM flags.
    heap: str
    #: Broker settings beyond ours.
    properties: dict[str, str]
    #: What clients must bring.
    security: Security = OPEN

    @classmethod
    def load(cls, directory: Path) -> Record:
        """Read the record in ``directory``.

        Raises:
            KafkaError: there is none, or it is none of ours.
        """
        try:
            fields = json.loads((directory / RECORD_NAME).read_text(encoding="utf-8"))
            nodes = [Node(**node) for node in fields.pop("nodes")]
            security = Security(**fields.pop("security", {}))
            return cls(nodes=nodes, security=security, **fields)
        except (FileNotFoundError, NotADirectoryError):
            raise KafkaError(f"{directory} holds no Kafka cluster") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise KafkaError(
                f"{directory / RECORD_NAME} is damaged: remove the directory, or take another"
            ) from None

    def save(self, directory: Path) -> None:
        """Put the record into ``directory``, replacing an older one in one step."""
        partial = directory / f"{RECORD_NAME}.partial"
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.replace(directory / RECORD_NAME)


def new_temporary() -> Path:
    """Make an empty directory for data that `stop` removes."""
    return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))


def new_owned_temporary() -> Path:
    """Make one that is also removed by a later call of this, if this process dies before `stop`."""
    for other in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"):
        owner = ProcessId.read(other / "owner")
        if owner is not None and not owner.is_running():
            shutil.rmtree(other, ignore_errors=True)
    directory = new_temporary()
    itself = ProcessId.of(os.getpid())
    assert itself is not None
    itself.write(directory / "owner")
    return directory


def check_kept(directory: Path, node_count: int, security: Security = OPEN) -> None:
    """Make ``directory`` if it is missing, or check that a cluster of this shape can use it.

    Raises:
        KafkaError: its name cannot stand in Kafka's settings, it holds other things, or a cluster
            of another shape.
    """
    if "," in str(directory):
        raise KafkaError(f"data: Kafka takes no directory with a comma in its name: {directory}")
    directory.mkdir(parents=True, exist_ok=True)
    if not any(directory.iterdir()):
        return
    if not (directory / RECORD_NAME).exists():
        raise KafkaError(
            f"data: {directory} holds other files and no Kafka cluster: take a new directory"
        )
    record = Record.load(directory)
    there = len(record.nodes)
    if there != node_count:
        raise KafkaError(
            f"nodes: {directory} holds the data of {there} node(s), not of {node_count}: "
            f"ask for {there}, or take another directory"
        )
    if not record.security.is_like(security):
        raise KafkaError(
            f"security: {directory} holds the data of a cluster for {record.security.protocol}, "
            f"not for {security.protocol}: leave out --sasl and --tls, or take another directory"
        )
