"""`PusherConf`: the checked configuration of one pusher: kq's `KqPusherConf` and its options."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kqmp.config.checks import line_of, python_name, validate
from kqmp.config.conf import Duration, Size
from kqmp.config.pusher_keys import PUSHER
from kqmp.config.secret import MASK, Secret
from kqmp.errors import ConfigError

_MS = timedelta(milliseconds=1)


def _default(name: str) -> Any:
    return PUSHER.by_name[name].field_default


class PusherConf(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of one `Pusher`, under kq's names in snake_case.

    Checked as a whole when it is made, as `KqConf` is. What each key means, its default and its
    limits stand in `kqmp.config.PUSHER_KEYS`. `repr` and `str` show no secret.

    Raises:
        ConfigError: on construction, with all problems at once.
    """

    name: str = _default("name")
    brokers: tuple[str, ...] = _default("brokers")
    topic: str = _default("topic")
    username: str = _default("username")
    password: Secret = _default("password")
    ca_file: str = _default("ca_file")
    chunk_size: int = _default("chunk_size")
    flush_interval: timedelta = _default("flush_interval")
    balancer: Literal["hash", "crc32", "fnv1a", "random"] = _default("balancer")
    allow_auto_topic_creation: bool = _default("allow_auto_topic_creation")
    sync: bool = _default("sync")
    max_block: timedelta = _default("max_block")
    #: Raw librdkafka properties, none of which is refused; secret ones in clear.
    kafka: dict[str, str] = _default("kafka")

    if TYPE_CHECKING:
        # As for `KqConf`: what may be given is more than what a field holds.
        def __init__(  # noqa: PLR0913
            self,
            *,
            brokers: Sequence[str] | str,
            topic: str,
            name: str = ...,
            username: str = ...,
            password: str | Secret = ...,
            ca_file: str = ...,
            chunk_size: Size = ...,
            flush_interval: Duration = ...,
            balancer: Literal["hash", "crc32", "fnv1a", "random"] = ...,
            allow_auto_topic_creation: bool = ...,
            sync: bool = ...,
            max_block: Duration = ...,
            kafka: Mapping[str, str | float] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Check every field and put its converted value in place."""
        values, problems = validate(msgspec.structs.asdict(self), python_name, PUSHER)
        if problems:
            raise ConfigError(*(line_of(problem) for problem in problems))
        for name, value in values.items():
            msgspec.structs.force_setattr(self, name, value)

    @classmethod
    def load(cls, path: str | os.PathLike[str], section: str | None = None) -> PusherConf:
        """Read a pusher's section of a YAML, JSON or TOML file.

        Args:
            path: the file, its kind told by its extension.
            section: the top-level key under which the pusher stands, in any case; "." is the top
                level itself. None: the only section that looks like a pusher (Brokers and Topic,
                and no key that only a consumer has), else the top level.

        Raises:
            ConfigError: the file cannot be read or is wrong; with all problems at once.
        """
        # By name, for imports point down, as in `KqConf.load`.
        module = importlib.import_module("kqmp.configfile")
        conf: PusherConf = module.load_pusher(path, section).conf
        return conf

    @classmethod
    def from_section(cls, section: Mapping[str, Any]) -> PusherConf:
        """Make one of a parsed section, such as `context.document["KqPusherConf"]`.

        Args:
            section: values by kq's names in any case, or by the names in Python.

        Raises:
            ConfigError: with all problems at once; a key that a pusher does not have is one.
        """
        names = {key.kq.lower(): key.name for key in PUSHER.keys}
        values: dict[str, Any] = {}
        wrong = []
        for spelled, value in section.items():
            name = names.get(str(spelled).lower(), str(spelled))
            if name not in PUSHER.by_name:
                known = ", ".join(key.kq for key in PUSHER.keys)
                wrong.append(f"{spelled}: unknown key of a pusher; use one of {known}")
            elif name in values:
                wrong.append(f"{spelled}: given twice, in different case")
            else:
                values[name] = value
        if wrong:
            raise ConfigError(*wrong)
        return cls(**values)

    @property
    def flush_interval_ms(self) -> int:
        """The longest a message waits for others, >= 0."""
        return self.flush_interval // _MS

    @property
    def max_block_s(self) -> float:
        """The longest that push waits for room in a full queue, >= 0."""
        return self.max_block.total_seconds()

    def replace(self, **changes: Any) -> PusherConf:
        """A copy with some fields changed, checked again.

        Raises:
            ConfigError: the result is not valid.
            TypeError: a name that is no field.
        """
        return PusherConf(**{**msgspec.structs.asdict(self), **changes})

    def describe(self) -> list[str]:
        """`Key: value` lines of what must be given and of what differs from its default.

        In the order of the table, kq's names, passwords and secret properties masked.
        """
        lines = []
        for key in PUSHER.keys:
            value = getattr(self, key.name)
            usual = self.topic if key.name == "name" else key.field_default
            if isinstance(value, Secret):
                lines += [f"{key.kq}: {MASK}"] if value else []
            elif key.required or value != usual:
                lines.append(f"{key.kq}: {key.format(value)}")
        return lines
