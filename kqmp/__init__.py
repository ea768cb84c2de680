"""kqmp: a Kafka consumer engine whose handlers run on every core.

The names below are imported when they are first used: a processor, which imports kqmp for its own
part only, pays for nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kqmp.config import KqConf, PusherConf
    from kqmp.engine import Queue
    from kqmp.errors import (
        BrokerError,
        ConfigError,
        DeliveryError,
        EngineEnded,
        ExitCode,
        HandlerImportError,
        KqmpError,
        MessageTooLarge,
        PushError,
        QueueFull,
        WorkerStartError,
    )
    from kqmp.handler import DONE, RETRY, Context, Outcome
    from kqmp.message import Message
    from kqmp.obs.metrics import Metrics
    from kqmp.pusher import Delivery, Pusher, PusherStatistics
    from kqmp.services import ServiceGroup

__version__ = "0.1.0"

__all__ = [
    "DONE",
    "RETRY",
    "BrokerError",
    "ConfigError",
    "Context",
    "Delivery",
    "DeliveryError",
    "EngineEnded",
    "ExitCode",
    "HandlerImportError",
    "KqConf",
    "KqmpError",
    "Message",
    "MessageTooLarge",
    "Metrics",
    "Outcome",
    "PushError",
    "Pusher",
    "PusherConf",
    "PusherStatistics",
    "Queue",
    "QueueFull",
    "ServiceGroup",
    "WorkerStartError",
    "__version__",
]

_HOMES = {
    "DONE": "kqmp.handler",
    "RETRY": "kqmp.handler",
    "Context": "kqmp.handler",
    "Delivery": "kqmp.pusher",
    "KqConf": "kqmp.config",
    "Message": "kqmp.message",
    "Metrics": "kqmp.obs.metrics",
    "Outcome": "kqmp.handler",
    "Pusher": "kqmp.pusher",
    "PusherConf": "kqmp.config",
    "PusherStatistics": "kqmp.pusher",
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
