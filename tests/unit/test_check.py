"""What `kqmp check` makes of the brokers' answers, the machine and the flags; no broker."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from click.testing import CliRunner

from kqmp.cli.check import (
    check,
    cores_finding,
    exit_code,
    memory_finding,
    page_findings,
    show,
    summary,
)
from kqmp.config import KqConf
from kqmp.errors import ExitCode
from kqmp.kafka import findings
from kqmp.kafka.findings import Finding, GroupState
from kqmp.kafka.member import Bounds
from kqmp.obs.pages import Pages
from tests.support.kafka import ROOT

MIB = 1 << 20


def conf(**changes: Any) -> KqConf:
    return KqConf(brokers=["b:9092"], group="g", topic="orders", **changes)


def told(found: Any) -> list[tuple[str, str]]:
    return [(finding.status, finding.subject) for finding in found]


def run(*arguments: str, directory: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kqmp", "check", *arguments],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


# ---- the machine


@pytest.mark.parametrize(
    ("processors", "status", "advice"),
    [(2, "note", "stay idle"), (4, "ok", ""), (8, "note", "Processors: auto")],
)
def test_processors_are_compared_with_usable_cores(
    processors: int, status: str, advice: str
) -> None:
    finding = cores_finding([conf(processors=processors)], 4, "4 (affinity)")
    assert finding.status == status
    assert "4 (affinity)" in finding.text
    assert advice in finding.text


def test_processors_count_per_fetcher() -> None:
    finding = cores_finding([conf(processors=2, conns=3)], 4, "4 (affinity)")
    assert finding.status == "note"
    assert "Conns 3 x Processors 2" in finding.text


def test_memory_is_added_up_from_named_parts() -> None:
    one = conf(processors=4, conns=2, ring_bytes=8 * MIB)
    finding = memory_finding([one], 100_000 * MIB)
    assert finding.status == "ok"
    # 2 x 4 lanes of 8 MiB, 2 logs of 4, 2 prefetch queues of 20, 2 x 8 rings, 11 processes of 30.
    parts = ["lanes 64", "logs 8", "librdkafka 40", "bays 128", "11 processes 330"]
    assert all(f"{part} MiB" in finding.text for part in parts)
    assert "at most 570 MiB" in finding.text


def test_more_memory_than_is_free_is_a_note_with_advice() -> None:
    finding = memory_finding([conf()], 100 * MIB)
    assert finding.status == "note"
    assert "100 MiB are free here" in finding.text
    assert "RingBytes" in finding.text


# ---- brokers and topic


def test_pages_are_listed_and_a_port_in_use_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(page_findings([conf()])) == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        pages = {"Host": "127.0.0.1", "Port": port}
        (note,) = page_findings([conf(dev_server=pages)])
    assert note.status == "note"
    assert f"DevServer: Port: 127.0.0.1:{port} is in use by another process" in note.text
    assert "unless that is this engine" in note.text
    (wrong,) = page_findings([conf(prometheus={"Host": "203.0.113.1"})])
    assert (wrong.status, wrong.code) == ("error", ExitCode.CONFIG)
    monkeypatch.setattr(Pages, "__init__", lambda self, confs: setattr(self, "_servers", []))
    (listed,) = page_findings([conf(dev_server=pages), conf(dev_server=pages)])
    assert (listed.status, listed.text) == (
        "ok",
        f"127.0.0.1:{port}/healthz, 127.0.0.1:{port}/metrics",
    )


def test_the_broker_that_refused_tells_more_than_all_are_down() -> None:
    errors = [
        ck.KafkaError(findings.ALL_DOWN, "1/1 brokers are down"),
        ck.KafkaError(ck.KafkaError._TRANSPORT, "b:9092: Connection refused"),
    ]
    finding = findings.connection_finding(conf(), errors)
    assert (finding.status, finding.code) == ("error", ExitCode.BROKER)
    assert "b:9092: Connection refused" in finding.text


def test_a_refusal_names_the_keys_to_look_at() -> None:
    errors = [
        ck.KafkaError(ck.KafkaError._TRANSPORT, "disconnected"),
        ck.KafkaError(ck.KafkaError._AUTHENTICATION, "SASL authentication error"),
    ]
    text = findings.connection_finding(conf(), errors).text
    assert "SASL authentication error" in text
    assert "Username, Password" in text


def test_a_topic_that_may_not_be_read_is_not_called_missing() -> None:
    error = ck.KafkaError(ck.KafkaError.TOPIC_AUTHORIZATION_FAILED)
    finding = findings.topic_error_finding(conf(), error, ["orders"])
    assert finding.code is ExitCode.BROKER
    assert "does not exist" not in finding.text
    assert "right to read" in finding.text


def test_partitions_are_compared_with_conns_and_ordering() -> None:
    leaders = dict.fromkeys(range(4), 1)
    assert told(findings.partition_findings(conf(conns=4), leaders)) == [("ok", "topic")]
    many = list(findings.partition_findings(conf(conns=6), leaders))
    assert told(many) == [("ok", "topic"), ("note", "conns")]
    assert "2 of the fetchers get none; set Conns: 4" in many[1].text
    by_partition = list(findings.partition_findings(conf(ordering="partition"), leaders))
    assert told(by_partition) == [("ok", "topic"), ("note", "ordering")]
    assert "at most 4 of 8 processors" in by_partition[1].text


def test_partitions_without_a_leader_are_named() -> None:
    found = list(findings.partition_findings(conf(), {0: 1, 1: -1, 2: -1}))
    assert told(found) == [("note", "topic")]
    assert "[1, 2]" in found[0].text


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("Failed: ssl.ca.location failed: No such file", "mend CaFile '/ca.pem': "),
        ('No such configuration property: "x"', "mend it under Kafka (-X)"),
    ],
)
def test_a_refused_property_names_the_key_to_mend(reason: str, advice: str) -> None:
    error = ck.KafkaError(ck.KafkaError._INVALID_ARG, reason)
    finding = findings.property_finding(conf(ca_file="/ca.pem"), error)
    assert finding.code is ExitCode.CONFIG
    assert reason in finding.text
    assert advice in finding.text


# ---- group


def test_eager_members_are_an_error_with_the_reason() -> None:
    (finding,) = findings.member_findings(conf(), GroupState(members=2, assignor="range"))
    assert (finding.status, finding.code) == ("error", ExitCode.BROKER)
    assert "2 active members with the strategy 'range'" in finding.text
    assert "cooperative-sticky" in finding.text


@pytest.mark.parametrize(
    ("group", "status"),
    [
        (GroupState(), "ok"),
        (GroupState(members=1, assignor="cooperative-sticky"), "note"),
        # In the middle of a rebalance the brokers name no strategy.
        (GroupState(members=1), "note"),
        (GroupState(members=1, assignor="uniform", is_consumer_protocol=True), "note"),
    ],
)
def test_groups_that_can_be_joined(group: GroupState, status: str) -> None:
    assert told(findings.member_findings(conf(), group)) == [(status, "group")]


def test_a_static_id_that_is_in_use_is_a_note() -> None:
    group = GroupState(2, "cooperative-sticky", instance_ids=frozenset({"mq-1", "other-0"}))
    found = list(findings.member_findings(conf(instance_id="mq", conns=2), group))
    assert told(found) == [("note", "group"), ("note", "group")]
    assert "mq-1 is a member already" in found[1].text
    assert len(list(findings.member_findings(conf(instance_id="mq"), group))) == 1


def test_an_old_broker_that_cannot_describe_groups_is_a_note_only() -> None:
    error = ck.KafkaError(ck.KafkaError._UNSUPPORTED_FEATURE)
    assert findings.group_error_finding(conf(), error).status == "note"
    error = ck.KafkaError(ck.KafkaError.GROUP_AUTHORIZATION_FAILED)
    assert findings.group_error_finding(conf(), error).code is ExitCode.BROKER


# ---- positions

BOUNDS = {0: Bounds(10, 110), 1: Bounds(0, 50)}


def position_lines(committed: dict[int, int | None], **changes: Any) -> list[Finding]:
    return list(findings.position_findings(conf(**changes), committed, BOUNDS))


def test_a_new_group_at_the_end_counts_what_it_will_not_read() -> None:
    note, ok = position_lines({0: None, 1: None})
    assert note.status == "note"
    assert "group is new, Offset last: 150 existing messages will not be read" in note.text
    assert ok.text.startswith("0 of 150 messages")


def test_a_new_group_at_the_start_reads_all() -> None:
    (ok,) = position_lines({0: None, 1: None}, offset="first")
    assert ok.text.startswith("150 of 150 messages")


def test_a_known_group_goes_on_where_it_was() -> None:
    (ok,) = position_lines({0: 100, 1: 50})
    assert ok.text.startswith("10 of 150 messages")


def test_new_partitions_of_a_known_group_are_counted_alone() -> None:
    note, ok = position_lines({0: 100, 1: None})
    assert "1 partitions are new to it, Offset last: 50 existing messages" in note.text
    assert ok.text.startswith("10 of 150 messages")


@pytest.mark.parametrize(("offset", "side"), [("first", "start"), ("last", "end")])
def test_positions_outside_the_log_are_named(offset: str, side: str) -> None:
    found = position_lines({0: 9, 1: 51}, offset=offset)
    assert found[0].status == "note"
    assert "[0, 1] lie outside the log" in found[0].text
    assert f"at its {side}" in found[0].text


# ---- lines and exit codes


def test_the_exit_code_is_that_of_the_first_error_kqmp_run_would_meet() -> None:
    errors = [findings.broker_error("topic", "x")]
    assert exit_code([Finding("ok", "a", "x"), Finding("note", "a", "x")]) == 0
    assert exit_code(errors) == 5
    assert exit_code([*errors, Finding("error", "handler", "x", ExitCode.HANDLER_IMPORT)]) == 4


def test_the_last_line_counts() -> None:
    error, note = findings.broker_error("topic", "x"), Finding("note", "a", "x")
    assert summary([Finding("ok", "a", "x")]) == "all is ok: kqmp run can start"
    assert summary([note]) == "1 note: kqmp run can start"
    assert summary([error, note, note]) == "1 error, 2 notes: kqmp run would fail"


def test_what_belongs_to_a_line_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    show(Finding("error", "handler", "mqs:consume: it failed\n  File x\n    raise"))
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("error  handler")
    assert all(line.startswith("       ") for line in rest)


# ---- the command, as far as it goes without a broker


def test_a_closed_port_is_exit_5_with_the_reason(tmp_path: Path) -> None:
    arguments = ["--brokers", "127.0.0.1:1", "--group", "g", "--topic", "t"]
    code, output = run("json:dumps", *arguments, directory=tmp_path)
    assert code == 5
    assert "no answer from 127.0.0.1:1" in output
    assert "Connection refused" in output
    assert "mend Brokers" in output


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "mq.yaml").write_text("Brokers: ['b:9092']\nGroup: g\nTopic: t\nConns: 0\n")
    code, output = run("mqs:consume", "-f", "mq.yaml", directory=tmp_path)
    assert code == 2
    assert "mq.yaml:4" in output
    assert "module mqs not found" in output


def test_a_missing_handler_is_told_with_the_way_to_name_it(tmp_path: Path) -> None:
    arguments = ["--brokers", "127.0.0.1:1", "--group", "g", "--topic", "t"]
    code, output = run(*arguments, directory=tmp_path)
    assert code == 2
    assert "name it as TARGET" in output
    assert "no answer from" in output


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    arguments = ["--brokers", "127.0.0.1:1", "--group", "g", "--topic", "t"]
    secret = ["--set", "Username=u", "--set", "Password=hunter2"]
    _, output = run("json:dumps", *arguments, *secret, directory=tmp_path)
    assert "hunter2" not in output


def test_help_lists_the_exit_codes() -> None:
    output = CliRunner().invoke(check, ["--help"]).output
    listed = {line.split()[0] for line in output.splitlines() if line.strip()}
    assert {"0", "2", "3", "4", "5"} <= listed
