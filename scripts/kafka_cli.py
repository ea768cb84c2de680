"""The command line of `scripts/kafka`: clusters that outlive the command, found by port or data.

A cluster keeps its own records in its data directory (see `kafka_cluster`). The state directory,
``$XDG_STATE_HOME/kqmp`` (default ~/.local/state/kqmp), has one symbolic link ``kafka-PORT`` to that
directory per cluster, made before its first JVM starts, and a lock file per port.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kafka_cluster import DEFAULT_HEAP, KAFKA_VERSION, Cluster, KafkaError, launch_detached
from kafka_jars import locked
from kafka_security import OPEN, Security

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from kafka_process import ProcessId

DEFAULT_PORT = 9092
EXIT_ERROR = 1
#: As `systemctl status` has it.
EXIT_NOT_RUNNING = 3
EXIT_INTERRUPTED = 130

DESCRIPTION = f"""\
Start, stop and describe real Apache Kafka {KAFKA_VERSION} (KRaft) on 127.0.0.1.

The jars are fetched once from Maven Central with `mvn` into $XDG_CACHE_HOME/kqmp (default
~/.cache/kqmp). Needs Java 17 or newer, and Maven for that first time. Several clusters can run
side by side; each is found by its port or its data directory."""

EPILOG = f"""\
examples:
  scripts/kafka start                          one node on 127.0.0.1:{DEFAULT_PORT}
  scripts/kafka start --nodes 3 --port 19092   three nodes on ports 19092 to 19094
  scripts/kafka start --data ./kafka-data      keep the data from one start to the next
  scripts/kafka kill 1; scripts/kafka restart 1
  kqmp run mqs:consume --brokers "$(scripts/kafka env)" --group g --topic t

  scripts/kafka start --sasl --tls             clients need a password and TLS
  eval "$(scripts/kafka env)"                  sets KAFKA_BROKERS, KAFKA_USERNAME, KAFKA_PASSWORD
                                               and KAFKA_CA_FILE (Password: ${{KAFKA_PASSWORD}})

environment:
  JAVA_HOME         the Java to use, instead of `java` on PATH
  KAFKA_HEAP_OPTS   JVM flags of every node (default: {DEFAULT_HEAP})

exit codes: 0 done (also: runs already, or nothing to stop), 1 error, 2 usage, 3 not running,
130 interrupted"""


def state_directory() -> Path:
    """Return the directory of the links, made if missing."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    directory = Path(state, "kqmp")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def link_of(port: int) -> Path:
    """Return the link for the cluster whose node 1 has ``port``; it need not exist."""
    return state_directory() / f"kafka-{port}"


def find(port: int) -> Cluster | None:
    """Return the cluster on record for ``port``, running or not; None if there is none."""
    link = link_of(port)
    if not link.is_symlink():
        return None
    try:
        return Cluster.open(link.readlink())
    except KafkaError:
        return None


def is_running(cluster: Cluster) -> bool:
    """Tell whether at least one node runs."""
    return any(node.pid is not None for node in cluster.status())


def start(options: argparse.Namespace) -> int:
    """Start a cluster, or say that it runs already."""
    there = find(options.port)
    if there is not None and is_running(there):
        return _runs_already(there, options)
    if there is not None and there.is_temporary:
        _say(f"removing the temporary data of an earlier cluster, {there.directory}")
        there.stop()
    heap = os.environ.get("KAFKA_HEAP_OPTS") or DEFAULT_HEAP
    security = _security(options)
    cluster = Cluster(_node_count(options), options.port, options.data, heap, security=security)
    link = link_of(options.port)

    def launch(command: Sequence[str], pid_file: Path, log: Path) -> ProcessId:
        # On record first: whatever happens to this command, `stop` finds the JVM.
        if not link.is_symlink() or link.readlink() != pid_file.parent:
            link.unlink(missing_ok=True)
            link.symlink_to(pid_file.parent)
        return launch_detached(command, pid_file, log)

    cluster.launch = launch
    cluster.say = _say
    began_s = time.monotonic()
    try:
        cluster.start()
    except BaseException:
        # A second signal may have cut the clean-up short.
        if not is_running(cluster):
            link.unlink(missing_ok=True)
        raise
    _say(f"ready after {time.monotonic() - began_s:.1f} s")
    _describe(cluster)
    return 0


def _node_count(options: argparse.Namespace) -> int:
    """Take what was asked for, else what the data are of, else one."""
    if options.nodes is None and options.data is not None:
        with contextlib.suppress(KafkaError):
            return len(Cluster.open(options.data).ports)
    return options.nodes or 1


def _security(options: argparse.Namespace) -> Security:
    """Take what was asked for, else what the data are of, else none."""
    if options.sasl or options.tls:
        return Security.of(sasl=options.sasl, tls=options.tls)
    if options.data is not None:
        with contextlib.suppress(KafkaError):
            return Cluster.open(options.data).security
    return OPEN


def _runs_already(there: Cluster, options: argparse.Namespace) -> int:
    nodes = there.status()
    if options.nodes not in (None, len(nodes)):
        raise KafkaError(
            f"a cluster of {len(nodes)} node(s) runs already on {there.bootstrap}: "
            f"stop it first (`scripts/kafka stop --port {options.port}`), or take another --port"
        )
    asked = Security.of(sasl=options.sasl, tls=options.tls)
    if not asked.is_open and not asked.is_like(there.security):
        raise KafkaError(
            f"a cluster for {there.security.protocol} runs already on {there.bootstrap}: "
            f"stop it first (`scripts/kafka stop --port {options.port}`), or take another --port"
        )
    if options.data is not None and options.data.resolve() != there.directory.resolve():
        raise KafkaError(
            f"the cluster on {there.bootstrap} runs already, with its data in {there.directory}: "
            "stop it first, or take another --port"
        )
    down = [node.number for node in nodes if node.pid is None]
    if down:
        raise KafkaError(
            f"the cluster on {there.bootstrap} runs, but node {down[0]} does not: "
            f"`scripts/kafka restart {down[0]} --port {options.port}` brings it back"
        )
    _say("runs already")
    _describe(there)
    return 0


def stop(options: argparse.Namespace) -> int:
    """Stop a cluster; that none runs is no error."""
    there = find(options.port)
    if there is None:
        _say(f"no cluster on port {options.port}{_others(options.port)}")
        return 0
    ran = is_running(there)
    address = there.bootstrap
    note = f"data kept in {there.directory}" if not there.is_temporary else "data removed"
    there.stop()
    link_of(options.port).unlink(missing_ok=True)
    _say(f"{address} {'stopped' if ran else 'was not running'}; {note}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Describe the cluster asked for, or all on record."""
    if options.chosen:
        ports = [options.port]
    else:
        ports = sorted(
            int(link.name.removeprefix("kafka-"))
            for link in state_directory().glob("kafka-*")
            if link.is_symlink()
        )
    found = [cluster for cluster in map(find, ports) if cluster is not None]
    for cluster in found:
        _describe(cluster)
    if not found:
        place = f" on port {options.port}" if options.chosen else ""
        print(f"no cluster{place}")
    return 0 if any(is_running(cluster) for cluster in found) else EXIT_NOT_RUNNING


def env(options: argparse.Namespace) -> int:
    """Print the bootstrap address alone; of a secured cluster, variables for a shell."""
    cluster = _existing(options)
    if cluster.security.is_open:
        print(cluster.bootstrap)
    else:
        print(*cluster.security.variables(cluster.bootstrap, cluster.directory), sep="\n")
    return 0


def kill(options: argparse.Namespace) -> int:
    """Crash one node."""
    cluster = _existing(options)
    cluster.kill(options.node)
    _say(f"node {options.node} of {cluster.bootstrap} killed")
    return 0


def restart(options: argparse.Namespace) -> int:
    """Bring one node back, or bounce it."""
    cluster = find(options.port)
    if cluster is None:
        raise NotRunningError(options.port)
    cluster.launch = launch_detached
    began_s = time.monotonic()
    cluster.restart(options.node)
    took_s = time.monotonic() - began_s
    _say(f"node {options.node} of {cluster.bootstrap} ready after {took_s:.1f} s")
    return 0


class NotRunningError(KafkaError):
    """The command needs a cluster, and there is none on that port."""

    def __init__(self, port: int) -> None:
        super().__init__(
            f"no cluster runs on port {port}{_others(port)}; start one with "
            f"`scripts/kafka start --port {port}`"
        )


class DownError(NotRunningError):
    """The command needs a running node, and all of the cluster's were killed or died."""

    def __init__(self, port: int) -> None:
        KafkaError.__init__(
            self,
            f"every node of the cluster on port {port} is down; "
            f"`scripts/kafka restart 1 --port {port}` brings node 1 back",
        )


def _existing(options: argparse.Namespace) -> Cluster:
    cluster = find(options.port)
    if cluster is None:
        raise NotRunningError(options.port)
    if not is_running(cluster):
        raise DownError(options.port)
    return cluster


def _others(port: int) -> str:
    links = [link for link in state_directory().glob("kafka-*") if link.is_symlink()]
    ports = sorted(int(link.name.removeprefix("kafka-")) for link in links)
    others = ", ".join(str(other) for other in ports if other != port)
    return f" (there is one on: {others}; choose with --port)" if others else ""


def _describe(cluster: Cluster) -> None:
    nodes = cluster.status()
    kept = "temporary, removed by stop" if cluster.is_temporary else "kept by stop"
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    print(f"Apache Kafka {KAFKA_VERSION}, {count}, bootstrap {cluster.bootstrap}")
    print(f"  data    {cluster.directory} ({kept})")
    if not cluster.security.is_open:
        print(f"  clients {cluster.security.protocol}; `scripts/kafka env` says what they need")
    for node in nodes:
        state = "down" if node.pid is None else f"pid {node.pid}"
        print(f"  node {node.number}  127.0.0.1:{node.port}  {state}  log {node.log}")


def _say(line: str) -> None:
    print(f"kafka: {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kafka",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for action, text in (
        (start, "start a cluster and wait until it serves"),
        (stop, "stop it; temporary data are removed, those of --data kept"),
        (status, "describe one cluster, or all; exit 3 if none runs"),
        (env, "print the bootstrap address; with --sasl or --tls: shell variables"),
        (kill, "kill a node with SIGKILL, as a crash would"),
        (restart, "start a killed node again, or stop and start a running one"),
    ):
        command = commands.add_parser(action.__name__, help=text, description=text)
        command.set_defaults(action=action)
        command.add_argument(
            "--port", type=_port, metavar="N", help=f"port of node 1 (default {DEFAULT_PORT})"
        )
        command.add_argument(
            "--data", type=Path, metavar="DIR", help="the data directory of the cluster"
        )
        if action is start:
            command.add_argument(
                "--nodes", type=int, choices=(1, 3), help="how many nodes (default 1)"
            )
            command.add_argument(
                "--sasl",
                action="store_true",
                help="clients need a password, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
            )
            command.add_argument(
                "--tls", action="store_true", help="clients need TLS, with an authority of ours"
            )
        if action in (kill, restart):
            command.add_argument("node", type=int, metavar="NODE", help="node number, from 1")
    return parser


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else 0
    if not 1 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, which is 1 to 65535")
    return port


def _settle_port(options: argparse.Namespace) -> None:
    """Fill in ``options.port``; a data directory on record knows its own, except for `start`."""
    options.chosen = options.port is not None or options.data is not None
    if options.port is None and options.data is not None and options.action is not start:
        options.port = Cluster.open(options.data).ports[0]
    if options.port is None:
        options.port = DEFAULT_PORT


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    # A terminated start cleans up after itself, as an interrupted one does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        _settle_port(options)
        changes = options.action in (start, stop, kill, restart)
        lock = state_directory() / f"kafka-{options.port}.lock"
        with locked(lock) if changes else contextlib.nullcontext():
            return int(options.action(options))
    except NotRunningError as error:
        _say(str(error))
        return EXIT_NOT_RUNNING
    except (KafkaError, OSError) as error:
        _say(f"error: {error}")
        return EXIT_ERROR
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_INTERRUPTED
