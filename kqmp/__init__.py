"""kqmp: a Kafka consumer engine whose handlers run on every core.

The names below are imported when they are first used: a processor, which imports kqmp for its own
part only, pays for nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kqmp.config import KqConf
    from kqmp.engine import Queue
    from kqmp.errors import (
        BrokerError,
        ConfigError,
        EngineEnded,
        ExitCode,
        HandlerImportError,
        KqmpError,
        WorkerStartError,
    )
    from kqmp.handler import Context
    from kqmp.message import Message
    from kqmp.services import ServiceGroup

__version__ = "0.1.0"

__all__ = [
    "BrokerError",
    "ConfigError",
    "Context",
    "EngineEnded",
    "ExitCode",
    "HandlerImportError",
    "KqConf",
    "KqmpError",
    "Message",
    "Queue",
    "ServiceGroup",
    "WorkerStartError",
    "__version__",
]

_HOMES = {
    "Context": "kqmp.handler",
    "KqConf": "kqmp.config",
    "Message": "kqmp.message",
    "Queue": "kqmp.engine",
    "ServiceGroup": "kqmp.services",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(_HOMES.get(name, "kqmp.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
