"""`KqConf`: the checked configuration of one engine.

Used in every process: made from a file or in code, sent to the engine's own processes as msgpack.
Reads no file and no environment (that is `kqmp.configfile`).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kqmp.config.checks import Problem, default_ordering, validate
from kqmp.config.keys import KEY, KEYS, Key
from kqmp.config.secret import MASK, Secret
from kqmp.config.service import DevServer, Log, Prometheus, Table
from kqmp.errors import ConfigError

#: Text such as `1m30s`, a `timedelta`, or a number of seconds.
Duration = str | float | timedelta
#: A number of bytes, or text such as `10MiB`.
Size = int | str

_MS = timedelta(milliseconds=1)


def _default(name: str) -> Any:
    return KEY[name].field_default


class KqConf(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of one consumer, under kq's names in snake_case.

    Checked as a whole when it is made: an existing `KqConf` is valid, and its fields hold the
    types named here, whatever spelling they were given in. What each key means, its default and
    its limits stand in `kqmp.config.KEYS`. Durations are read as integers from the `..._ms`
    properties. `repr` and `str` show neither the password nor secret librdkafka properties.

    Raises:
        ConfigError: on construction, with all problems at once.
    """

    name: str = _default("name")
    brokers: tuple[str, ...] = _default("brokers")
    group: str = _default("group")
    topic: str = _default("topic")
    offset: Literal["first", "last"] = _default("offset")
    conns: int = _default("conns")
    consumers: int = _default("consumers")
    processors: int = _default("processors")
    min_bytes: int = _default("min_bytes")
    max_bytes: int = _default("max_bytes")
    username: str = _default("username")
    password: Secret = _default("password")
    ca_file: str = _default("ca_file")
    force_commit: bool = _default("force_commit")
    commit_in_order: bool = _default("commit_in_order")
    commit_interval: timedelta = _default("commit_interval")
    queue_capacity: int = _default("queue_capacity")
    max_wait: timedelta = _default("max_wait")
    drain_timeout: timedelta = _default("drain_timeout")
    ordering: Literal["key", "partition", "unordered"] = _default("ordering")
    handler: str = _default("handler")
    ring_bytes: int = _default("ring_bytes")
    dispatch_ahead: timedelta = _default("dispatch_ahead")
    max_attempts: int = _default("max_attempts")
    instance_id: str = _default("instance_id")
    #: Raw librdkafka properties, none of which is refused; secret ones in clear.
    kafka: dict[str, str] = _default("kafka")
    log: Log = _default("log")
    #: Without effect.
    mode: Literal["dev", "test", "rt", "pre", "pro"] = _default("mode")
    metrics_url: str = _default("metrics_url")
    prometheus: Prometheus | None = _default("prometheus")
    dev_server: DevServer | None = _default("dev_server")

    if TYPE_CHECKING:
        # What may be given is more than what a field holds; msgspec has one annotation for both.
        # A test holds this list to the fields.
        def __init__(  # noqa: PLR0913
            self,
            *,
            brokers: Sequence[str] | str,
            group: str,
            topic: str,
            name: str = ...,
            offset: Literal["first", "last"] = ...,
            conns: int = ...,
            consumers: int = ...,
            processors: int | Literal["auto"] = ...,
            min_bytes: Size = ...,
            max_bytes: Size = ...,
            username: str = ...,
            password: str | Secret = ...,
            ca_file: str = ...,
            force_commit: bool = ...,
            commit_in_order: bool = ...,
            commit_interval: Duration = ...,
            queue_capacity: int = ...,
            max_wait: Duration = ...,
            drain_timeout: Duration = ...,
            ordering: Literal["key", "partition", "unordered"] = ...,
            handler: str = ...,
            ring_bytes: Size = ...,
            dispatch_ahead: Duration = ...,
            max_attempts: int = ...,
            instance_id: str = ...,
            kafka: Mapping[str, str | float] = ...,
            log: Log | Mapping[str, object] = ...,
            mode: Literal["dev", "test", "rt", "pre", "pro"] = ...,
            metrics_url: str = ...,
            prometheus: Prometheus | Mapping[str, object] | None = ...,
            dev_server: DevServer | Mapping[str, object] | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Check every field and put its converted value in place."""
        values, problems = validate(msgspec.structs.asdict(self), _python_name)
        if problems:
            raise ConfigError(*(_line(problem) for problem in problems))
        for name, value in values.items():
            msgspec.structs.force_setattr(self, name, value)

    @classmethod
    def load(cls, path: str | os.PathLike[str], section: str | None = None) -> KqConf:
        """Read a YAML, JSON or TOML file; see `kqmp.configfile.load`.

        Args:
            path: the file, its kind told by its extension.
            section: the top-level key under which the consumer stands, in any case; "." is the
                top level itself. None: the only section that looks like a consumer, else the top
                level.

        Raises:
            ConfigError: the file cannot be read or is wrong; with all problems at once.
        """
        # By name, because imports point down and this is the one door from the object to its file.
        conf: KqConf = importlib.import_module("kqmp.configfile").load(path, section).conf
        return conf

    @property
    def commit_interval_ms(self) -> int:
        """Time between two commits, >= 1."""
        return self.commit_interval // _MS

    @property
    def max_wait_ms(self) -> int:
        """The longest a broker waits for `min_bytes`, >= 1."""
        return self.max_wait // _MS

    @property
    def drain_timeout_ms(self) -> int:
        """The longest a stop lets handlers finish, >= 1."""
        return self.drain_timeout // _MS

    @property
    def dispatch_ahead_ms(self) -> int:
        """The most work, in time, that waits in one lane, >= 1."""
        return self.dispatch_ahead // _MS

    @property
    def read_ahead_messages(self) -> int:
        """Messages a fetcher lets librdkafka read ahead: 1 to 10,000,000."""
        return self.consumers * self.queue_capacity

    def replace(self, **changes: Any) -> KqConf:
        """A copy with some fields changed, checked again.

        `ordering` follows a changed `commit_in_order` unless it was something else than its
        default. `name` stays, also where it came from the group.

        Raises:
            ConfigError: the result is not valid.
            TypeError: a name that is no field.
        """
        values = {**msgspec.structs.asdict(self), **changes}
        was_default = self.ordering == default_ordering(self.commit_in_order)
        if "commit_in_order" in changes and "ordering" not in changes and was_default:
            del values["ordering"]
        return KqConf(**values)

    def to_wire(self) -> bytes:
        """As msgpack, **the password and secret properties in clear**: for our socketpairs only."""
        return msgspec.msgpack.encode({key.name: self._plain(key) for key in KEYS})

    @classmethod
    def from_wire(cls, data: bytes) -> KqConf:
        """Read what `to_wire` of the same version of kqmp wrote.

        Raises:
            msgspec.DecodeError: `data` is no msgpack map.
        """
        return cls(**msgspec.msgpack.decode(data, type=dict[str, Any]))

    def describe(self) -> list[str]:
        """`Key: value` lines of what must be given and of what differs from its default.

        For a banner: in the order of the table, kq's names, passwords and secret properties
        masked.
        """
        lines = []
        for key in KEYS:
            value = getattr(self, key.name)
            if isinstance(value, Secret):
                lines += [f"{key.kq}: {MASK}"] if value else []
            elif key.required or value != _usual(self, key):
                lines.append(f"{key.kq}: {key.format(value)}")
        return lines

    def _plain(self, key: Key) -> object:
        """One value in a type msgpack has, as the constructor takes it."""
        value = getattr(self, key.name)
        if isinstance(value, Secret):
            return value.reveal()
        if isinstance(value, Table):
            return msgspec.structs.asdict(value)
        return key.format(value) if key.kind == "duration" else value


def _usual(conf: KqConf, key: Key) -> object:
    if key.name == "ordering":
        return default_ordering(conf.commit_in_order)
    return conf.group if key.name == "name" else key.field_default


def _python_name(key: Key) -> str:
    return key.name


def _line(problem: Problem) -> str:
    parts: Iterable[str] = (problem.keys[0], problem.item, problem.text)
    return ": ".join(part for part in parts if part)
