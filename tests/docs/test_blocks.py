"""The documentation is true: every block that can run is run, every name of kq has its row."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka.admin import AdminClient

from kqmp import ExitCode, KqConf, PusherConf
from tests.support.docs import LANGUAGES, Block, Reader, blocks, typed
from tests.support.kafka import ROOT, create_topic

DOCS = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", *DOCS]
KQ = ROOT / "docs" / "coming-from-kq.md"
RUN = frozenset({"python", "bash", "console"})

#: What kq and the parts of go-zero that it brings along have: fields, options, methods.
KQ_NAMES = frozenset(
    """
    KqConf.Brokers KqConf.Group KqConf.Topic KqConf.CaFile KqConf.Username KqConf.Password
    KqConf.Offset KqConf.MinBytes KqConf.MaxBytes KqConf.Conns KqConf.Consumers KqConf.Processors
    KqConf.ForceCommit KqConf.CommitInOrder
    ServiceConf.Name ServiceConf.Log ServiceConf.Mode ServiceConf.MetricsUrl ServiceConf.Prometheus
    ServiceConf.Telemetry ServiceConf.DevServer ServiceConf.Shutdown ServiceConf.Profiling
    Log.ServiceName Log.Mode Log.Encoding Log.TimeFormat Log.Path Log.Level Log.MaxContentLength
    Log.Compress Log.Stat Log.KeepDays Log.MaxBackups Log.MaxSize Log.Rotation
    Prometheus.Host Prometheus.Port Prometheus.Path
    Telemetry.Name Telemetry.Endpoint Telemetry.Sampler Telemetry.Batcher Telemetry.Disabled
    DevServer.Enabled DevServer.Host DevServer.Port DevServer.MetricsPath DevServer.HealthPath
    DevServer.EnableMetrics DevServer.EnablePprof DevServer.HealthResponse
    kq.MustNewQueue kq.NewQueue kq.ConsumeHandler kq.WithHandle kq.WithCommitInterval
    kq.WithQueueCapacity kq.WithMaxWait kq.WithMetrics kq.WithErrorHandler
    Queue.Start Queue.Stop
    kq.NewPusher kq.WithChunkSize kq.WithFlushInterval kq.WithSyncPush
    kq.WithAllowAutoTopicCreation kq.WithBalancer
    Pusher.Push Pusher.PushWithKey Pusher.KPush Pusher.Name Pusher.Close
    service.NewServiceGroup ServiceGroup.Add ServiceGroup.Start ServiceGroup.Stop
    conf.MustLoad
    """.split()  # noqa: SIM905 - 80 lines of one name each say no more
)
VERDICTS = frozenset({"same", "better", "different"})

#: A web server's side of the lifespan and of one request, for web.py of service-group.md.
DRIVE_WEB = """
import asyncio, json
from web import app

async def main():
    to_app, from_app, state, sent = asyncio.Queue(), asyncio.Queue(), {}, []
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    lifespan = asyncio.create_task(app(scope, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    assert await from_app.get() == {"type": "lifespan.startup.complete"}
    body = json.dumps({"customer": "eve", "id": 3, "amount": 14.5}).encode()

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/orders", "headers": []}
    await app({**scope, "query_string": b"", "state": state}, receive, send)
    assert sent[0]["status"] == 201, sent
    tail = "kqmp tail -f etc/all.yaml --section Receipts -o beginning -c 2 --raw".split()
    process = await asyncio.create_subprocess_exec(*tail, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), 40)
    assert b'{"order":3,"paid":14.5}' in output, output
    await to_app.put({"type": "lifespan.shutdown"})
    assert await from_app.get() == {"type": "lifespan.shutdown.complete"}
    await lifespan

if __name__ == "__main__":
    asyncio.run(main())
"""
#: Topics that a document takes for granted.
TOPICS = {"README": ["images"]}
#: What a test does where a document's files are when it has followed it.
AFTERWARDS = {"service-group": DRIVE_WEB}

ALL_BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]


def of_language(*languages: str) -> list[Block]:
    return [block for block in ALL_BLOCKS if block.language in languages]


def rows() -> dict[str, list[str]]:
    """Return the cells behind each name in the tables of coming-from-kq.md."""
    found: dict[str, list[str]] = {}
    for line in KQ.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            for name in re.findall(r"`([^`]+)`", cells[0]):
                assert name not in found, f"{name} has two rows"
                found[name] = cells[1:]
    return found


def test_every_block_says_what_it_is() -> None:
    for document in DOCS:
        for block in blocks(document):
            assert block.language in LANGUAGES, f"{block}: {block.language!r} is no language here"
    for block in of_language("console"):
        assert typed(block), f"{block}: nothing is typed"


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_coming_from_kq_has_a_row_for_each_name() -> None:
    table = rows()
    assert not KQ_NAMES - table.keys()
    for name, (twin, verdict, why) in table.items():
        assert twin, f"{name}: no twin"
        assert verdict in VERDICTS, f"{name}: {verdict!r} is no verdict"
        assert why or verdict == "same", f"{name}: {verdict}, but why?"


def test_go_blocks_use_names_that_have_a_row() -> None:
    table = rows()
    found = of_language("go")
    assert found
    for block in found:
        used = set(re.findall(r"\b((?:kq|conf|service)\.[A-Z]\w+)", block.text))
        used -= {"kq.KqConf", "kq.Pusher", "service.Service"}  # types that hold these names
        assert not used - table.keys(), block


@pytest.mark.parametrize("block", of_language("yaml", "json", "toml"), ids=str)
def test_configurations_load(block: Block, tmp_path: Path) -> None:
    path = tmp_path / f"one.{block.language}"
    path.write_text(block.text.replace("${KAFKA_PASSWORD}", "secret"))
    text = re.sub(r"/etc/[\w./-]+\.pem", str(tmp_path / "ca.pem"), path.read_text())
    path.write_text(text)
    (tmp_path / "ca.pem").write_text("")
    document: dict[str, Any] = yaml.safe_load(text) if block.language != "toml" else {}
    keys = {"brokers", "group", "topic"}
    named = [
        (name, {str(key).lower() for key in table})
        for name, table in document.items()
        if isinstance(table, dict)
    ]
    if not any(keys & found for _, found in named):
        KqConf.load(path)
        return
    for name, found in named:
        if "group" in found:
            KqConf.load(path, name)
        elif keys & found:
            PusherConf.load(path, name)


@pytest.fixture
def _removed(kafka_admin: AdminClient) -> Iterator[None]:
    """Remove the topics and groups that a document makes."""

    def there() -> tuple[set[str], set[str]]:
        topics = set(kafka_admin.list_topics(timeout=30).topics)
        groups = kafka_admin.list_consumer_groups(request_timeout=30).result().valid
        return topics, {group.group_id for group in groups}

    topics, groups = there()
    yield
    topics_now, groups_now = there()
    for future in kafka_admin.delete_consumer_groups(list(groups_now - groups) or ["-"]).values():
        future.exception(timeout=30)
    new = [name for name in topics_now - topics if not name.startswith("__")]
    for future in (kafka_admin.delete_topics(new) if new else {}).values():
        future.result(timeout=30)


def test_the_exit_codes_are_those_there_are() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    found = re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
    codes = [code for code in ExitCode if code is not ExitCode.UNDELIVERED]
    assert found == [(str(int(code)), code.description) for code in codes]


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_removed")
def test_readers_can_follow(kafka: Any, kafka_admin: AdminClient, tmp_path: Path) -> None:
    """Two at a time, as each mostly waits for processes to begin."""

    def follow(document: Path) -> None:
        directory = tmp_path / document.stem
        directory.mkdir()
        reader = Reader(document, directory, kafka.bootstrap)
        reader.follow()
        if document.stem in AFTERWARDS:
            reader.run(AFTERWARDS[document.stem])

    for name in (name for names in TOPICS.values() for name in names):
        create_topic(kafka_admin, name, 1, None, 1)
    runnable = [path for path in DOCUMENTS if any(one.language in RUN for one in blocks(path))]
    with ThreadPoolExecutor(2) as pool:
        futures = {path.name: pool.submit(follow, path) for path in runnable}
    errors = {name: future.exception() for name, future in futures.items()}
    failed = [f"{name}: {error}" for name, error in errors.items() if error]
    assert not failed, "\n\n".join(failed)
