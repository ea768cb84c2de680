"""The parts of scripts/kafka that need no Kafka: settings, records, ports, tools, errors."""

import argparse
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.kafka import cluster_module

kafka_cluster = cluster_module()
# Its neighbours can be imported once it is loaded.
kafka_cli = import_module("kafka_cli")
kafka_data = import_module("kafka_data")
kafka_format = import_module("kafka_format")
kafka_jars = import_module("kafka_jars")
kafka_node = import_module("kafka_node")
kafka_security = import_module("kafka_security")

KafkaError = kafka_jars.KafkaError
Node = kafka_node.Node

ONE = [Node(1, 9092, 20001)]
THREE = [Node(n, 9091 + n, 20000 + n) for n in (1, 2, 3)]


def settings_of(nodes: list[Any], **overrides: str) -> dict[str, str]:
    names = {name.replace("_", "."): value for name, value in overrides.items()}
    text = kafka_node.render_properties(nodes[0], nodes, Path("/data/node1"), names)
    return dict(line.split("=", 1) for line in text.splitlines())


def test_every_listener_is_on_loopback_only():
    for nodes in (ONE, THREE):
        settings = settings_of(nodes)
        assert settings["listeners"] == "PLAIN://127.0.0.1:9092,CONTROLLER://127.0.0.1:20001"
        assert settings["advertised.listeners"] == "PLAIN://127.0.0.1:9092"
        voters = settings["controller.quorum.voters"].split(",")
        assert voters == [f"{n.number}@127.0.0.1:{n.controller_port}" for n in nodes]


def test_replication_follows_the_number_of_nodes():
    for nodes, replicas, in_sync in ((ONE, "1", "1"), (THREE, "3", "2")):
        settings = settings_of(nodes)
        assert settings["min.insync.replicas"] == in_sync
        factors = {v for k, v in settings.items() if k.endswith("replication.factor")}
        minima = {v for k, v in settings.items() if k.endswith("min.isr")}
        assert factors == {replicas}
        assert minima == {in_sync}


def test_a_message_of_ten_mebibytes_fits_and_misspelt_topics_are_errors():
    settings = settings_of(THREE)
    assert int(settings["message.max.bytes"]) > 10 << 20
    assert int(settings["replica.fetch.max.bytes"]) >= int(settings["message.max.bytes"])
    assert settings["auto.create.topics.enable"] == "false"


def test_overrides_replace_and_extend():
    settings = settings_of(ONE, num_partitions="3", sasl_enabled_mechanisms="PLAIN")
    assert settings["num.partitions"] == "3"
    assert settings["sasl.enabled.mechanisms"] == "PLAIN"


def test_values_are_escaped_as_java_reads_them():
    settings = settings_of(ONE, a="d\u00e4 ta", b="back\\slash\nx", c="\U0001f600")
    assert settings["a"] == "d\\u00e4 ta"
    assert settings["b"] == "back\\\\slash\\u000ax"
    assert settings["c"] == "\\ud83d\\ude00"


def test_cluster_ids_are_sixteen_bytes_and_no_option():
    ids = {kafka_format.new_cluster_id() for _ in range(500)}
    assert len(ids) == 500
    assert {len(text) for text in ids} == {22}
    assert not any(text.startswith("-") for text in ids)


def test_an_error_shows_the_end_of_the_log_or_that_there_is_none():
    text = str(kafka_format.error_with_log("node 1 ended", "\n".join(map(str, range(100)))))
    assert text.splitlines()[0] == "node 1 ended; the end of its log:"
    assert text.splitlines()[-1].strip() == "99"
    assert len(text.splitlines()) == 1 + kafka_format.LOG_LINES_SHOWN
    assert "nothing was printed" in str(kafka_format.error_with_log("node 1 ended", " \n"))


# Shape and records


@pytest.mark.parametrize("nodes", [0, 2, 4, -1])
def test_other_numbers_of_nodes_are_refused(nodes: int):
    with pytest.raises(KafkaError, match=f"nodes: {nodes} is not possible; take 1 or 3"):
        kafka_cluster.Cluster(nodes=nodes)


@pytest.mark.parametrize(("nodes", "port"), [(1, 0), (1, 65_536), (3, 65_534), (1, -5)])
def test_ports_out_of_range_are_refused(nodes: int, port: int):
    with pytest.raises(KafkaError, match=f"port: {port} is not possible"):
        kafka_cluster.Cluster(nodes=nodes, port=port)


def test_the_last_possible_ports_are_accepted():
    kafka_cluster.Cluster(nodes=1, port=65_535)
    kafka_cluster.Cluster(nodes=3, port=65_533)


def test_a_cluster_that_was_not_started_says_so_and_stops_without_ado():
    cluster = kafka_cluster.Cluster()
    assert cluster.status() == []
    for use in (lambda: cluster.bootstrap, lambda: cluster.kill(1), lambda: cluster.restart(1)):
        with pytest.raises(KafkaError, match="the cluster is not started"):
            use()
    cluster.stop()


def test_a_cluster_is_found_again_by_its_directory(tmp_path: Path):
    record = kafka_data.Record(THREE, temporary=False, heap="-Xmx9m", properties={"a": "b"})
    record.save(tmp_path)
    assert kafka_data.Record.load(tmp_path) == record
    found = kafka_cluster.Cluster.open(tmp_path)
    assert found.bootstrap == "127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094"
    assert not found.is_temporary
    assert [(node.number, node.pid) for node in found.status()] == [(1, None), (2, None), (3, None)]
    with pytest.raises(KafkaError, match="there is no node 4; this cluster has 1 to 3"):
        found.kill(4)
    with pytest.raises(KafkaError, match="node 2 does not run"):
        found.kill(2)


def test_stop_removes_temporary_data_and_keeps_others(tmp_path: Path):
    for temporary in (True, False):
        directory = tmp_path / str(temporary)
        directory.mkdir()
        kafka_data.Record(ONE, temporary, "", {}).save(directory)
        kafka_cluster.Cluster.open(directory).stop()
        assert directory.exists() is not temporary


def test_a_directory_without_a_cluster_is_an_error(tmp_path: Path):
    with pytest.raises(KafkaError, match="holds no Kafka cluster"):
        kafka_data.Record.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nodes": 3}', '{"nodes": [], "x": 1}', "{"])
def test_a_damaged_record_is_one_clear_error(tmp_path: Path, text: str):
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(KafkaError, match=r"cluster\.json is damaged"):
        kafka_data.Record.load(tmp_path)


def test_data_directories_are_checked_before_anything_is_written(tmp_path: Path):
    kafka_data.check_kept(tmp_path / "new" / "deep", 1)
    assert (tmp_path / "new" / "deep").is_dir()
    with pytest.raises(KafkaError, match="comma"):
        kafka_data.check_kept(tmp_path / "a,b", 1)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").touch()
    with pytest.raises(KafkaError, match="other files and no Kafka cluster"):
        kafka_data.check_kept(tmp_path / "foreign", 1)
    (tmp_path / "three").mkdir()
    kafka_data.Record(THREE, False, "", {}).save(tmp_path / "three")
    kafka_data.check_kept(tmp_path / "three", 3)
    with pytest.raises(KafkaError, match=r"nodes: .* holds the data of 3 node\(s\), not of 1"):
        kafka_data.check_kept(tmp_path / "three", 1)


def test_what_a_killed_session_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = kafka_data.new_owned_temporary()
    detached = kafka_data.new_temporary()
    orphan = kafka_data.new_temporary()
    (orphan / "owner").write_text(f"{os.getpid()} 1 some-other-boot\n")
    another = kafka_data.new_owned_temporary()
    assert not orphan.exists()
    assert mine.exists()
    assert detached.exists()
    assert another.exists()


# SASL and TLS


def secured(**flags: bool) -> tuple[Any, dict[str, str]]:
    security = kafka_security.Security.of(**flags)
    node = Node(1, 9092, 20001, 30001)
    return security, security.settings(node, Path("/data"))


def test_clients_of_a_secured_cluster_find_no_other_listener_than_theirs():
    for flags, protocol in (
        ({"sasl": True, "tls": True}, "SASL_SSL"),
        ({"sasl": True, "tls": False}, "SASL_PLAINTEXT"),
        ({"sasl": False, "tls": True}, "SSL"),
    ):
        _, settings = secured(**flags)
        assert settings["listeners"] == (
            "CLIENTS://127.0.0.1:9092,PLAIN://127.0.0.1:30001,CONTROLLER://127.0.0.1:20001"
        )
        assert settings["listener.security.protocol.map"].startswith(f"CLIENTS:{protocol},")
        assert ("ssl.keystore.location" in settings) is flags["tls"]
        assert ("sasl.enabled.mechanisms" in settings) is flags["sasl"]
    assert secured(sasl=False, tls=False)[1] == {}


def test_one_user_comes_in_by_every_mechanism():
    security, settings = secured(sasl=True, tls=False)
    assert settings["sasl.enabled.mechanisms"] == "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
    plain = settings["listener.name.clients.plain.sasl.jaas.config"]
    assert f'user_kqmp="{security.password}"' in plain
    account = f"[name=kqmp,password={security.password}]"
    assert security.format_flags() == [
        "--add-scram",
        f"SCRAM-SHA-256={account}",
        "--add-scram",
        f"SCRAM-SHA-512={account}",
    ]
    assert kafka_security.OPEN.format_flags() == []


def test_env_says_what_a_client_of_a_secured_cluster_needs(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    data = tmp_path / "it's data"
    data.mkdir()
    security = kafka_security.Security("kqmp", "pass", tls=True)
    kafka_data.Record(ONE, False, "", {}, security).save(data)
    (state / "kafka-9092").symlink_to(data)
    monkeypatch.setattr(kafka_cli, "is_running", lambda cluster: True)
    code, out, _ = run(capsys, "env")
    assert code == 0
    shell = f"{out}printenv KAFKA_BROKERS KAFKA_USERNAME KAFKA_PASSWORD KAFKA_CA_FILE"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["127.0.0.1:9092", "kqmp", "pass", f"{data}/ca.pem"]
    code, _, err = run(capsys, "start", "--tls")
    assert code == 1
    assert "a cluster for SASL_SSL runs already on 127.0.0.1:9092" in err


def test_kept_data_stay_as_secured_as_they_were_made(tmp_path: Path):
    security = kafka_security.Security("kqmp", "pass", tls=True)
    kafka_data.Record(ONE, False, "", {}, security).save(tmp_path)
    assert (tmp_path / "cluster.json").stat().st_mode & 0o077 == 0
    assert kafka_cluster.Cluster.open(tmp_path).security == security
    kafka_data.check_kept(tmp_path, 1, kafka_security.Security.of(sasl=True, tls=True))
    with pytest.raises(KafkaError, match=r"a cluster for SASL_SSL, not for PLAINTEXT"):
        kafka_data.check_kept(tmp_path, 1)
    options = argparse.Namespace(sasl=False, tls=False, data=tmp_path)
    assert kafka_cli._security(options) == security


def test_keytool_s_words_are_shown(tmp_path: Path):
    (tmp_path / "java").write_text("#!/bin/sh\necho keytool error: no such curve; exit 1\n")
    (tmp_path / "java").chmod(0o755)
    with pytest.raises(KafkaError, match="keytool failed: keytool error: no such curve"):
        kafka_security.make_certificates([str(tmp_path / "java"), "-cp", "jars"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["java"]


# Ports and answers


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_port_in_use_is_seen(listener: socket.socket):
    port = listener.getsockname()[1]
    assert not kafka_node.port_is_free(port)
    listener.close()
    assert kafka_node.port_is_free(port)


def test_chosen_ports_are_free_distinct_and_outside_the_ephemeral_range():
    first = kafka_node.choose_ports(3)
    second = kafka_node.choose_ports(50, taken=first)
    assert len({*first, *second}) == 53
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not any(low <= port <= high for port in (*first, *second))


def test_a_taken_port_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    port = listener.getsockname()[1]
    cluster = kafka_cluster.Cluster(port=port)
    monkeypatch.setattr(cluster, "_find_java", lambda: None)
    with pytest.raises(KafkaError, match=f"port {port} on 127.0.0.1 is in use"):
        cluster.start()
    assert list(tmp_path.iterdir()) == []


def metadata_answer(*brokers: tuple[int, bytes, bytes | None]) -> bytes:
    body = struct.pack(">ii", 1, len(brokers))
    for number, host, rack in brokers:
        body += struct.pack(">ih", number, len(host)) + host + struct.pack(">i", 9092)
        body += struct.pack(">h", -1 if rack is None else len(rack)) + (rack or b"")
    return body + struct.pack(">ii", 1, 0)


def test_brokers_are_read_from_a_metadata_answer():
    answer = metadata_answer((1, b"127.0.0.1", None), (7, b"h", b"rack"), (2, b"", b""))
    assert kafka_node.parse_brokers(answer) == {1, 7, 2}
    assert kafka_node.parse_brokers(metadata_answer()) == frozenset()
    for length in range(len(answer) - 8):
        with pytest.raises(struct.error):
            kafka_node.parse_brokers(answer[:length])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack(">i", -1),
        struct.pack(">i", 100) + b"cut",
        struct.pack(">i", 4) + b"abcd",
    ],
)
def test_what_is_not_kafka_has_no_brokers(listener: socket.socket, answer: bytes):
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    assert kafka_node.live_brokers(listener.getsockname()[1]) == frozenset()
    server.join()


def test_a_broker_that_answers_is_asked_properly(listener: socket.socket):
    asked: list[bytes] = []
    answer = metadata_answer((1, b"127.0.0.1", None))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(1000))
            connection.sendall(struct.pack(">i", len(answer)) + answer)

    server = threading.Thread(target=serve)
    server.start()
    assert kafka_node.live_brokers(listener.getsockname()[1]) == {1}
    server.join()
    (request,) = asked
    assert struct.unpack(">ihhihi", request) == (len(request) - 4, 3, 1, 1, -1, 0)


def test_a_closed_port_has_no_brokers():
    (port,) = kafka_node.choose_ports(1)
    assert kafka_node.live_brokers(port) == frozenset()


# Java, Maven, jars


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty directory that is all of PATH, with no Java, no Maven and no cached jars."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tools


def add_tool(directory: Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def add_java(directory: Path, version: str) -> None:
    add_tool(directory, "java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_372"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('openjdk version "25-ea" 2025-09-16', 25),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "11.0.2"', 11),
        ("cannot find a JVM", None),
    ],
)
def test_java_versions_are_understood(text: str, version: int | None):
    assert kafka_jars.java_version(text) == version


def test_without_java_one_line_says_what_to_install(machine: Path):
    reason = kafka_cluster.missing_tools()
    assert reason is not None
    assert "no `java` on PATH" in reason
    assert "apt-get install openjdk-17-jre-headless" in reason
    assert "\n" not in reason


@pytest.mark.parametrize(("version", "major"), [("1.8.0_372", 8), ("11.0.2", 11), ("16.0.1", 16)])
def test_an_old_java_is_named_with_its_version(machine: Path, version: str, major: int):
    add_java(machine, version)
    reason = kafka_cluster.missing_tools()
    assert reason is not None
    assert f"{machine}/java is version {major}: " in reason
    assert "apt-get install" in reason


def test_java_home_wins_over_path(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    add_java(machine, "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(KafkaError, match=r"no `java` in JAVA_HOME \(.*/jdk\)"):
        kafka_jars.find_java()
    (tmp_path / "jdk").mkdir()
    add_java(tmp_path / "jdk" / "bin", "21.0.1")
    assert kafka_jars.find_java().path == str(tmp_path / "jdk" / "bin" / "java")


def test_another_build_of_java_has_another_key(machine: Path):
    add_java(machine, "17.0.1")
    first = kafka_jars.find_java()
    assert kafka_jars.find_java() == first
    add_java(machine, "17.0.2")
    assert kafka_jars.find_java().key != first.key


def test_maven_is_needed_only_until_the_jars_are_there(machine: Path):
    add_java(machine, "17.0.1")
    reason = kafka_cluster.missing_tools()
    assert reason is not None
    assert "`mvn`" in reason
    assert "apt-get install maven" in reason
    kafka_jars.jars_directory().mkdir(parents=True)
    assert kafka_cluster.missing_tools() is None


FETCH_ALL = """
for option; do case $option in -DoutputDirectory=*) out=${option#*=};; esac; done
/bin/mkdir "$out" && : > "$out/kafka_2.13-4.3.1.jar" && : > "$out/a.jar"
"""


def test_jars_are_fetched_once_and_listed_in_order(machine: Path):
    add_tool(machine, "mvn", FETCH_ALL)
    said: list[str] = []
    jars = kafka_jars.jars_directory()
    assert kafka_jars.class_path(said.append) == f"{jars}/a.jar:{jars}/kafka_2.13-4.3.1.jar"
    assert len(said) == 1
    add_tool(machine, "mvn", "exit 1")
    assert kafka_jars.class_path(said.append).startswith(f"{jars}/a.jar:")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo '[ERROR] no route to host'; echo '[ERROR] more'; exit 1", "no route to host"),
        ("exit 3", "exit code 3"),
        (FETCH_ALL.replace("kafka_2.13", "other"), "exit code 0"),
    ],
)
def test_a_fetch_that_fails_leaves_nothing_that_looks_whole(
    machine: Path, script: str, reason: str
):
    add_tool(machine, "mvn", script)
    with pytest.raises(KafkaError, match=f"mvn could not fetch Kafka 4.3.1 .*: {reason}$"):
        kafka_jars.class_path(lambda line: None)
    assert not kafka_jars.jars_directory().exists()
    left = [path.name for path in kafka_jars.jars_directory().parent.iterdir()]
    assert left == ["kafka-4.3.1.lock"]


def test_two_starts_at_once_fetch_once(machine: Path, tmp_path: Path):
    add_tool(machine, "mvn", f"echo x >> {tmp_path}/runs\n{FETCH_ALL}")
    starts = [
        threading.Thread(target=kafka_jars.class_path, args=(lambda line: None,)) for _ in range(4)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert (tmp_path / "runs").read_text() == "x\n"


def test_the_class_archive_is_made_once_also_where_it_cannot_be_made(machine: Path):
    kafka_jars.jars_directory().mkdir(parents=True)
    rehearsed: list[Path] = []

    def rehearse(path: Path) -> None:
        rehearsed.append(path)
        if "good" in path.name:
            path.write_bytes(b"classes")
        if "worse" in path.name:
            raise KafkaError("no such flag")

    good, bad, worse = (kafka_jars.Java("java", key) for key in ("good", "bad", "worse"))
    archive = kafka_jars.class_archive(good, rehearse)
    assert archive is not None
    assert archive.read_bytes() == b"classes"
    assert kafka_jars.class_archive(good, rehearse) == archive
    for java in (bad, bad, worse, worse):
        assert kafka_jars.class_archive(java, rehearse) is None
    assert len(rehearsed) == 3


def test_the_pom_names_kafka_and_its_logger():
    pom = kafka_jars.render_pom()
    assert "<artifactId>kafka_2.13</artifactId><version>4.3.1</version>" in pom
    assert pom.count("<dependency>") == 3


# The command line


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Path(kafka_cli.state_directory())


def put_cluster(state: Path, directory: Path, nodes: list[Any], *, temporary: bool) -> None:
    directory.mkdir()
    kafka_data.Record(nodes, temporary, "", {}).save(directory)
    (state / f"kafka-{nodes[0].port}").symlink_to(directory)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = kafka_cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(autouse=True)
def _keep_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda number, handler: None)


def test_stop_and_status_without_a_cluster(state: Path, capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "stop") == (0, "", "kafka: no cluster on port 9092\n")
    assert run(capsys, "status") == (3, "no cluster\n", "")
    assert run(capsys, "status", "--port", "1234") == (3, "no cluster on port 1234\n", "")


@pytest.mark.parametrize("command", [["env"], ["kill", "1"], ["restart", "1"]])
def test_commands_that_need_a_cluster_say_how_to_get_one(
    state: Path, capsys: pytest.CaptureFixture[str], command: list[str]
):
    code, out, err = run(capsys, *command, "--port", "9192")
    assert (code, out) == (3, "")
    assert err.endswith("start one with `scripts/kafka start --port 9192`\n")
    assert err.count("\n") == 1


def test_a_cluster_whose_nodes_are_down_is_described_as_such(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    put_cluster(state, tmp_path / "data", ONE, temporary=False)
    code, out, _ = run(capsys, "status")
    assert code == 3
    assert "bootstrap 127.0.0.1:9092" in out
    assert "down" in out
    code, out, err = run(capsys, "env")
    assert (code, out) == (3, "")
    assert "`scripts/kafka restart 1 --port 9092` brings node 1 back" in err


def test_stop_of_another_port_never_touches_a_cluster(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    put_cluster(state, tmp_path / "data", [Node(1, 19092, 20000)], temporary=True)
    code, _, err = run(capsys, "stop")
    assert code == 0
    assert "there is one on: 19092; choose with --port" in err
    assert (tmp_path / "data").exists()
    code, _, err = run(capsys, "stop", "--data", str(tmp_path / "data"))
    assert (code, err) == (0, "kafka: 127.0.0.1:19092 was not running; data removed\n")
    assert not (tmp_path / "data").exists()
    assert run(capsys, "status")[0] == 3


def test_a_link_to_data_that_are_gone_is_no_cluster(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (state / "kafka-9092").symlink_to(tmp_path / "gone")
    assert run(capsys, "status") == (3, "no cluster\n", "")
    assert run(capsys, "stop")[0] == 0


def test_missing_java_is_one_line_and_exit_1(
    state: Path, machine: Path, capsys: pytest.CaptureFixture[str]
):
    code, out, err = run(capsys, "start")
    assert (code, out) == (1, "")
    assert err.startswith("kafka: error: Kafka needs Java")
    assert err.count("\n") == 1
    assert [path.name for path in state.iterdir()] == ["kafka-9092.lock"]


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "9092.5"])
def test_a_port_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str], port: str):
    with pytest.raises(SystemExit) as caught:
        kafka_cli.main(["status", f"--port={port}"])
    assert caught.value.code == 2
    assert f"'{port}' is not a port" in capsys.readouterr().err


def test_start_takes_the_shape_of_existing_data(tmp_path: Path):
    kafka_data.Record(THREE, False, "", {}).save(tmp_path)
    for nodes, data, expected in ((None, tmp_path, 3), (1, tmp_path, 1), (None, None, 1)):
        options = argparse.Namespace(nodes=nodes, data=data)
        assert kafka_cli._node_count(options) == expected


def test_help_names_every_command_from_any_directory(tmp_path: Path):
    script = Path(str(kafka_cluster.__file__)).with_name("kafka")
    done = subprocess.run(
        [script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for word in ("start", "stop", "status", "env", "kill", "restart", "JAVA_HOME", "exit codes"):
        assert word in done.stdout


def test_the_record_is_plain_json(tmp_path: Path):
    kafka_data.Record(ONE, True, "-Xmx1g", {}).save(tmp_path)
    record: dict[str, Any] = json.loads((tmp_path / "cluster.json").read_text())
    assert record["nodes"] == [
        {"number": 1, "port": 9092, "controller_port": 20001, "inner_port": 0}
    ]
    assert record["security"] == {"user": "", "password": "", "tls": False}
