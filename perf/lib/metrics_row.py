"""The row `metrics` of perf/pusher: how long a scrape takes, and what the page costs at no-op."""

import http.client
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from kafka_node import choose_ports

from perf.lib.broker import Broker, Load
from perf.lib.engines import CORES, Job, Running
from perf.lib.processes import RunFailed
from perf.lib.rate import WARM_UP, Series, measure
from perf.lib.rows import Check, Result

SCRAPED_PROCESSORS: Final = 16
SCRAPED_PARTITIONS: Final = 256
SCRAPES: Final = 20
#: Far more often than anybody scrapes: the runs are short.
SCRAPE_INTERVAL_S: Final = 1.0
TIMEOUT_S: Final = 10.0


def metrics(broker: Broker, messages: int, rounds: int, say: Callable[[str], None]) -> Result:
    """Scrape a large engine, then run a small one with and without the page, by turns.

    Args:
        broker: where the messages lie.
        messages: of a run at no-op.
        rounds: of scrapes, and of runs.
        say: told how it goes.

    Raises:
        RunFailed: an engine failed, or its page shows not all partitions.
    """
    scrape_ms = [_scrapes(broker, number, rounds, say) for number in range(1, rounds + 1)]
    series = _on_and_off(broker, messages, rounds, say)
    scrape = statistics.median(scrape_ms)
    what = f"scrape, {SCRAPED_PROCESSORS} processors, {SCRAPED_PARTITIONS} partitions"
    checks = [Check("metrics", what, 20, "<=", scrape, "ms")]
    if series.has("on", "off"):
        part = series.ratio("on", "off", lambda run: run.messages_s)
        checks.append(Check("metrics", "rate at no-op, of that without", 0.98, ">=", part, "x"))
    return Result(checks, series, {"scrape_ms": [round(ms, 3) for ms in scrape_ms]})


def _scrapes(broker: Broker, number: int, rounds: int, say: Callable[[str], None]) -> float:
    """Return the median of some scrapes of an engine that has just handled messages, in ms."""
    load = Load(SCRAPED_PARTITIONS * 100, SCRAPED_PARTITIONS, keys=10_000)
    job = Job(broker, load, "noop", processors=SCRAPED_PROCESSORS)
    with _page(job) as (with_page, port), Running("kqmp", with_page) as engine:
        engine.wait_for_count(load.count)
        # The page shows a snapshot of each second: one in which everything is handled.
        time.sleep(2.0)
        took_ms, size = [], 0
        for _ in range(SCRAPES):
            began_s = time.perf_counter()
            text = _get(port)
            took_ms.append((time.perf_counter() - began_s) * 1000)
            size = len(text)
            shown = {f'partition="{number}"' for number in range(SCRAPED_PARTITIONS)}
            lacking = [label for label in shown if label not in text]
            if lacking:
                raise RunFailed(f"the page does not show {len(lacking)} partitions")
        engine.stop()
    median = statistics.median(took_ms)
    say(f"round {number}/{rounds}: a scrape of {size / 1024:.0f} KiB: {median:.2f} ms")
    return median


def _on_and_off(broker: Broker, messages: int, rounds: int, say: Callable[[str], None]) -> Series:
    load = Load(messages, partitions=12, keys=1000)
    off = Job(broker, load, "noop", processors=CORES)
    series = Series({"on": [], "off": []})
    for number in range(rounds + 1):
        for name in series.runs:
            part = 1.0 if number else WARM_UP
            if name == "on":
                with _page(off) as (job, port), _scraped(port):
                    rate = measure("kqmp", job, part)
            else:
                rate = measure("kqmp", off, part)
            if number:
                series.runs[name].append(rate)
            turn = f"round {number}/{rounds}" if number else "warm-up"
            say(f"{turn}: metrics {name}: {rate.messages_s:,.0f}/s, {rate.cpu_us:.2f} us CPU")
    return series


@contextmanager
def _page(job: Job) -> Iterator[tuple[Job, int]]:
    """Give the job with a page of metrics, and the page's port."""
    (port,) = choose_ports(1)
    with tempfile.TemporaryDirectory(prefix="kqmp-perf-") as scratch:
        file = Path(scratch, "mq.yaml")
        file.write_text(f"Prometheus:\n  Host: 127.0.0.1\n  Port: {port}\n")
        yield replace(job, kqmp_options=(*job.kqmp_options, "-f", str(file))), port


@contextmanager
def _scraped(port: int) -> Iterator[None]:
    """Scrape the page now and then while the block runs."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_INTERVAL_S):
            try:
                _get(port)
            except OSError:
                continue  # it starts or stops

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _get(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != 200:
            raise RunFailed(f"/metrics answers {answer.status} {answer.reason}")
        return answer.read().decode()
    finally:
        connection.close()
