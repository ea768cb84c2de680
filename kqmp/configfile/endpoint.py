"""From a file and flags to where Kafka is: for commands that look at a cluster and run no engine.

Of a section, be it a consumer's or a pusher's, only what leads to the brokers is read; the rest of
it is `kqmp run`'s to judge.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kqmp.config import KqConf
from kqmp.config.keys import KEY, KEY_BY_KQ
from kqmp.configfile.gather import FLAGS_ALONE, Gathered
from kqmp.configfile.load import add_flags, checked, read_document
from kqmp.configfile.names import misspelt
from kqmp.configfile.sections import SERVICE_KEYS, Section, find_section
from kqmp.configfile.tree import Entry, Table

#: What is read, by the names in Python.
USED: Final = (
    "name",
    "brokers",
    "group",
    "topic",
    "username",
    "password",
    "ca_file",
    "kafka",
)
_USED_KEYS: Final = tuple(KEY[name] for name in USED)
_USED_KQ: Final = frozenset(key.kq.lower() for key in _USED_KEYS)
_FOREIGN: Final = frozenset(name.lower() for name in (*KEY_BY_KQ, *SERVICE_KEYS)) - _USED_KQ
#: Stand in `Endpoint.conf` for what was not given.
_NO_TOPIC: Final = "none"
_NO_GROUP: Final = "kqmp"
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A cluster, and what was named in it."""

    #: Brokers, credentials and librdkafka properties; its other fields mean nothing here.
    conf: KqConf
    #: "" where none was given.
    topic: str
    group: str


def load_endpoint(
    path: str | None,
    section: str | None = None,
    *,
    overrides: Mapping[str, str] = _NOTHING,
    kafka_overrides: Mapping[str, str] = _NOTHING,
    shortcuts: Mapping[str, str] = _NOTHING,
    env: Mapping[str, str] = os.environ,
) -> Endpoint:
    """Read a file, or flags alone, as `load` does, but for a cluster: only Brokers is required.

    Args:
        path: the file; None: the flags say it all.
        section: as for `load`; None prefers a consumer's section to a pusher's.
        overrides: `--set` pairs.
        kafka_overrides: `-X` pairs.
        shortcuts: flags of their own (`--brokers`), by the keys' names in Python.
        env: what `${VAR}` refers to.

    Raises:
        ConfigError: with all problems at once.
    """
    if path is None:
        gathered = Gathered(missing_place=FLAGS_ALONE)
    else:
        found = find_section(read_document(path), section, path)
        gathered = Gathered(missing_place=found.place)
        gathered.add_section(_used_part(found), env)
    add_flags(gathered, overrides, kafka_overrides, shortcuts)
    topic, group = (str(gathered.values.get(name, "")) for name in ("topic", "group"))
    gathered.values.setdefault("name", Path(path).stem if path else _NO_GROUP)
    gathered.values.setdefault("topic", _NO_TOPIC)
    gathered.values.setdefault("group", _NO_GROUP)
    conf = checked(gathered)
    return Endpoint(conf, conf.topic if topic else "", conf.group if group else "")


def _used_part(section: Section) -> Section:
    """Leave out of a section what is not read, but keep what looks like a misspelling of it."""
    entries = tuple(entry for entry in section.table.entries if _is_used(entry))
    return Section(section.name, Table(entries, section.table.place), section.place)


def _is_used(entry: Entry) -> bool:
    if not isinstance(entry.key, str):
        return False
    name = entry.key.lower()
    if name in _USED_KQ:
        return True
    return name not in _FOREIGN and misspelt(name, _USED_KEYS) is not None
