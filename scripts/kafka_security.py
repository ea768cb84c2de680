"""SASL and TLS of a cluster: who may come in, by which certificate, and the settings that say so.

Called by `kafka_cluster` before any node runs. Clients come to a listener that asks for what
`Security` says. The nodes themselves keep a plaintext listener on a port of their own, which is not
told to clients: they speak to each other and are asked there whether they serve. So this shows
clients a secured Kafka; it does not keep out other users of this machine.

The certificates are made by the ``keytool`` inside the JVM that runs Kafka: an authority, whose key
is thrown away, and one certificate for all nodes.
"""

from __future__ import annotations

import secrets
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kafka_jars import KafkaError
from kafka_node import HOST, Node

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

USER = "kqmp"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
CA_NAME = "ca.pem"
KEYSTORE_NAME = "server.p12"
#: Not a secret: who can read the keystore can read node1.properties beside it.
KEYSTORE_PASSWORD = "kqmp-store"
VALID_DAYS = "3650"
#: Half a second in a JVM with the quick compiler.
KEYTOOL = ("-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
KEYTOOL_MAIN = "sun.security.tools.keytool.Main"
KEYTOOL_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Security:
    """What clients must bring; none of it: anybody may come in, unencrypted."""

    #: The one user, by every mechanism of `MECHANISMS`; empty without SASL.
    user: str = ""
    password: str = ""
    tls: bool = False

    @classmethod
    def of(cls, *, sasl: bool, tls: bool) -> Security:
        """Return what the flags ask for, with a new password."""
        return cls(USER, secrets.token_hex(12), tls) if sasl else cls(tls=tls)

    @property
    def protocol(self) -> str:
        """Kafka's and librdkafka's ``security.protocol``."""
        if self.user:
            return "SASL_SSL" if self.tls else "SASL_PLAINTEXT"
        return "SSL" if self.tls else "PLAINTEXT"

    @property
    def is_open(self) -> bool:
        """Whether anybody may come in, unencrypted."""
        return self.protocol == "PLAINTEXT"

    def is_like(self, other: Security) -> bool:
        """Whether both ask for the same, maybe with another password."""
        return self.protocol == other.protocol

    def settings(self, node: Node, directory: Path) -> dict[str, str]:
        """Return the broker settings of ``node``, to be laid over `render_properties`."""
        if self.is_open:
            return {}
        clients = f"CLIENTS://{HOST}:{node.port},PLAIN://{HOST}:{node.inner_port}"
        settings = {
            "listeners": f"{clients},CONTROLLER://{HOST}:{node.controller_port}",
            "advertised.listeners": clients,
            "listener.security.protocol.map": (
                f"CLIENTS:{self.protocol},PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT"
            ),
        }
        if self.user:
            settings |= self._sasl_settings()
        if self.tls:
            settings |= {
                "ssl.keystore.type": "PKCS12",
                "ssl.keystore.location": str(directory / KEYSTORE_NAME),
                "ssl.keystore.password": KEYSTORE_PASSWORD,
                "ssl.key.password": KEYSTORE_PASSWORD,
            }
        return settings

    def _sasl_settings(self) -> dict[str, str]:
        module = "org.apache.kafka.common.security"
        scram = f"{module}.scram.ScramLoginModule required;"
        plain = f'{module}.plain.PlainLoginModule required user_{self.user}="{self.password}";'
        return {
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "listener.name.clients.plain.sasl.jaas.config": plain,
            "listener.name.clients.scram-sha-256.sasl.jaas.config": scram,
            "listener.name.clients.scram-sha-512.sasl.jaas.config": scram,
        }

    def format_flags(self) -> list[str]:
        """Return the flags of Kafka's formatting tool that make the user of SCRAM."""
        if not self.user:
            return []
        account = f"[name={self.user},password={self.password}]"
        names = [name for name in MECHANISMS if name.startswith("SCRAM")]
        return [flag for name in names for flag in ("--add-scram", f"{name}={account}")]

    def variables(self, bootstrap: str, directory: Path) -> list[str]:
        """Return lines for a shell's `eval` with all that a client must know."""
        found = {"KAFKA_BROKERS": bootstrap}
        if self.user:
            found |= {"KAFKA_USERNAME": self.user, "KAFKA_PASSWORD": self.password}
        if self.tls:
            found["KAFKA_CA_FILE"] = str(directory / CA_NAME)
        return [f"export {name}={shlex.quote(value)}" for name, value in found.items()]


OPEN = Security()


def make_certificates(java: Sequence[str], directory: Path) -> None:
    """Put ``ca.pem`` and the nodes' keystore into ``directory``, unless they are there. 2 s.

    Args:
        java: the command that ends before the name of the main class.
        directory: the data directory.

    Raises:
        KafkaError: keytool failed, with what it said.
    """
    keystore, ca = directory / KEYSTORE_NAME, directory / CA_NAME
    if keystore.exists() and ca.exists():
        return
    partial = keystore.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    store = ["-storetype", "PKCS12", "-keystore", str(partial), "-storepass", KEYSTORE_PASSWORD]
    make = ["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", VALID_DAYS]
    authority = ["-dname", "CN=kqmp development CA", "-ext", "bc:c=ca:true"]
    authority += ["-ext", "ku:c=keyCertSign,cRLSign"]
    server = ["-dname", f"CN={HOST}", "-ext", f"san=ip:{HOST},dns:localhost"]
    for action in (
        [*make, "-alias", "ca", *authority],
        [*make, "-alias", "server", "-signer", "ca", *server],
        ["-exportcert", "-rfc", "-alias", "ca", "-file", str(ca)],
        # A broker shows the first key it finds.
        ["-delete", "-alias", "ca"],
    ):
        _keytool([java[0], *KEYTOOL, KEYTOOL_MAIN, *action, *store])
    partial.rename(keystore)


def _keytool(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=KEYTOOL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise KafkaError(f"keytool took over {KEYTOOL_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise KafkaError(f"keytool failed: {(done.stdout + done.stderr).strip()}")
