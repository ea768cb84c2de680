"""`kqmp run`: the coordinator as the process that the user sees."""

import json
import sys
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
from setproctitle import setproctitle

from kqmp.config import KqConf
from kqmp.config.keys import KEY_BY_KQ
from kqmp.errors import ConfigError, ExitCode, KqmpError
from kqmp.handler import parse_target
from kqmp.obs import logs
from kqmp.roles import service

_EXIT_CODES = "\n".join(f"  {int(code):>3}  {code.description}" for code in ExitCode)


def _pairs(items: tuple[str, ...], flag: str) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{flag} {item!r}: write it as Key=Value")
        pairs[key.strip()] = value
    return pairs


def _load(path: str | None, section: str | None, given: dict[str, Any]) -> tuple[KqConf, Any, Any]:
    import yaml

    document = {} if path is None else yaml.safe_load(Path(path).read_text())
    part = document
    if section is not None:
        part = document[section]
    elif document and "Brokers" not in document:
        part = next(v for v in document.values() if isinstance(v, dict) and "Brokers" in v)
        section = next(k for k, v in document.items() if v is part)
    values = {KEY_BY_KQ[k.lower()].name: v for k, v in part.items() if k.lower() in KEY_BY_KQ}
    return KqConf(**{**values, **given}), part, document


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExit codes:\n" + _EXIT_CODES,
)
@click.argument("target", required=False)
@click.option("-f", "--file", metavar="FILE", help="YAML, JSON or TOML, by its extension.")
@click.option("--section", metavar="KEY", help="Top-level key of FILE that holds the consumer.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set a key of the section.")
@click.option("-X", "properties", multiple=True, metavar="PROP=VALUE", help="librdkafka property.")
@click.option("--brokers", metavar="HOST:PORT,...", help="Short for --set Brokers=...")
@click.option("--group", metavar="NAME", help="Short for --set Group=...")
@click.option("--topic", metavar="NAME", help="Short for --set Topic=...")
@click.option("--conns", metavar="N", help="Short for --set Conns=...")
@click.option("--processors", metavar="N", help="Short for --set Processors=...")
@click.option("--log-level", default="INFO", help="DEBUG, INFO, WARNING or ERROR.")
@click.option("--log-format", type=click.Choice(["plain", "json"]), default="plain")
def run(
    target: str | None,
    file: str | None,
    section: str | None,
    sets: tuple[str, ...],
    properties: tuple[str, ...],
    log_level: str,
    log_format: Literal["plain", "json"],
    **flags: str | None,
) -> None:
    """Consume a topic with TARGET, a handler as module:name, until SIGTERM or Ctrl-C."""
    logs.setup("coordinator", level=log_level, encoding=log_format)
    try:
        given: dict[str, Any] = {k: v for k, v in flags.items() if v is not None}
        given |= {KEY_BY_KQ[k.lower()].name: v for k, v in _pairs(sets, "--set").items()}
        if properties:
            given["kafka"] = _pairs(properties, "-X")
        conf, part, document = _load(file, section, given)
        ref = parse_target(target or conf.handler)
    except KqmpError as error:
        click.echo(f"kqmp: {error}", err=True)
        sys.exit(int(error.exit_code))
    setproctitle(f"kqmp: coordinator {conf.name or conf.topic}")
    order = service.Order(
        handler=msgspec.msgpack.encode(ref),
        target=ref.name,
        conf=conf,
        section=json.dumps(part, default=str).encode(),
        document=json.dumps(document, default=str).encode(),
        log_level=log_level,
        log_encoding=log_format,
    )
    code, _ = service.run(order)
    sys.exit(int(code))
