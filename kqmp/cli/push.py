"""`kqmp push`: the lines of files or of standard input become messages of a topic."""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from kqmp.cli import endpoint as flags
from kqmp.cli.blocks import StopRequests, line_blocks, whole
from kqmp.cli.options import Given, pairs, require_file_of_section
from kqmp.cli.pushing import ATTEMPT_S, Pushing, told, trouble
from kqmp.cli.screen import Screen
from kqmp.cli.stdout import ReaderGone, Stdout
from kqmp.config import PusherConf
from kqmp.config.pusher_keys import PUSHER
from kqmp.configfile import load_pusher, load_pusher_from_flags
from kqmp.errors import ConfigError, ExitCode
from kqmp.kafka.payload import Headers
from kqmp.pusher import Pusher

_HELP = """Push the lines of FILEs, or of standard input, to a topic: one message each.

Lines are taken byte for byte, without their line end. The topic and the way to it come from flags
or from a section of a file: a pusher's, or a consumer's, of which then only Brokers, Topic and the
credentials count. All replicas acknowledge each message (acks=all, idempotence).

Progress goes to stderr, a summary to stdout. A message that is too large for the topic is told and
left out, and the others go on. A first Ctrl-C stops reading and delivers what was read; a second
one gives that up and says how much was not delivered.
"""
_EPILOG = """\b
Examples:
  kqmp push --brokers localhost:9092 --topic orders < orders.jsonl
  kqmp push -f etc/mq.yaml a.txt b.txt
  kqmp push -f etc/mq.yaml --section KqPusherConf -K '\\t' -H source=import keyed.tsv
  tail -F app.log | kqmp push -f etc/mq.yaml --set FlushInterval=100ms

\b
Exit codes:
    0  every line was delivered
    2  a flag, the file with the section, a librdkafka property or a FILE is wrong
    5  no broker answered or it refused us, or the topic is missing
    8  not all messages were delivered; the summary says how many
  130  ended by Ctrl-C, all that was read was delivered (143: by SIGTERM, 129: by SIGHUP)
"""
#: How often progress is looked at while no input comes.
_IDLE_S: Final = 0.5


#: Where neither section nor flag says otherwise. More may wait than in a pusher, lest reading stop
#: while librdkafka connects. Not compressed, as in kcat: -z does.
_DEFAULTS: Final = {"queue.buffering.max.messages": 1_000_000, "compression.type": "none"}


class _Form(NamedTuple):
    """How a line becomes a message."""

    separator: bytes | None
    key: bytes | None
    headers: Headers
    empty_as_null: bool
    is_whole: bool


@click.command(help=_HELP, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "-K",
    "--key-separator",
    metavar="TEXT",
    help=r"What stands before the first TEXT of a line is its key; \t is a tab.",
)
@click.option("-k", "--key", metavar="TEXT", help="The key of every message.")
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    help="A header of every message. May be repeated.",
)
@click.option(
    "-Z", "--empty-as-null", is_flag=True, help="An empty value becomes null, a tombstone."
)
@click.option(
    "--whole", "is_whole", is_flag=True, help="Each FILE, or all of standard input, is one message."
)
@click.option(
    "-z",
    "--compress",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    help="Short for -X compression.type=...; without it the section's, else none.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary; only what is wrong.")
@flags.endpoint_options("brokers", "topic", table=PUSHER)
def push(**options: Any) -> None:
    """Push what is read; the text for users is `_HELP`."""
    with flags.ending():
        given = flags.take(options)
        if options["compress"] is not None:
            codec = f"compression.type={options['compress']}"
            given = given._replace(properties=(*given.properties, codec))
        conf = _conf(given)
        form = _form(options)
        names = options["files"] or ("-",)
        size = _check_files(names)
        stop = StopRequests()
        with Screen(sys.stderr) as screen, trouble(screen):
            work = Pushing(screen, stop, conf.max_block_s, shows=not options["quiet"])
            kafka = {**_DEFAULTS, **conf.kafka}
            if options["compress"] is not None:
                kafka.pop("compression.codec", None)  # an alias in the section, which would win
            quick = conf.replace(
                sync=False, max_block=min(ATTEMPT_S, conf.max_block_s), kafka=kafka
            )
            pusher = Pusher.from_config(quick, reports="failures", on_error=work.lost)
            work.open(pusher, size)
            # Only now: until the brokers have answered Ctrl-C just ends it.
            with stop:
                broken = _push_all(work, stop, names, form)
                work.is_read = not stop.count and not broken and not work.stopped_short
                work.finish()
        for problem in broken:
            told(problem)
        if not options["quiet"]:
            with contextlib.suppress(ReaderGone):
                Stdout().lines([work.summary()])
        sys.exit(_exit_code(work, stop, broken))


def _exit_code(work: Pushing, stop: StopRequests, broken: list[str]) -> int:
    if work.undelivered or work.gave_up:
        return int(ExitCode.UNDELIVERED)
    if broken:
        return int(ExitCode.CONFIG)
    return 128 + stop.signal if stop.signal else 0


def _conf(given: Given) -> PusherConf:
    """Read file and flags."""
    sets, kafka = pairs(given.sets, "--set"), pairs(given.properties, "-X")
    require_file_of_section(given)
    if given.file is None:
        return load_pusher_from_flags(sets, kafka, given.shortcuts).conf
    return load_pusher(
        given.file,
        given.section,
        overrides=sets,
        kafka_overrides=kafka,
        shortcuts=given.shortcuts,
        borrow=True,
    ).conf


def _form(options: dict[str, Any]) -> _Form:
    separator, key = options["key_separator"], options["key"]
    if separator is not None and key is not None:
        raise ConfigError("--key and --key-separator: choose one")
    if separator == "":
        raise ConfigError("--key-separator: empty; give at least one character")
    if separator is not None and options["is_whole"]:
        raise ConfigError("--key-separator is for lines: leave out --whole, or use --key")
    headers: list[tuple[str, bytes | None]] = []
    for text in options["headers"]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--header {text!r}: write it as NAME=VALUE")
        headers.append((name, os.fsencode(value)))
    return _Form(
        separator=None if separator is None else os.fsencode(separator.replace("\\t", "\t")),
        key=None if key is None else os.fsencode(key),
        headers=headers or None,
        empty_as_null=options["empty_as_null"],
        is_whole=options["is_whole"],
    )


def _check_files(names: tuple[str, ...]) -> int:
    """Return the bytes of all files together, 0 if one is no plain file.

    Raises:
        ConfigError: one cannot be read; found before anything is pushed.
    """
    sizes = []
    for name in names:
        status = _looked_at(name)
        sizes.append(status.st_size if stat.S_ISREG(status.st_mode) else 0)
    return sum(sizes) if all(sizes) else 0


def _looked_at(name: str) -> os.stat_result:
    """Return what a FILE is, one that can be read; not opened, which a FIFO's writer would see."""
    if name == "-":
        if sys.stdin is None:
            raise ConfigError("standard input is closed; name a FILE, or give it something")
        return os.fstat(0)
    try:
        status = Path(name).stat()
    except OSError as error:
        raise _unreadable(name, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{name}: is a directory; name files")
    if not os.access(name, os.R_OK):
        raise ConfigError(f"{name}: cannot be read: {os.strerror(errno.EACCES)}")
    return status


def _unreadable(name: str, error: OSError) -> ConfigError:
    return ConfigError(f"{name}: cannot be read: {error.strerror}")


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    """Open a FILE; `-` is standard input. Never blocks: who reads waits for input, or a signal."""
    if name == "-":
        yield 0
        return
    try:
        # A FIFO would wait here for its writer, and go on waiting after each signal.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(fd, True)
    except OSError as error:
        raise _unreadable(name, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _push_all(work: Pushing, stop: StopRequests, names: tuple[str, ...], form: _Form) -> list[str]:
    """Push all files, one after another; return what was wrong with one, after which it ends."""
    if "-" in names and os.isatty(0) and not stop.count:
        told("lines from the terminal; Ctrl-D ends them")
    for name in names:
        if stop.count or work.gave_up:
            break
        try:
            with _opened(name) as fd:
                _push_file(work, stop, fd, name, form)
        except ConfigError as error:
            return list(error.problems)
    return []


def _push_file(work: Pushing, stop: StopRequests, fd: int, name: str, form: _Form) -> None:
    place = "stdin" if name == "-" else name
    if form.is_whole:
        value = whole(fd, place, stop)
        if value is not None:
            work.read_bytes += len(value)
            work.push_values(_values([value], form), form.key, form.headers, place, 0)
        return
    done = 0
    for lines in line_blocks(fd, place, stop, _IDLE_S):
        work.read_bytes += sum(map(len, lines)) + len(lines)
        if form.separator is None:
            work.push_values(_values(lines, form), form.key, form.headers, place, done)
        else:
            work.push_pairs(_split(work, lines, form), form.headers, place, done)
        done += len(lines)
        work.show()
        if work.gave_up:
            return


def _values(lines: list[bytes], form: _Form) -> Sequence[bytes | None]:
    return [value or None for value in lines] if form.empty_as_null else lines


def _split(
    work: Pushing, lines: list[bytes], form: _Form
) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield key and value of each line; one without the separator has no key."""
    assert form.separator is not None
    for line in lines:
        key, separator, value = line.partition(form.separator)
        if not separator:
            work.without_key += 1
            yield None, (line or None if form.empty_as_null else line)
        else:
            yield key, (value or None if form.empty_as_null else value)
