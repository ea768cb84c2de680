"""Metrics of an interval, the report that go-zero posts, and who is told how often."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import msgspec
import pytest

from kqmp.config import KqConf
from kqmp.obs.histogram import BUCKETS, bucket
from kqmp.obs.metrics import Metrics, between, report
from kqmp.obs.poster import post
from kqmp.obs.snapshot import Snapshot, pack, unpack
from kqmp.roles import channel as channels
from kqmp.roles import control, exports
from kqmp.roles.coordinator import Coordinator, Stage
from kqmp.roles.exports import Exports, PagesWatcher, SharedPages
from kqmp.roles.snapshots import Snapshots
from tests.support.snapshots import processor, snapshot, waiting

HISTOGRAM = [0] * BUCKETS
HISTOGRAM[bucket(2_000_000)] = 99
HISTOGRAM[bucket(90_000_000)] = 1


def later(at_s: float = 160.0) -> Metrics:
    before = snapshot(at_s=100.0, processors=[processor(consumed=100, failed=1)])
    one = processor(
        consumed=700, failed=4, set_aside=1, retried=2, timed=100, timed_ns=10**9,
        histogram=HISTOGRAM, restarts=1,
    )  # fmt: skip
    after = snapshot(at_s=at_s, processors=[one, processor(down_s=1.0)], partitions=[waiting()])
    return between(before, after)


def test_metrics_are_what_went_on_in_the_interval() -> None:
    made = later()
    assert (made.seconds, made.consumed, made.failed, made.set_aside, made.retried) == (
        60.0, 600, 3, 1, 2,
    )  # fmt: skip
    assert (made.qps, made.average_ms) == (10.0, 10.0)
    assert 2 <= made.p50_ms == made.p90_ms == made.p99_ms <= 2.5
    assert 90 <= made.p999_ms <= 112.5
    assert (made.lag, made.in_flight, made.partitions) == (90, 5, 1)
    assert (made.running, made.restarts) == (1, 1)


def test_the_report_is_go_zeros_field_by_field() -> None:
    made = report(later(), 1_700_000_000, 42)
    assert list(made) == ["name", "tm", "pid", "qps", "drops", "avg", "med", "t90", "t99", "t99p9"]
    assert (made["name"], made["tm"], made["pid"]) == ("mq", 1_700_000_000, 42)
    assert (made["qps"], made["drops"], made["avg"]) == (10.0, 4, 10.0)


class Receiver(BaseHTTPRequestHandler):
    """Takes one post, or refuses it."""

    status = 204
    got: "list[tuple[str, bytes]]" = []  # noqa: RUF012 - one receiver a test

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.headers["Content-Type"], body))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.mark.parametrize(("status", "error"), [(204, ""), (503, "answered 503")])
def test_a_report_is_posted_as_json(status: int, error: str) -> None:
    class Taker(Receiver):
        got: "list[tuple[str, bytes]]" = []  # noqa: RUF012 - one receiver a test

    Taker.status = status
    with HTTPServer(("127.0.0.1", 0), Taker) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert post(f"http://127.0.0.1:{server.server_port}/stat", later()).startswith(error)
        thread.join()
    ((kind, body),) = Taker.got
    assert kind == "application/json; charset=utf-8"
    assert json.loads(body)["qps"] == 10.0


def test_a_post_to_nobody_says_why_it_failed() -> None:
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        port = server.server_port
    assert "refused" in post(f"http://127.0.0.1:{port}/", later())


class Channel:
    """The other end of a coordinator."""

    def __init__(self) -> None:
        self.got: list[control.Message] = []

    def offer(self, message: control.Message) -> None:
        self.got.append(message)


def run(
    monkeypatch: pytest.MonkeyPatch, moments: list[float], conf: dict[str, Any], **options: Any
) -> list[control.Message]:
    """Have an engine pass at these moments, the last its end; return what was sent."""
    channel = Channel()
    made = Exports(
        KqConf(brokers=["b:1"], group="g", topic="t", **conf),
        parent=cast("channels.Channel", channel),
        **options,
    )

    def take(_self: object, _coordinator: Coordinator, now_s: float) -> object:
        return snapshot(at_s=now_s, section="S", processors=[processor(consumed=int(now_s * 10))])

    monkeypatch.setattr(Snapshots, "take", take)
    coordinator = Coordinator.__new__(Coordinator)
    for index, now_s in enumerate(moments):
        coordinator.stage = Stage.DONE if index == len(moments) - 1 else Stage.RUNNING
        made(coordinator, now_s)
    made.close()
    return channel.got


def test_a_program_is_told_each_interval_and_the_rest_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments = [100.0, 101.0, 102.0, 102.5, 104.1, 105.0]
    got = run(monkeypatch, moments, {}, metrics_interval_ms=2000)
    told = [
        msgspec.msgpack.decode(m.metrics, type=Metrics)
        for m in got
        if isinstance(m, control.Metered)
    ]
    assert len(told) == len(got)
    assert [one.seconds for one in told] == pytest.approx([2.0, 2.1, 0.9])
    assert [one.consumed for one in told] == [20, 21, 9]


def test_a_parent_is_sent_a_snapshot_each_second_if_there_are_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments = [100.0, 100.4, 101.0, 101.2]
    dev = {"dev_server": {"Host": "127.0.0.1", "Port": 1}}
    got = run(monkeypatch, moments, dev, relays=True)
    sent = [unpack(m.snapshot).at_s for m in got if isinstance(m, control.Observed)]
    assert sent == [100.0, 101.0, 101.2]
    assert run(monkeypatch, moments, {}, relays=True) == []


def test_a_report_is_posted_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[Metrics] = []
    poster = type("Poster", (), {"put": lambda _, metrics: posted.append(metrics)})
    monkeypatch.setattr(exports, "_poster", lambda url: poster())
    run(monkeypatch, [100.0, 130.0, 160.0, 219.0, 220.5, 230.0], {"metrics_url": "http://x/"})
    assert [(one.seconds, one.consumed) for one in posted] == [(60.0, 600), (60.5, 605)]


def test_what_fails_here_ends_no_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def put(self, metrics: Metrics) -> None:
            raise ValueError("broken")

    monkeypatch.setattr(exports, "_poster", lambda url: Broken())
    run(monkeypatch, [100.0, 160.0, 220.0, 280.0], {"metrics_url": "http://x/"})
    assert caplog.text.count("a bug in kqmp") == 1


def test_a_parent_shows_what_the_coordinators_send() -> None:
    watcher = PagesWatcher({})
    shown: list[str] = []

    def put(snapshot: Snapshot) -> None:
        shown.append(snapshot.section)

    watcher._pages.put = put  # type: ignore[method-assign]
    watcher.hear("S", control.Observed(pack(snapshot(section="S"))))
    watcher.hear("S", control.Started())
    assert shown == ["S"]


def test_only_queues_that_share_an_address_are_served_by_their_program() -> None:
    def conf(**values: Any) -> KqConf:
        return KqConf(brokers=["b:1"], group="g", topic="t", **values)

    port = {"Host": "127.0.0.1", "Port": 1}
    made = SharedPages(
        {"a": conf(dev_server=port), "b": conf(), "c": conf(prometheus=port | {"Port": 2})}
    )
    assert made.names == set()
    made.close()


def test_nothing_is_read_if_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(*_: object) -> object:
        raise AssertionError("taken")

    made = Exports(KqConf(brokers=["b:1"], group="g", topic="t"))
    monkeypatch.setattr(Snapshots, "take", take)
    coordinator = Coordinator.__new__(Coordinator)
    coordinator.stage = Stage.DONE
    made._look(coordinator, 1.0)
