"""What an engine says at its start: versions, guarantee, memory, and what would surprise.

Pure but for what it asks of the machine (versions of packages, cores, environment).
"""

import os
import platform
from collections.abc import Mapping
from importlib import metadata

import kqmp
from kqmp.config import KqConf, usable_cores
from kqmp.config.memory import bounds
from kqmp.config.units import format_size
from kqmp.roles.spawn import MATH_THREADS

_ORDER = {
    "key": "messages of one key in a partition are handled one after another, in offset order",
    "partition": "messages of one partition are handled one after another, in offset order",
    "unordered": "messages are handled in any order",
}


def lines(conf: KqConf, handler: str, notes: tuple[str, ...]) -> list[str]:
    """Return the banner.

    Args:
        conf: what runs.
        handler: the handler's name.
        notes: what came up while the configuration was read.
    """
    said = [
        f"kqmp {kqmp.__version__}, confluent-kafka {_version('confluent-kafka')},"
        f" Python {platform.python_version()}",
        f"{conf.name}: handler {handler}, topic {conf.topic}, group {conf.group},"
        f" brokers {', '.join(conf.brokers)}",
        f"guarantee: at least once; {_ORDER[conf.ordering]} (Ordering {conf.ordering})",
        _sizes(conf),
    ]
    return said + [f"note: {note}" for note in (*notes, *_surprises(conf, os.environ))]


def _version(package: str) -> str:
    # Not the package's own word: it would load librdkafka.
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(version unknown)"


def _sizes(conf: KqConf) -> str:
    parts = bounds(conf)
    summed = " + ".join(f"{name} {format_size(_rounded(size))}" for name, size in parts.items())
    whole = format_size(_rounded(sum(parts.values())))
    return (
        f"processes: {conf.conns} x (1 fetcher + {conf.processors}"
        f" processor{'s' if conf.processors != 1 else ''});"
        f" buffers: {summed} = at most {whole}, beside what the handlers take"
    )


def _rounded(size: int) -> int:
    """Round up to whole MiB, above one."""
    mib = 1 << 20
    return size if size < mib else -(-size // mib) * mib


def _surprises(conf: KqConf, env: Mapping[str, str]) -> list[str]:
    notes = []
    if conf.force_commit:
        notes.append("failures are passed over (ForceCommit true)")
    else:
        notes.append("a failing message is retried for ever and its lane waits (ForceCommit false)")
    cores, why = usable_cores()
    wanted = conf.conns * conf.processors
    if wanted > cores:
        per = f" x Conns {conf.conns}" if conf.conns > 1 else ""
        notes.append(
            f"Processors {conf.processors}{per}, {why.replace(' (', ' usable cores (', 1)}"
        )
    unset = [name for name in MATH_THREADS if name not in env]
    if unset:
        notes.append(f"{', '.join(unset)} = 1 in the processors; set them to have more threads")
    return notes


def partitions_note(conf: KqConf, partitions: int) -> str:
    """Say how many partitions the topic has, and which fetchers that leaves without."""
    text = f"topic {conf.topic} has {partitions} partition{'s' if partitions != 1 else ''}"
    if conf.conns > partitions:
        text += f": {conf.conns - partitions} of {conf.conns} fetchers (Conns) get none"
    return text


def path_note(slow_because: str) -> str:
    """Say whether fetchers take messages by compiled code, and if not, why."""
    if slow_because:
        return f"fast path off, messages cost the fetchers more: {slow_because}"
    return "fast path on: compiled code takes the messages from librdkafka"


def unread_note(unread: int) -> str:
    """Say that messages exist which will not be read."""
    return (
        f"group is new, Offset last: {unread:,} existing messages will not be read"
        " (Offset: first reads them)"
    )
