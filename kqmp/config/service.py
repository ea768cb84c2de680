"""What go-zero's ServiceConf, which kq embeds, brings into a section: its tables as plain data.

What their keys mean and allow stands in `kqmp.config.keys`.
"""

from typing import Final, Literal

import msgspec


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """How all processes of an engine log."""

    #: None: INFO, or what the command line or the program says.
    level: Literal["debug", "info", "warning", "error", "severe"] | None = None
    #: None: plain, or what the command line says.
    encoding: Literal["json", "plain"] | None = None
    #: Whether there is a stat line each minute.
    stat: bool = True


class Prometheus(msgspec.Struct, frozen=True, kw_only=True):
    """A page of metrics; off while `host` is empty, as in go-zero."""

    host: str = ""
    port: int = 9101
    path: str = "/metrics"


class DevServer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of health and one of metrics."""

    enabled: bool = True
    #: "" = every address of the machine.
    host: str = ""
    port: int = 6060
    metrics_path: str = "/metrics"
    health_path: str = "/healthz"
    enable_metrics: bool = True
    #: What the page of health says while all is well.
    health_response: str = "OK"


Table = Log | Prometheus | DevServer

#: By the name of the key in Python.
TABLES: Final[dict[str, type[Table]]] = {
    "log": Log,
    "prometheus": Prometheus,
    "dev_server": DevServer,
}
