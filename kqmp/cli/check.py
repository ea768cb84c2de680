"""`kqmp check`: everything that `kqmp run` needs is looked at; nothing is started or changed."""

import os
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Final

import click
import msgspec
import psutil

from kqmp.cli import options as flags
from kqmp.config import KqConf, usable_cores
from kqmp.config.memory import bounds
from kqmp.configfile import Consumer, Loaded
from kqmp.errors import ConfigError, ExitCode, KqmpError
from kqmp.handler import parse_target
from kqmp.kafka.check import look
from kqmp.kafka.findings import Finding, counted
from kqmp.obs import pages
from kqmp.roles import control, service

_HELP = """Look at all that `kqmp run` needs, with the same TARGET and flags, and start nothing.

Reads the file, imports the handler in a process of its own, asks the brokers for the topic, its
partitions and the group, and compares what they say with the configuration. Joins no group and
commits nothing.

Of a FILE with several consumers all are looked at, one after another.

Each line is `ok`, `note` (it works, but may surprise) or `error`, and says what to do. All that can
be looked at is, whatever else is wrong.
"""
_EPILOG = """\b
Examples:
  kqmp check mqs:consume -f etc/mq.yaml
  kqmp check -f etc/all.yaml
  kqmp check mqs:consume --brokers localhost:9092 --group thumbs --topic images

\b
Exit codes (of several errors the first in this order):
    0  no error
    2  the configuration, a flag or a librdkafka property is wrong
    3  a process could not be started
    4  the handler could not be imported or cannot be used
    5  no broker answered or it refused us, or the topic or the group cannot be used
"""
_MIB: Final = 1 << 20
#: About what a fetcher, or a processor without what its handler imports, takes for itself.
_PROCESS_BYTES: Final = 30 * _MIB
_COLORS: Final = {"ok": "green", "note": "yellow", "error": "red"}

_Findings = Generator[Finding, None, list[KqConf]]


@click.command(help=_HELP, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@flags.consumer_options
def check(target: str | None, **options: Any) -> None:
    """Print what is found; the text for users is `_HELP`."""
    found: list[Finding] = []
    for told in findings(target, flags.take(options)):
        if isinstance(told, Finding):
            show(told)
            found.append(told)
        else:
            click.echo(told)
    click.echo(summary(found))
    sys.exit(int(exit_code(found)))


def show(finding: Finding) -> None:
    """Print a finding: one line, and what belongs to it (a traceback) indented below."""
    first, *rest = finding.text.splitlines()
    color = None if os.environ.get("NO_COLOR") else _COLORS[finding.status]
    status = click.style(f"{finding.status:<5}", fg=color)
    click.echo(f"{status}  {finding.subject:<8}  {first}")
    for line in rest:
        click.echo(f"       {line}")


def summary(found: Iterable[Finding]) -> str:
    """Return the last line."""
    statuses = [finding.status for finding in found]
    errors, notes = statuses.count("error"), statuses.count("note")
    told = [counted(errors, "error")] if errors else []
    told += [counted(notes, "note")] if notes else []
    verdict = "kqmp run would fail" if errors else "kqmp run can start"
    return f"{', '.join(told) or 'all is ok'}: {verdict}"


def exit_code(found: Iterable[Finding]) -> ExitCode:
    """Return what `kqmp run` would exit with first."""
    codes = (finding.code for finding in found if finding.status == "error")
    return min(codes, default=ExitCode.CLEAN)


def findings(target: str | None, given: flags.Given) -> Iterator[Finding | str]:
    """Yield what is found, in the order of looking; of several consumers after a heading each."""
    several: list[Consumer] = []
    loaded: Loaded | None = None
    problems: tuple[str, ...] = ()
    try:
        several = flags.read_each(given) if target is None else []
        if not several:
            loaded = flags.read_all(given)[0] if target is None else flags.read(given)
    except ConfigError as error:
        problems = error.problems
    if not several:
        confs = yield from _look_at_conf(target, given, loaded, problems)
        yield from _look_at_machine(confs)
        if len(confs) < 2:
            yield from _look_at_brokers(confs)
        for conf in confs if len(confs) > 1 else []:
            yield f"\n{conf.name}:"
            yield from look(conf)
        return
    confs = []
    for consumer in several:
        yield f"{consumer.name}:"
        its = yield from _look_at_conf(None, given, consumer.loaded, consumer.problems)
        yield from _look_at_brokers(its)
        confs += its
        yield ""
    yield "together:"
    yield from _look_at_machine(confs)


def _look_at_machine(confs: Sequence[KqConf]) -> Iterator[Finding]:
    if confs:
        yield cores_finding(confs, *usable_cores())
        yield memory_finding(confs, psutil.virtual_memory().available)
    yield from page_findings(confs)


def _look_at_brokers(confs: Sequence[KqConf]) -> Iterator[Finding]:
    if not confs:
        text = "not looked at, since the configuration does not say what to look at: mend it first"
        yield Finding("note", "brokers", text)
    else:
        yield from look(confs[0])


def _look_at_conf(
    target: str | None, given: flags.Given, loaded: Loaded | None, problems: tuple[str, ...]
) -> _Findings:
    """Look at the configuration and the handler of one consumer.

    Args:
        target: TARGET.
        given: the flags.
        loaded: what file and flags say; None if that cannot be read.
        problems: what is wrong with them.

    Returns:
        The configuration, several of a `ServiceGroup`; empty if there is none.
    """
    conf: KqConf | None = None
    if loaded is not None:
        conf = loaded.conf
        yield Finding("ok", "config", f"{given.file or 'the flags'}: {', '.join(conf.describe())}")
        yield from (Finding("note", "config", note) for note in loaded.notes)
    if problems and (given.file is not None or target is None):
        yield from _config_errors(problems)
        if loaded is None or loaded.conf.handler:
            problems = ()
    return (yield from _look_at_handler(target, given, conf, problems))


def _config_errors(problems: Iterable[str]) -> Iterator[Finding]:
    return (Finding("error", "config", text, ExitCode.CONFIG) for text in problems)


def _look_at_handler(
    target: str | None, given: flags.Given, conf: KqConf | None, missing: tuple[str, ...]
) -> _Findings:
    """Have a probe import the handler.

    Args:
        target: TARGET.
        given: the flags, for a TARGET that turns out to be a `Queue`.
        conf: what file and flags say; None if there is none.
        missing: what they lack if TARGET is no `Queue`, or that they name no handler; empty if
            the former was told already.

    Returns:
        The configuration: `conf`, or that of the `Queue`, or those of a `ServiceGroup`.
    """
    known = [] if conf is None else [conf]
    name = target or ("" if conf is None else conf.handler)
    if not name:
        if conf is not None and not missing:
            text = "none: name it as TARGET, such as mqs:consume, or as Handler in the file"
            yield Finding("error", "handler", text, ExitCode.CONFIG)
        return known
    try:
        order = service.Order(
            ref=parse_target(name), conf=conf, has_file=given.file is not None, missing=missing
        )
        probed = service.probe(order)
    except KqmpError as error:
        yield Finding("error", "handler", _without_word(str(error)), error.exit_code)
        return known
    for one in probed.group or [probed]:
        yield Finding("ok", "handler", f"{one.name} can be imported and called")
    if conf is None and not missing:
        return []
    if given.file is None:
        order = service.Order(ref=order.ref, conf=conf, missing=missing)
    return (yield from _look_at_probed(order, given, probed))


def _look_at_probed(order: service.Order, given: flags.Given, probed: control.Probed) -> _Findings:
    """Put together what a handler, a `Queue` or a `ServiceGroup` consumes."""
    try:
        if given.file is None:
            order = msgspec.structs.replace(order, changes=flags.changes(given))
        if probed.group:
            orders = service.members(order, probed)
            confs = [one.conf for one in orders if one.conf is not None]
        else:
            confs = [service.plan_of(order, probed).conf]
    except ConfigError as error:
        yield from _config_errors(error.problems)
        return [] if order.conf is None else [order.conf]
    for one, conf in zip(probed.group or [probed], confs, strict=True):
        if one.conf:
            text = f"of the Queue {one.name}: {', '.join(conf.describe())}"
            yield Finding("ok", "config", text)
    return confs


def _without_word(text: str) -> str:
    return text.removeprefix("handler ")


def cores_finding(confs: Sequence[KqConf], cores: int, why: str) -> Finding:
    """Compare the processors with the usable cores.

    Args:
        confs: of the engine, or of several under one parent.
        cores: usable cores, and `why` they are so many, from `usable_cores`.
        why: "2 (affinity)".
    """
    wanted = sum(conf.conns * conf.processors for conf in confs)
    each = " + ".join(
        (f"Conns {conf.conns} x " if conf.conns > 1 else "") + f"Processors {conf.processors}"
        for conf in confs
    )
    text = f"{each}, usable cores {why}"
    if len(confs) > 1:
        text += ", which the sections share"
    elif wanted > cores:
        text += ": more help only handlers that wait; for ones that compute set Processors: auto"
    elif wanted < cores:
        text += ": the other cores stay idle; Processors: auto uses them all"
    return Finding("ok" if len(confs) > 1 or wanted == cores else "note", "cores", text)


def memory_finding(confs: Sequence[KqConf], available_bytes: int) -> Finding:
    """Add up what engines take and compare it with what this machine has free.

    Args:
        confs: of the engine, or of several under one parent.
        available_bytes: what is free.
    """
    parts: Counter[str] = Counter()
    for conf in confs:
        parts.update(bounds(conf))
    count = sum(1 + conf.conns * (1 + conf.processors) for conf in confs) + (len(confs) > 1)
    parts[f"{count} processes"] = count * _PROCESS_BYTES
    whole = sum(parts.values())
    told = " + ".join(f"{name} {_mib(size)}" for name, size in parts.items())
    text = f"at most {_mib(whole)} ({told}), beside what handlers take"
    if whole <= available_bytes:
        return Finding("ok", "memory", text)
    text += f"; {_mib(available_bytes)} are free here: lower Processors, RingBytes or MaxBytes"
    return Finding("note", "memory", text)


def page_findings(confs: Sequence[KqConf]) -> Iterator[Finding]:
    """Look at the pages of Prometheus and DevServer: their ports are taken and given back."""
    labels = service.unique([conf.name for conf in confs]) if len(confs) > 1 else [""]
    named = dict(zip(labels, confs, strict=False))
    wanted = [page for label, conf in named.items() for page in pages.pages_of(label, conf)]
    if not wanted:
        return
    for note in dict.fromkeys(note for conf in confs for note in pages.notes(conf)):
        yield Finding("note", "pages", note)
    try:
        pages.Pages(named).close()
    except ConfigError as error:
        yield from (Finding("error", "pages", text, ExitCode.CONFIG) for text in error.problems)
    except KqmpError as error:
        yield Finding("note", "pages", f"{error}, unless that is this engine, which runs already")
    else:
        places = dict.fromkeys(f"{page.host or '*'}:{page.port}{page.path}" for page in wanted)
        yield Finding("ok", "pages", ", ".join(places))


def _mib(size_bytes: int) -> str:
    return f"{-(-size_bytes // _MIB):,} MiB"
