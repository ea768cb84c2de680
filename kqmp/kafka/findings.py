"""What the brokers' answers mean for an engine: the lines of `kqmp check`. Pure.

What is asked stands in `kqmp.kafka.check`.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import confluent_kafka as ck

from kqmp.config import KqConf
from kqmp.errors import ExitCode
from kqmp.kafka.client import Access, key_to_mend, refusal
from kqmp.kafka.member import REFUSALS, Bounds

#: The one strategy kqmp joins with.
ASSIGNOR: Final = "cooperative-sticky"

# librdkafka's own codes begin with an underscore.
ALL_DOWN: Final = ck.KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
RESOLVE: Final = ck.KafkaError._RESOLVE  # noqa: SLF001
_TRANSPORT: Final = ck.KafkaError._TRANSPORT  # noqa: SLF001
_UNSUPPORTED: Final = ck.KafkaError._UNSUPPORTED_FEATURE  # noqa: SLF001
_UNKNOWN_TOPIC: Final = ck.KafkaError._UNKNOWN_TOPIC  # noqa: SLF001


class Finding(NamedTuple):
    """One line of `kqmp check`."""

    status: Literal["ok", "note", "error"]
    #: What was looked at, one word.
    subject: str
    #: What was found; for a note or an error also what to do.
    text: str
    #: What `kqmp run` would exit with because of an error.
    code: ExitCode = ExitCode.CLEAN


def broker_error(subject: str, text: str) -> Finding:
    """Return an error that would end `kqmp run` with exit code 5."""
    return Finding("error", subject, text, ExitCode.BROKER)


@dataclass(frozen=True)
class GroupState:
    """What the brokers know of the group."""

    #: Active members, and the strategy or protocol they use ("" if there are none).
    members: int = 0
    assignor: str = ""
    #: Whether they use the consumer protocol of KIP-848.
    is_consumer_protocol: bool = False
    #: The static ids among them.
    instance_ids: frozenset[str] = frozenset()


def property_finding(conf: Access, error: ck.KafkaError) -> Finding:
    """Say which property librdkafka refuses, and which key it comes from."""
    mend = key_to_mend(conf, error.str())
    text = f"librdkafka refuses the configuration: {error.str()}; mend {mend}"
    return Finding("error", "kafka", text, ExitCode.CONFIG)


def connection_finding(conf: Access, errors: Collection[ck.KafkaError]) -> Finding:
    """Say why no broker could be asked; `errors` holds at least one, oldest first."""
    names = ", ".join(conf.brokers)
    refused = [error for error in errors if error.code() in REFUSALS]
    if refused:
        return broker_error("brokers", refusal(conf, refused[0].str()))
    # What was said of one broker tells more than that all are down.
    single = [error for error in errors if error.code() in (_TRANSPORT, RESOLVE)]
    reason = (single or list(errors))[0].str()
    text = f"no answer from {names}: {reason}; start them, or mend Brokers (host:port)"
    if not single and not conf.ca_file:
        # So it looks when they hang up on us.
        text += "; if they ask for TLS, set CaFile, if for a password, Username and Password"
    return broker_error("brokers", text)


def topic_error_finding(conf: KqConf, error: ck.KafkaError, known: Collection[str]) -> Finding:
    """Say what is wrong with the topic; `known` are the topics that exist."""
    if error.code() not in (ck.KafkaError.UNKNOWN_TOPIC_OR_PART, _UNKNOWN_TOPIC):
        text = f"{conf.topic} (Topic): {error.str()}; give this user the right to read it"
        return broker_error("topic", text)
    text = f"{conf.topic} (Topic) does not exist: create it, or mend the name"
    close = difflib.get_close_matches(conf.topic, known, n=1)
    return broker_error("topic", f"{text}; did you mean {close[0]!r}?" if close else text)


def partition_findings(conf: KqConf, leaders: Mapping[int, int]) -> Iterator[Finding]:
    """Compare the partitions with Conns and with what Ordering makes of Processors.

    Args:
        conf: the configuration.
        leaders: number of the broker that leads each partition, -1 where none does.
    """
    count = len(leaders)
    headless = sorted(number for number, leader in leaders.items() if leader < 0)
    name = f"{conf.topic}: {counted(count, 'partition')}"
    if headless:
        text = (
            f"{name}, of which {headless} have no leader: they are not read until a broker is back"
        )
        yield Finding("note", "topic", text)
    else:
        yield Finding("ok", "topic", name)
    if conf.conns > count:
        yield Finding(
            "note",
            "conns",
            f"Conns {conf.conns}, {counted(count, 'partition')}: {conf.conns - count} of the"
            f" fetchers get none; set Conns: {count}, or add partitions",
        )
    processors = conf.conns * conf.processors
    if conf.ordering == "partition" and processors > count:
        yield Finding(
            "note",
            "ordering",
            f"Ordering partition, {counted(count, 'partition')}: at most {count} of"
            f" {processors} processors have work at a time; Ordering: key uses all of them",
        )


def group_error_finding(conf: KqConf, error: ck.KafkaError) -> Finding:
    """Say that the brokers do not tell who is in the group."""
    text = f"{conf.group} (Group): {error.str()} ({error.name()})"
    if error.code() == _UNSUPPORTED:
        return Finding("note", "group", f"{text}; its members were not looked at")
    return broker_error("group", f"{text}; is this user allowed to use the group?")


def member_findings(conf: KqConf, group: GroupState) -> Iterator[Finding]:
    """Say whether this engine could join the group's active members."""
    ours = {f"{conf.instance_id}-{index}" for index in range(conf.conns)} & group.instance_ids
    members = counted(group.members, "active member")
    if group.is_consumer_protocol and group.members:
        yield Finding(
            "note",
            "group",
            f"{conf.group}: {members} with the consumer protocol (KIP-848); kqmp joins with the"
            " classic one, if the brokers' group.consumer.migration.policy lets it",
        )
    elif group.assignor not in ("", ASSIGNOR):
        yield broker_error(
            "group",
            f"{conf.group}: {members} with the strategy {group.assignor!r}, and all members of a"
            f" group must share one; kqmp needs {ASSIGNOR}, as eager ones take every partition"
            " away at each rebalance: stop them, or have them use it, or use another Group",
        )
    elif group.members:
        text = f"{conf.group}: {members}, with which the partitions will be shared"
        yield Finding("note", "group", f"{text}; stop them first if that is not meant")
    else:
        yield Finding("ok", "group", f"{conf.group}: no active members")
    if ours:
        yield Finding(
            "note",
            "group",
            f"InstanceId {conf.instance_id}: {', '.join(sorted(ours))} is a member already; a"
            " second engine needs an InstanceId of its own, or the two put each other out",
        )


def position_findings(
    conf: KqConf, committed: Mapping[int, int | None], bounds: Mapping[int, Bounds]
) -> Iterator[Finding]:
    """Say where this engine would begin, and what it would never read.

    Args:
        conf: the configuration.
        committed: the group's position of each partition, None where there is none.
        bounds: the ends of each partition's log.
    """
    inside = {
        number: position
        for number, position in committed.items()
        if position is not None and bounds[number].low <= position <= bounds[number].high
    }
    outside = sorted(
        number
        for number, position in committed.items()
        if position is not None and number not in inside
    )
    anew = sum(ends.high - ends.low for number, ends in bounds.items() if number not in inside)
    if outside:
        side = "start" if conf.offset == "first" else "end"
        yield Finding(
            "note",
            "offsets",
            f"those committed for partitions {outside} lie outside the log: they begin at its"
            f" {side} (Offset: {conf.offset})",
        )
    if anew and conf.offset == "last":
        is_new = not inside and not outside
        who = "group is new" if is_new else f"{len(bounds) - len(inside)} partitions are new to it"
        yield Finding(
            "note",
            "offsets",
            f"{who}, Offset last: {anew:,} existing messages will not be read"
            " (Offset: first reads them)",
        )
    waiting = sum(bounds[number].high - position for number, position in inside.items())
    waiting += anew if conf.offset == "first" else 0
    total = sum(ends.high - ends.low for ends in bounds.values())
    yield Finding("ok", "offsets", f"{waiting:,} of {total:,} messages wait to be handled")


def counted(count: int, noun: str) -> str:
    """Write a count with its noun in singular or plural."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
