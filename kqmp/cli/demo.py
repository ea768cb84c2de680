"""`kqmp demo`: the engine at work on this machine, without a broker, judged by a ledger.

Hosts a mock cluster, produces messages, handles a part of them in a plain poll() loop and all of
them through `kqmp run`, kills processors on the way, and compares what the handlers wrote down
with what was produced. Leaves no process and no file, however it ends.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

import click

from kqmp.cli import demo_handler
from kqmp.cli.demo_engine import Engine, Kill, recovery_s
from kqmp.cli.demo_ledger import Ledger, Verdict, judge
from kqmp.cli.demo_load import PLAIN_S_MAX, Load, measure
from kqmp.cli.demo_report import Outcome, problems, table
from kqmp.cli.demo_watch import Watch
from kqmp.cli.screen import Screen
from kqmp.errors import ExitCode, KqmpError, WorkerStartError
from kqmp.kafka.mock import MockHost, end_helper, start_helper
from kqmp.kafka.plain import committed_sum, log_bounds, produce

TOPIC: Final = "demo"
PARTITIONS: Final = 32
ENGINE_GROUP: Final = "demo"
PLAIN_GROUP: Final = "demo-plain-loop"
#: The demo looks at the ledger this often.
LOOK_S: Final = 0.05
#: Where the one kill falls, as a part of all messages.
KILL_AT: Final = 0.4
#: The time between two kills of `--torture`; none falls on the last messages.
TORTURE_S: Final = 1.0
TORTURE_UNTIL: Final = 0.95


class _Stopped(BaseException):
    """A signal came that means stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--torture", is_flag=True, help="Kill a processor every second.")
@click.option(
    "--messages",
    type=click.IntRange(1_000, 1_000_000),
    default=100_000,
    show_default=True,
    metavar="N",
    help="How many to produce, 1,000 to 1,000,000.",
)
@click.option(
    "--processors",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Processor processes of the engine.  [default: the usable cores]",
)
def demo(torture: bool, messages: int, processors: int | None) -> None:  # noqa: FBT001 - a flag
    """See kqmp at work without a broker: it hosts a mock cluster for the time of the demo.

    The same CPU-heavy handler runs in a plain poll() loop and on the engine, where processors are
    killed on the way. Takes about half a minute. Exit code 0: nothing was lost, every key kept its
    order; 1: not so; 130: interrupted.
    """
    try:
        with _stoppable(), Screen(sys.stdout) as screen:
            sys.exit(Demo(screen, torture=torture).run(messages, processors))
    except _Stopped as stopped:
        sys.exit(128 + stopped.number)
    except KqmpError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(int(error.exit_code))


@contextmanager
def _stoppable() -> Iterator[None]:
    """Have INT, TERM and HUP raise `_Stopped` once; later ones let the cleaning-up end."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Demo:
    """One run of the demo."""

    def __init__(self, screen: Screen, *, torture: bool) -> None:
        """Nothing happens before `run`."""
        self._screen = screen
        self._torture = torture
        self._kills: list[Kill] = []

    def run(self, messages: int, processors: int | None) -> ExitCode | int:
        """Run it and return the exit code.

        Raises:
            WorkerStartError: a process could not be started, or ended.
        """
        load = measure(messages, processors)
        self._screen.line(
            f"kqmp demo: {messages:,} messages of {demo_handler.KEYS:,} keys,"
            f" {load.work_s * 1e6:.0f} us of CPU each; usable cores: {load.cores_why}"
        )
        if load.busy_cores:
            self._screen.line(
                f"note: other programs use {load.busy_cores:.1f} of the cores now:"
                " the speed-up will say little"
            )
        with MockHost(TOPIC, PARTITIONS) as host:
            self._produce(host, load)
            plain = self._run_plain(host, load)
            outcome = self._run_engine(host, load, plain)
        return self.report(outcome)

    def _produce(self, host: MockHost, load: Load) -> None:
        pairs = (
            (demo_handler.key_of(key), demo_handler.value_of(key, number))
            for key, number in demo_handler.messages(load.messages)
        )
        began_s = time.monotonic()
        for count in produce(host.bootstrap, TOPIC, pairs):
            self._screen.progress(f"producing     {count:,} of {load.messages:,}")
        self._screen.end_progress()
        took_s = time.monotonic() - began_s
        self._screen.line(
            f"mock cluster  {host.bootstrap}, topic {TOPIC}: {PARTITIONS} partitions,"
            f" {load.messages:,} messages produced in {took_s:.1f} s"
        )
        if not self._is_whole(host, load):
            raise WorkerStartError("the mock cluster does not hold what was produced")

    @staticmethod
    def _is_whole(host: MockHost, load: Load) -> bool:
        """Whether the mock still holds every message: its retention drops them without a word."""
        return log_bounds(host.bootstrap, TOPIC) == (0, load.messages)

    def _run_plain(self, host: MockHost, load: Load) -> Verdict:
        """Handle the first messages in a plain loop."""
        part = "" if load.plain_messages == load.messages else ", on a part of the messages"
        self._screen.line(f"plain loop    for comparison: one process, poll(){part}")
        with Ledger() as ledger, ExitStack() as cleaning:
            arguments = [host.bootstrap, TOPIC, PLAIN_GROUP, str(load.plain_messages)]
            with _variables(ledger, load):
                process = start_helper("kqmp.cli.demo_loop", arguments)
            cleaning.callback(end_helper, process)
            watch = Watch(ledger, load.plain_messages)
            while watch.goes_on() and watch.passed_s < PLAIN_S_MAX and process.poll() is None:
                self._screen.progress(f"plain loop    {watch}")
                _wait_for(process, LOOK_S)
            self._screen.end_progress()
            end_helper(process)
            verdict = judge(ledger.read(), demo_handler.crcs_of(load.messages))
        self._screen.line(f"plain loop    {verdict.per_second:,.0f} messages a second")
        return verdict

    def _run_engine(self, host: MockHost, load: Load, plain: Verdict) -> Outcome:
        """Handle all messages through the engine, killing processors."""
        with Ledger() as ledger, ExitStack() as cleaning:
            arguments = _run_arguments(host, load)
            self._screen.line(f"engine        $ kqmp {' '.join(arguments)}")
            engine = Engine(arguments, _environment(ledger, load))
            cleaning.callback(engine.close)
            self._watch_engine(engine, Watch(ledger, load.messages), load)
            engine.look()  # the successors of those that were killed last
            code = engine.stop()
            verdict = judge(ledger.read(), demo_handler.crcs_of(load.messages))
            if code != 0:
                for line in engine.log_tail():
                    self._screen.line(f"  | {line}")
        if not host.is_alive():
            raise WorkerStartError("the mock cluster ended; this run says nothing")
        starts = verdict.first_start_ns
        return Outcome(
            messages=load.messages,
            plain_messages=min(load.plain_messages, plain.distinct),
            processors=load.processors,
            plain=plain,
            engine=verdict,
            recoveries_s=[recovery_s(kill, engine.places, starts) for kill in self._kills],
            committed=committed_sum(host.bootstrap, TOPIC, ENGINE_GROUP),
            exit_code=code,
            retained=self._is_whole(host, load),
        )

    def _watch_engine(self, engine: Engine, watch: Watch, load: Load) -> None:
        """Show progress and kill until all is handled, or nothing more is."""
        next_kill = load.messages * KILL_AT
        next_kill_s = 0.0
        while watch.goes_on() and engine.exit_code() is None:
            time.sleep(LOOK_S)
            now_s = time.monotonic()
            if self._torture:
                is_due = now_s >= next_kill_s and 0 < watch.done < load.messages * TORTURE_UNTIL
            else:
                is_due = watch.done >= next_kill
            if is_due and self._kill_one(engine, watch):
                next_kill, next_kill_s = load.messages + 1, now_s + TORTURE_S
            self._screen.progress(f"engine        {watch}")
        self._screen.end_progress()

    def _kill_one(self, engine: Engine, watch: Watch) -> bool:
        """Kill a processor that has handled something; tell whether there was one."""
        running = engine.look()
        candidates = sorted(watch.take_active() & set(running))
        if not candidates:
            return False
        kill = engine.kill(running[random.choice(candidates)])
        if kill is None:
            return False
        self._kills.append(kill)
        self._screen.line(f"engine        {watch}  kill -9 of processor {kill.place}")
        return True

    def report(self, outcome: Outcome) -> int:
        """Write the table and what was not as promised; return the exit code."""
        self._screen.line()
        for line in table(outcome):
            self._screen.line(line)
        self._screen.line()
        wrong = problems(outcome)
        for problem in wrong:
            self._screen.line(f"error: {problem}")
        if not wrong:
            self._screen.line(
                "ok: by the handlers' own ledger nothing was lost and every key kept its order"
            )
        return 1 if wrong else ExitCode.CLEAN


def _run_arguments(host: MockHost, load: Load) -> list[str]:
    return [
        "run",
        "kqmp.cli.demo_handler:Handler",
        *("--brokers", host.bootstrap, "--group", ENGINE_GROUP, "--topic", TOPIC),
        *("--processors", str(load.processors), "--set", "Offset=first"),
        # The mock sleeps this long in every fetch that finds nothing, and the session timeout
        # (less a second) in every rebalance.
        *("--set", "MaxWait=10ms", "-X", "session.timeout.ms=6000"),
    ]


def _environment(ledger: Ledger, load: Load) -> dict[str, str]:
    return {
        demo_handler.LEDGER_VARIABLE: ledger.path,
        demo_handler.ROUNDS_VARIABLE: str(load.rounds),
    }


@contextmanager
def _variables(ledger: Ledger, load: Load) -> Iterator[None]:
    """Have what is started in the block inherit the handler's variables."""
    values = _environment(ledger, load)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]


def _wait_for(process: "subprocess.Popen[bytes]", timeout_s: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
