"""librdkafka properties of a consumer, from a `KqConf`.

The guarantees rest on some of these; `config` refuses them in `Kafka:` with the reason, so that
what a user sets there is laid over the defaults here without a further look.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from confluent_kafka import KafkaError

from kqmp.config import KqConf
from kqmp.config.checks import POLL_MARGIN_MS
from kqmp.config.memory import prefetch_bytes
from kqmp.config.secret import Secret
from kqmp.core.life import SESSION_TIMEOUT_MS
from kqmp.errors import ExitCode

#: A fetch waits this long when a partition's queue is full. librdkafka's default of a second costs
#: a factor of 7 in throughput.
FETCH_BACKOFF_MS: Final = 10
#: Least `receive.message.max.bytes`: a single larger message still comes.
RECEIVE_BYTES_MIN: Final = 256 << 20
#: librdkafka's default of `max.poll.interval.ms`; a longer DrainTimeout raises it.
POLL_INTERVAL_MS: Final = 300_000
_INT32_MAX: Final = 2_147_483_647


class Access(Protocol):
    """What the sections of consumers and pushers say of the way to the brokers."""

    @property
    def name(self) -> str:
        """Name of the section; empty for that of the topic."""

    @property
    def topic(self) -> str:
        """The one topic."""

    @property
    def brokers(self) -> tuple[str, ...]:
        """Addresses, host:port."""

    @property
    def username(self) -> str:
        """SASL user; empty without SASL."""

    @property
    def password(self) -> Secret:
        """The password of that user."""

    @property
    def ca_file(self) -> str:
        """PEM file of authorities; empty for those of the system, or without TLS."""

    @property
    def kafka(self) -> Mapping[str, str]:
        """Raw librdkafka properties, laid over all others."""


def key_to_mend(conf: Access, refusal: str) -> str:
    """Return what to mend when librdkafka refuses the configuration with this text."""
    if "ssl.ca.location" in refusal and conf.ca_file:
        return f"CaFile {conf.ca_file!r}: {_file_problem(conf.ca_file)}"
    if "hash function" in refusal:
        known = "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
        return f"sasl.mechanism {_mechanism(conf)!r} under Kafka (-X); use {known}"
    return "it under Kafka (-X)"


def _file_problem(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        return f"{error.strerror}; it is to be a PEM file that can be read here"
    return "it holds no certificate; it is to be the PEM file of a certificate authority"


def _mechanism(conf: Access) -> str:
    return conf.kafka.get("sasl.mechanism") or conf.kafka.get("sasl.mechanisms") or "PLAIN"


def refusal(conf: Access, reason: str) -> str:
    """Return one line for brokers that refuse us: what librdkafka says, and what to mend.

    Args:
        conf: how they were approached.
        reason: the text of an error whose code is among `member.REFUSALS`.
    """
    # What librdkafka advises has other names here; how long it took and when helps nobody.
    said = re.sub(r",? verify that ssl\.ca\.location .*| \(after \d+ms in state \w+\)", "", reason)
    return f"the brokers {', '.join(conf.brokers)} refuse us: {said}; {_what_to_mend(conf, said)}"


def _what_to_mend(conf: Access, said: str) -> str:
    if "certificate verify failed" in said:
        authority = "the PEM file of the authority that signed the brokers' certificates"
        given = f"mend CaFile {conf.ca_file!r}: it is to be" if conf.ca_file else "set CaFile to"
        return f"{given} {authority}"
    if "SSL" in said:
        return "is it a port for TLS? CaFile and security.protocol under Kafka (-X) ask for it"
    if "mechanism handshake failed" in said:
        return f"mend sasl.mechanism under Kafka (-X), which is {_mechanism(conf)!r}"
    if "SASL" in said:
        if not conf.username:
            return "look at Username, Password and what stands of SASL under Kafka (-X)"
        return (
            f"mend Username {conf.username!r} or Password; or sasl.mechanism under Kafka (-X),"
            f" which is {_mechanism(conf)!r}"
        )
    return f"give the user {conf.username!r} (Username) the right to it"


def last_words(instance_id: str, error: KafkaError) -> tuple[int, str]:
    """Return with which exit code and words a member ends whose client is of no use any more.

    A static member's only fatal error is that another one came with its id. A successor would
    throw that one out in turn, and so on for ever: the engine has to end instead.

    Args:
        instance_id: the static member it is; empty if it is none.
        error: what the client said last.
    """
    if instance_id and error.code() == KafkaError._FATAL:  # noqa: SLF001 - its own code
        return ExitCode.GAVE_UP, (
            f"InstanceId: another member of the group came as {instance_id!r} and took the place of"
            f" ours: give every engine of the group an InstanceId of its own ({error.str()})"
        )
    return 1, f"librdkafka: {error.str()}"


def security_properties(conf: Access) -> dict[str, object]:
    """Return SASL and TLS properties: PLAIN if there is a user, TLS if there is a CA.

    Certificates and host names are always verified (librdkafka's default, kept).
    """
    properties: dict[str, object] = {}
    if conf.username:
        properties |= {
            "security.protocol": "SASL_SSL" if conf.ca_file else "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": conf.username,
            "sasl.password": conf.password.reveal(),
        }
    elif conf.ca_file:
        properties["security.protocol"] = "SSL"
    if conf.ca_file:
        properties["ssl.ca.location"] = conf.ca_file
    return properties


def client_properties(conf: Access) -> dict[str, object]:
    """Return what every client of this configuration needs to reach the brokers."""
    return {
        "bootstrap.servers": ",".join(conf.brokers),
        "client.id": f"kqmp-{conf.name or conf.topic}",
        # A broker that restarts is found again quickly.
        "reconnect.backoff.max.ms": 2000,
        "socket.keepalive.enable": True,
        **security_properties(conf),
    }


def instance_id(conf: KqConf, index: int) -> str:
    """Return fetcher `index`'s id as a static member, empty without `InstanceId`."""
    return f"{conf.instance_id}-{index}" if conf.instance_id else ""


def consumer_properties(conf: KqConf, index: int) -> dict[str, object]:
    """Return the properties of fetcher `index`'s consumer."""
    properties: dict[str, object] = {
        **client_properties(conf),
        "group.id": conf.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        # A revoke waits for the handlers, and the fetcher does not poll meanwhile.
        "max.poll.interval.ms": max(POLL_INTERVAL_MS, conf.drain_timeout_ms + POLL_MARGIN_MS),
        "fetch.min.bytes": conf.min_bytes,
        "fetch.wait.max.ms": conf.max_wait_ms,
        "fetch.max.bytes": max(conf.max_bytes, 1_000_000),
        "max.partition.fetch.bytes": conf.max_bytes,
        "receive.message.max.bytes": min(_INT32_MAX, max(RECEIVE_BYTES_MIN, 2 * conf.max_bytes)),
        "queued.min.messages": min(10_000_000, conf.consumers * conf.queue_capacity),
        "queued.max.messages.kbytes": prefetch_bytes(conf) // 1024,
        "fetch.queue.backoff.ms": FETCH_BACKOFF_MS,
    }
    if static_id := instance_id(conf, index):
        properties["group.instance.id"] = static_id
    properties |= conf.kafka
    # librdkafka's default of 3 s does not fit a session that the user set shorter.
    session_ms = int(str(properties["session.timeout.ms"]))
    properties.setdefault("heartbeat.interval.ms", max(1, min(3000, session_ms // 4)))
    return properties
