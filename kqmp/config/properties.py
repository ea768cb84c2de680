"""Raw librdkafka properties: which are refused, and why; which hold secrets.

Everything else passes unread: librdkafka itself refuses names and values it does not know, when a
fetcher starts or in `kqmp check`. Pure; librdkafka is not imported here.

Source: CONFIGURATION.md of librdkafka 2.16 and the wrapper's own keys (confluent-kafka 2.16).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from kqmp.config.secret import MASK

#: Which client of librdkafka properties are for.
Client = Literal["consumer", "producer"]

#: kqmp computes with these itself, so librdkafka does not see them first.
_MILLISECONDS = frozenset({"max.poll.interval.ms", "session.timeout.ms"})

_SECRET_WORDS = (
    "password",
    "passphrase",
    "secret",
    "private.key",
    "key.pem",
    "token",
    "jwt",
    "oauthbearer.config",
)


def is_secret(name: str) -> bool:
    """Whether the value of this property must never be shown."""
    return any(word in name.lower() for word in _SECRET_WORDS)


class KafkaProperties(dict[str, str]):
    """librdkafka properties, name to value, whose `repr` and `str` hide the secret ones.

    A plain dict otherwise: reading one value gives it, as librdkafka must have it.
    """

    def __repr__(self) -> str:
        shown = {name: MASK if is_secret(name) else value for name, value in self.items()}
        return repr(shown)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a property is refused, and the values that are let pass because they change nothing."""

    reason: str
    harmless: frozenset[str] = frozenset()


_FALSE = frozenset({"false", "f", "0"})
_TRUE = frozenset({"true", "t", "1"})


def _refuse(names: str, reason: str, harmless: frozenset[str] = frozenset()) -> dict[str, _Refusal]:
    return dict.fromkeys(names.split(), _Refusal(reason, harmless))


_SHARED: dict[str, _Refusal] = {
    **_refuse("bootstrap.servers metadata.broker.list", "set Brokers"),
    **_refuse("test.mock.num.brokers", "a mock cluster would take the place of Brokers"),
    **_refuse(
        "plugin.library.paths",
        "it loads native code that may change what is consumed or produced",
    ),
    **_refuse(
        "enable.ssl.certificate.verification",
        "certificates are always verified; set CaFile for a private authority",
        _TRUE,
    ),
    **_refuse(
        "ssl.endpoint.identification.algorithm",
        "the broker's host name is always verified",
        frozenset({"https"}),
    ),
    **_refuse(
        "enabled_events log.queue opaque logger default.topic.config default_topic_conf"
        " on_commit on_delivery key.deserializer value.deserializer"
        " key.serializer value.serializer",
        "it belongs to a program that calls librdkafka itself",
    ),
}

_CONSUMER: dict[str, _Refusal] = {
    **_refuse(
        "enable.auto.commit auto.commit.enable",
        "librdkafka would commit messages that no handler has finished",
        _FALSE,
    ),
    **_refuse(
        "enable.auto.offset.store",
        "librdkafka would store offsets that no handler has finished",
        _FALSE,
    ),
    **_refuse("auto.commit.interval.ms", "kqmp commits by itself; set CommitInterval"),
    **_refuse(
        "offset.store.method offset.store.path offset.store.sync.interval.ms",
        "offsets are kept by the brokers only",
        frozenset({"broker"}),
    ),
    **_refuse(
        "auto.offset.reset",
        "librdkafka would skip or repeat messages without a word; set Offset",
        frozenset({"error"}),
    ),
    **_refuse("group.id", "set Group"),
    **_refuse("group.instance.id", "each fetcher needs an id of its own; set InstanceId"),
    **_refuse(
        "group.protocol",
        "the consumer protocol (KIP-848) comes in a later release",
        frozenset({"classic"}),
    ),
    **_refuse("group.remote.assignor", "it belongs to the consumer protocol (KIP-848)"),
    **_refuse(
        "group.protocol.type", "other members would not be understood", frozenset({"consumer"})
    ),
    **_refuse(
        "partition.assignment.strategy",
        "eager strategies take every partition away at each rebalance; only cooperative-sticky"
        " lets the others go on",
        frozenset({"cooperative-sticky"}),
    ),
    **_refuse(
        "enable.partition.eof",
        "the end of a partition would arrive among its messages",
        _FALSE,
    ),
    **_refuse(
        "fetch.max.bytes max.partition.fetch.bytes fetch.message.max.bytes",
        "set MaxBytes, which also keeps larger messages coming",
    ),
    **_refuse(
        "receive.message.max.bytes",
        "it is worked out from MaxBytes, so that a message larger than that still comes",
    ),
}

_PRODUCER: dict[str, _Refusal] = {
    **_refuse(
        "acks request.required.acks",
        "a message would count as delivered before all replicas in sync have it, and could be lost",
        frozenset({"all", "-1"}),
    ),
    **_refuse(
        "enable.idempotence",
        "without it a retry may write a message twice or out of order",
        _TRUE,
    ),
    **_refuse(
        "delivery.report.only.error",
        "kqmp must hear of every delivery",
        _FALSE,
    ),
    **_refuse("linger.ms queue.buffering.max.ms", "set FlushInterval"),
    **_refuse("batch.size", "set ChunkSize"),
    **_refuse("partitioner partitioner_cb", "set Balancer"),
    **_refuse("transactional.id", "a pusher has no transactions"),
}

_REFUSED: dict[Client, dict[str, _Refusal]] = {
    "consumer": {**_SHARED, **_CONSUMER},
    "producer": {**_SHARED, **_PRODUCER},
}


def refusal(name: str, value: str, client: Client = "consumer") -> str | None:
    """Why this property may not be set to this value; None if it may."""
    refused = _REFUSED[client].get(name)
    if refused is not None:
        return None if value.strip().lower() in refused.harmless else refused.reason
    if name.endswith("_cb"):
        return "callbacks belong to kqmp, or to a program that calls librdkafka itself"
    if name in _MILLISECONDS and not re.fullmatch("[0-9]{1,9}", value.strip()):
        return "use a whole number of milliseconds"
    return None


def property_problems(
    properties: Mapping[object, object], client: Client = "consumer"
) -> Iterator[tuple[str, str]]:
    """What is wrong with a map of properties, as (property name, text) pairs."""
    for name, value in properties.items():
        if not isinstance(name, str) or not name.strip() or not is_utf8(name):
            yield "", "the name of a librdkafka property is text"
        elif not isinstance(value, str | int | float):
            yield name, "the value must be text, a number or true/false"
        elif isinstance(value, int) and value.bit_length() > 64:
            yield name, "the number is too large"
        elif not is_utf8(text := property_text(value)):
            yield name, "the value cannot be written as UTF-8"
        elif reason := refusal(name.strip(), text, client):
            yield name, f"{MASK if is_secret(name) else repr(text[:60])} is refused: {reason}"


def property_text(value: object) -> str:
    """Write a value as librdkafka reads it: true and false in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_utf8(text: str) -> bool:
    """Whether `text` holds no lone surrogates (which JSON and the environment can produce)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
