"""The pages: which sections show what where, what health says, and how a port is refused."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kqmp.config import KqConf
from kqmp.errors import ConfigError, ExitCode, WorkerStartError
from kqmp.obs import pages
from kqmp.obs.pages import Page, Pages, pages_of
from kqmp.obs.route import Reply
from kqmp.obs.webserver import CLIENTS_MAX, WebServer
from tests.support.engine import wait_until
from tests.support.snapshots import snapshot


def conf(**values: Any) -> KqConf:
    return KqConf(brokers=["b:1"], group="g", topic="t", **values)


def test_a_section_without_the_keys_asks_for_nothing() -> None:
    assert pages_of("", conf()) == []
    assert pages_of("", conf(prometheus={"Port": 1}, dev_server={"Enabled": False})) == []


def test_the_keys_ask_for_their_pages() -> None:
    asked = pages_of(
        "S",
        conf(
            prometheus={"Host": "127.0.0.1", "Path": "/m"},
            dev_server={"HealthPath": "/up", "HealthResponse": "fine"},
        ),
    )
    assert asked == [
        Page("Prometheus", "S", "127.0.0.1", 9101, "/m"),
        Page("DevServer", "S", "", 6060, "/up", is_health=True, well="fine"),
        Page("DevServer", "S", "", 6060, "/metrics", well="OK"),
    ]
    assert len(pages_of("S", conf(dev_server={"EnableMetrics": False}))) == 1


Shown = Callable[[str], Reply]


def show(confs: dict[str, KqConf], *snapshots: Any) -> dict[str, Shown]:
    """Return the routes of the one address that sections share, without a port."""
    made = Pages({})
    for one in snapshots:
        made.put(one)
    asked = [page for section, conf in confs.items() for page in pages_of(section, conf)]
    (routes,) = made._routes(asked).values()
    return dict(routes)


DEV = {"Host": "127.0.0.1", "Port": 6060}


def test_sections_at_one_address_share_its_pages() -> None:
    now_s = time.monotonic()
    routes = show(
        {name: conf(dev_server=DEV) for name in ("A", "B")},
        snapshot(section="A", at_s=now_s, commits=1),
        snapshot(section="B", at_s=now_s, running=False),
        snapshot(section="C", at_s=now_s, commits=3),
    )
    health = routes["/healthz"]("")
    assert (health.status, health.body) == (503, b"B: stopping\n")
    metrics = routes["/metrics"]("").body.decode()
    assert 'kqmp_commits_total{queue="mq",section="A"} 1.0' in metrics
    assert 'section="B"' in metrics
    assert 'section="C"' not in metrics, "it has not asked for this page"


def test_health_is_ok_only_while_all_is_well() -> None:
    confs = {"": conf(dev_server=DEV)}
    assert show(confs)["/healthz"]("").body == b"starting\n"
    well = show(confs, snapshot(at_s=time.monotonic()))["/healthz"]("")
    assert (well.status, well.body) == (200, b"OK")
    late = show(confs, snapshot(at_s=time.monotonic() - 60))["/healthz"]("")
    assert late.status == 503
    assert b"has not turned its loop for 6" in late.body


def test_one_path_cannot_be_two_pages() -> None:
    with pytest.raises(ConfigError, match="DevServer: /x of port 6060 is to show health and"):
        show({"": conf(dev_server={**DEV, "HealthPath": "/x", "MetricsPath": "/x"})})


def test_without_the_package_prometheus_is_refused_and_devserver_says_so() -> None:
    def absent() -> bool:
        return False

    asks = conf(prometheus={"Host": "127.0.0.1"})
    assert "pip install 'kqmp[prometheus]'" in pages.problem(asks, absent)
    assert not pages.problem(asks)
    assert not pages.problem(conf(prometheus={}, dev_server=DEV), absent)
    (note,) = pages.notes(conf(dev_server=DEV), absent)
    assert "no /metrics" in note
    assert not pages.notes(conf(dev_server={**DEV, "EnableMetrics": False}), absent)


def test_two_keys_with_their_page_at_one_place_show_it_once() -> None:
    same = {"Host": "127.0.0.1", "Port": 6060}
    routes = show({"": conf(prometheus=same, dev_server=same)}, snapshot(commits=1))
    metrics = routes["/metrics"]("").body.decode()
    assert metrics.count("kqmp_commits_total{") == 1


@pytest.fixture
def taken() -> Iterator[int]:
    """Give a port of 127.0.0.1 that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_one_clear_error(taken: int) -> None:
    with pytest.raises(WorkerStartError) as caught:
        Pages({"": conf(prometheus={"Host": "127.0.0.1", "Port": taken})})
    expected = f"Prometheus: Port: 127.0.0.1:{taken} is in use by another process; choose another"
    assert str(caught.value) == f"{expected} Port"
    assert caught.value.exit_code is ExitCode.WORKER_START
    with pytest.raises(WorkerStartError, match=r"^S\.DevServer: Port: "):
        Pages({"S": conf(dev_server={"Host": "127.0.0.1", "Port": taken})})


@pytest.mark.parametrize("host", ["203.0.113.1", "a..b", "x" * 64])
def test_a_host_of_another_machine_is_an_error_of_the_file(host: str) -> None:
    with pytest.raises(ConfigError, match="is no address of this machine"):
        Pages({"": conf(prometheus={"Host": host})})


def get(port: int, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_a_web_server_answers_its_routes_and_gives_its_port_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_accept: str) -> Reply:
        raise ValueError("here")

    server = WebServer("127.0.0.1", 0, {"/a": lambda _: Reply(200, b"A"), "/b": broken})
    server.start()
    try:
        assert get(server.port, "/a?x=1") == (200, "text/plain; charset=utf-8", b"A")
        assert get(server.port, "/a", "HEAD")[::2] == (200, b"")
        assert get(server.port, "/")[2] == b"/a\n/b\n"
        assert get(server.port, "/c")[0] == 404
        assert get(server.port, "/b")[0] == 500
        assert get(server.port, "/a", "POST")[0] == 501
    finally:
        server.close()
    assert "ValueError: here" in caplog.text
    WebServer("127.0.0.1", server.port, {}).close()


def test_clients_beyond_a_bound_are_hung_up_on() -> None:
    server = WebServer("127.0.0.1", 0, {"/a": lambda _: Reply(200, b"A")})
    server.start()
    idle: list[socket.socket] = []

    def free() -> int:
        return server._server._free._value

    def all_taken() -> bool:
        return free() == CLIENTS_MAX - len(idle)

    try:
        # One by one: the kernel's short queue would have some try again seconds later.
        while free():
            idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            wait_until(all_taken, "all so far to be taken")
        idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        assert idle[-1].recv(1) == b""
        for client in idle:
            client.close()
        wait_until(lambda: free() == CLIENTS_MAX, "all threads free again")
        assert get(server.port, "/a")[0] == 200
    finally:
        for client in idle:
            client.close()
        server.close()


def test_its_socket_is_not_for_children() -> None:
    server = WebServer("127.0.0.1", 0, {})
    assert not server._server.socket.get_inheritable()
    server.close()
