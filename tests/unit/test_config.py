"""KqConf: defaults, conversions, every limit, contradictions, secrets, wire."""

import ast
import copy
import inspect
import json
import mmap
import pickle
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kqmp import config
from kqmp.config import KEYS, PUSHER_KEYS, KqConf, Secret, conf, usable_cores
from kqmp.errors import ConfigError
from tests.support.kafka import ROOT

CANARY = "canary-7f3a"
BASE: dict[str, Any] = {"brokers": ["a:9092"], "group": "g", "topic": "t"}


def make(**values: Any) -> KqConf:
    return KqConf(**{**BASE, **values})


def problems(**values: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        make(**values)
    return caught.value.problems


# ---- the table ----


def test_the_fields_are_the_table() -> None:
    assert list(KqConf.__struct_fields__) == [key.name for key in KEYS]


def test_the_constructor_shown_to_type_checkers_has_every_field() -> None:
    tree = ast.parse(inspect.getsource(conf))
    init = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    given = {
        argument.arg: default
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    }
    assert set(given) == {key.name for key in KEYS}
    assert {name for name, default in given.items() if default is None} == {
        key.name for key in KEYS if key.required
    }


def test_defaults_are_those_the_issue_names() -> None:
    made = make()
    assert (made.name, made.offset, made.conns, made.consumers, made.processors) == (
        "g",
        "last",
        1,
        8,
        8,
    )
    assert (made.min_bytes, made.max_bytes, made.ring_bytes) == (10240, 10485760, 4 * 1024**2)
    assert (made.force_commit, made.commit_in_order, made.ordering) == (True, False, "key")
    assert (made.commit_interval_ms, made.max_wait_ms) == (1000, 100)
    assert (made.drain_timeout_ms, made.dispatch_ahead_ms) == (20_000, 250)
    assert (made.queue_capacity, made.max_attempts) == (1000, 3)
    assert made.read_ahead_messages == 8000
    assert (made.username, made.ca_file, made.handler, made.instance_id) == ("", "", "", "")
    assert not made.password
    assert made.kafka == {}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.kq)
def test_every_key_can_be_documented(key: config.Key) -> None:
    assert key.meaning
    assert key.type
    assert key.allowed
    assert key.default_text or key.name in {
        "username",
        "password",
        "ca_file",
        "handler",
        "instance_id",
        "metrics_url",
    }


def test_the_documentation_lists_the_keys_as_they_are() -> None:
    named = [
        item
        for key in (*KEYS, *PUSHER_KEYS)
        for item in [(key.kq, key), *((f"{key.kq}.{part.kq}", part) for part in key.fields)]
    ]
    rows = [
        f"| `{name}` | {key.default_text or 'none'} | {key.meaning} | {key.allowed} |"
        for name, key in named
    ]
    listed = (ROOT / "docs" / "config.md").read_text().splitlines()
    # The last column, what kq does, is no affair of the tables.
    documented = [re.fullmatch(r"(\|.*\|) [^|]+ \|", line) for line in listed if line[:3] == "| `"]
    assert [found and found[1] for found in documented] == rows


def test_names_in_python_are_kqs_in_snake_case() -> None:
    names = {key.kq: key.name for key in KEYS}
    assert names["CommitInOrder"] == "commit_in_order"
    assert names["CaFile"] == "ca_file"
    assert names["InstanceId"] == "instance_id"


# ---- conversions ----


@pytest.mark.parametrize(
    "given",
    [["a:1", "b:2"], ("a:1", "b:2"), "a:1,b:2", ["a:1, b:2"]],
)
def test_brokers_may_be_a_list_or_text_with_commas(given: object) -> None:
    assert make(brokers=given).brokers == ("a:1", "b:2")


def test_host_syntax_is_not_judged() -> None:
    assert make(brokers=["127.0.1:9092"]).brokers == ("127.0.1:9092",)


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        ("1s", 1000),
        ("500ms", 500),
        ("1m30s", 90_000),
        ("1.5s", 1500),
        ("1h", 3_600_000),
        (2, 2000),
        (0.25, 250),
        (timedelta(seconds=3), 3000),
    ],
)
def test_durations(given: object, milliseconds: int) -> None:
    assert make(commit_interval=given).commit_interval_ms == milliseconds


@pytest.mark.parametrize(
    ("given", "size"),
    [(70_000, 70_000), ("70000", 70_000), ("1MiB", 1024**2), ("1MB", 10**6), ("0.5 gib", 2**29)],
)
def test_sizes(given: object, size: int) -> None:
    assert make(max_bytes=given).max_bytes == size


def test_a_ring_is_rounded_up_to_whole_pages() -> None:
    assert make(ring_bytes="64KiB").ring_bytes == 65536 + -65536 % mmap.PAGESIZE
    rounded = make(ring_bytes="1MB").ring_bytes
    assert rounded % mmap.PAGESIZE == 0
    assert 0 <= rounded - 10**6 < mmap.PAGESIZE


def test_auto_is_the_usable_cores() -> None:
    assert make(processors="auto").processors == min(usable_cores()[0], 256)
    assert make(processors="AUTO").processors == make(processors="auto").processors


def test_text_is_converted_as_flags_and_references_need_it() -> None:
    made = make(conns="3", force_commit="off", commit_in_order="Yes", offset="First")
    assert (made.conns, made.force_commit, made.commit_in_order) == (3, False, True)
    assert made.offset == "first"


def test_order_follows_commit_in_order_unless_given() -> None:
    assert make(commit_in_order=True).ordering == "partition"
    assert make(commit_in_order=True, ordering="partition").ordering == "partition"
    assert make(ordering="unordered").ordering == "unordered"


# ---- refusals: the key, the value, what is allowed ----


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("conns", 0, ["conns: 0", "1 to 256"]),
        ("conns", 257, ["conns: 257", "1 to 256"]),
        ("conns", True, ["conns: True", "whole number"]),
        ("conns", 1.0, ["conns: 1.0", "whole number"]),
        ("conns", "x", ["conns: 'x'", "whole number"]),
        ("conns", None, ["conns: None"]),
        ("consumers", 0, ["consumers: 0"]),
        ("processors", 0, ["processors: 0", "1 to 256, or auto"]),
        ("processors", "all", ["processors: 'all'", "auto"]),
        ("queue_capacity", 0, ["queue_capacity: 0"]),
        ("max_attempts", 0, ["max_attempts: 0"]),
        ("min_bytes", 0, ["min_bytes: 0"]),
        ("max_bytes", "10 potatoes", ["max_bytes: '10 potatoes'", "10MiB"]),
        ("ring_bytes", "63KiB", ["ring_bytes: '63KiB'", "from 64KiB to 1GiB"]),
        ("ring_bytes", "2GiB", ["ring_bytes: '2GiB'", "from 64KiB to 1GiB"]),
        ("commit_interval", 0, ["commit_interval: 0", "500ms", "from 1ms to 1h"]),
        ("commit_interval", "-1s", ["commit_interval: '-1s'"]),
        ("commit_interval", "5", ["commit_interval: '5'", "units h, m, s, ms"]),
        ("commit_interval", float("nan"), ["commit_interval: nan"]),
        ("commit_interval", 10**400, ["commit_interval: "]),
        ("max_wait", "1m", ["max_wait: '1m'", "to 30s"]),
        ("drain_timeout", timedelta(days=1), ["drain_timeout: 1 day"]),
        ("dispatch_ahead", 0.0001, ["dispatch_ahead: 0.0001"]),
        ("offset", "middle", ["offset: 'middle'", "first or last"]),
        ("ordering", "random", ["ordering: 'random'", "key, partition or unordered"]),
        ("force_commit", 1, ["force_commit: 1", "true or false"]),
        ("group", False, ["group: False", "text"]),
        ("group", "", ["group: missing"]),
        ("group", "a\nb", ["group: 'a\\nb'"]),
        ("group", "\ud800", ["group: "]),
        ("brokers", [], ["brokers: missing", "host:port"]),
        ("brokers", ["a:1", ""], ["brokers: a list"]),
        ("brokers", [1], ["brokers: a list"]),
        ("brokers", 9092, ["brokers: 9092"]),
        ("topic", "a b", ["topic: 'a b'", "1 to 249"]),
        ("topic", "..", ["topic: '..'"]),
        ("topic", "^orders.*", ["topic: '^orders.*'"]),
        ("topic", "t" * 250, ["topic: ", "1 to 249"]),
        ("instance_id", "a/b", ["instance_id: 'a/b'"]),
        ("kafka", ["a"], ["kafka: a list", "map"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    name: str, value: object, parts: list[str]
) -> None:
    (problem,) = problems(**{name: value})
    for part in parts:
        assert part in problem
    assert len(problem) < 300


def test_the_ends_of_ranges_are_allowed() -> None:
    for name, values in {
        "conns": (1, 256),
        "processors": (1, 256),
        "ring_bytes": ("64KiB", "1GiB"),
        "max_wait": ("1ms", "30s"),
        "topic": ("t" * 249, "A.b_c-1"),
    }.items():
        for value in values:
            make(**{name: value})


def test_all_problems_come_at_once_in_the_order_of_the_table() -> None:
    with pytest.raises(ConfigError) as caught:
        KqConf(conns=0, offset="middle", processors=0)  # type: ignore[call-arg, arg-type]
    assert [line.split(":")[0] for line in caught.value.problems] == [
        "brokers",
        "group",
        "topic",
        "offset",
        "conns",
        "processors",
    ]


def test_an_unknown_name_is_a_type_error_as_in_every_python_call() -> None:
    with pytest.raises(TypeError, match="comsumers"):
        make(comsumers=8)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"min_bytes": 200, "max_bytes": 100}, ["min_bytes: 200", "max_bytes 100"]),
        ({"username": "u"}, ["username: ", "password"]),
        ({"password": CANARY}, ["password: ", "username"]),
        ({"consumers": 20_000}, ["consumers: 20000", "20000000", "10000000"]),
        ({"commit_in_order": True, "ordering": "key"}, ["ordering: key", "commit_in_order"]),
        (
            {"username": "u", "password": CANARY, "kafka": {"sasl.password": CANARY}},
            ["kafka: sasl.password", "username"],
        ),
        (
            {"ca_file": "/ca.pem", "kafka": {"security.protocol": "SASL_PLAINTEXT"}},
            ["kafka: security.protocol", "ca_file"],
        ),
        (
            {"drain_timeout": "50s", "kafka": {"max.poll.interval.ms": 59_999}},
            ["kafka: max.poll.interval.ms", "drain_timeout 50s", "60000"],
        ),
    ],
)
def test_contradictions_name_both_keys(values: dict[str, Any], parts: list[str]) -> None:
    (problem,) = problems(**values)
    for part in parts:
        assert part in problem


def test_a_contradiction_with_a_wrong_value_is_not_reported_twice() -> None:
    (problem,) = problems(min_bytes="x", max_bytes=5)
    assert "min_bytes: 'x'" in problem


# ---- librdkafka properties ----

REFUSED = {
    "enable.auto.commit": "true",
    "enable.auto.offset.store": "true",
    "auto.offset.reset": "earliest",
    "auto.commit.interval.ms": "100",
    "group.id": "other",
    "group.instance.id": "x",
    "bootstrap.servers": "b:1",
    "metadata.broker.list": "b:1",
    "partition.assignment.strategy": "range",
    "group.protocol": "consumer",
    "enable.partition.eof": "true",
    "plugin.library.paths": "x.so",
    "enable.ssl.certificate.verification": "false",
    "ssl.endpoint.identification.algorithm": "none",
    "receive.message.max.bytes": "1000",
    "fetch.max.bytes": "1",
    "max.partition.fetch.bytes": "1",
    "max.poll.interval.ms": "10000",
    "session.timeout.ms": "10s",
    "offset.store.method": "file",
    "rebalance_cb": "x",
    "stats_cb": "x",
    "test.mock.num.brokers": "3",
}


@pytest.mark.parametrize("name", REFUSED)
def test_properties_that_break_guarantees_are_refused_with_the_reason(name: str) -> None:
    (problem,) = problems(kafka={name: REFUSED[name]})
    assert problem.startswith(f"kafka: {name}: ")
    reason = problem.removeprefix(f"kafka: {name}: ").partition("refused: ")[2]
    assert len(reason) > 10 or reason in {"set Group", "set Brokers"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable.auto.commit", False),
        ("enable.auto.offset.store", "FALSE"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("group.protocol", "classic"),
        ("enable.partition.eof", "0"),
        ("enable.ssl.certificate.verification", True),
        ("ssl.endpoint.identification.algorithm", "https"),
        ("max.poll.interval.ms", 30_000),
        ("fetch.min.bytes", 1),
        ("session.timeout.ms", 6000),
        ("isolation.level", "read_uncommitted"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
    ],
)
def test_other_properties_pass_as_text(name: str, value: object) -> None:
    assert make(kafka={name: value}).kafka == {
        name: str(value).lower() if isinstance(value, bool) else str(value)
    }


@pytest.mark.parametrize(
    "given", [{"a": None}, {"a": ["b"]}, {1: "b"}, {"": "b"}, {"a": 10**5000}, {"a": "\ud800"}]
)
def test_what_is_no_property_is_an_error(given: object) -> None:
    (problem,) = problems(kafka=given)
    assert problem.startswith("kafka: ")


def test_the_given_map_is_copied() -> None:
    given = {"client.rack": "a"}
    made = make(kafka=given)
    given["client.rack"] = "b"
    assert made.kafka == {"client.rack": "a"}


# ---- secrets ----


def secret_conf() -> KqConf:
    return make(username="u", password=CANARY, kafka={"ssl.key.password": CANARY})


def test_a_password_is_never_shown_by_accident() -> None:
    made = secret_conf()
    texts = [
        repr(made),
        str(made),
        f"{made}",
        f"{made.password}",
        f"{made.kafka}",
        *made.describe(),
    ]
    texts += ["%s %r" % (made.password, made.password), repr([made.password])]  # noqa: UP031
    assert not [text for text in texts if CANARY in text]
    assert made.password.reveal() == CANARY
    assert made.kafka["ssl.key.password"] == CANARY
    with pytest.raises(TypeError):
        json.dumps({"password": made.password})
    with pytest.raises(TypeError):
        "".join([made.password])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "values",
    [
        {"password": CANARY},
        {"password": [CANARY]},
        {"password": f"{CANARY}\0", "username": "u"},
        {"password": CANARY.encode(), "username": "u"},
        {"topic": {"password": CANARY}},
        {"brokers": [{"password": CANARY}]},
        {"kafka": {"sasl.password": CANARY}, "username": "u", "password": CANARY},
        {"kafka": {"ssl.key.password": [CANARY]}},
    ],
)
def test_no_error_shows_a_password(values: dict[str, Any]) -> None:
    assert CANARY not in "\n".join(problems(**values))


def test_a_wrong_property_with_a_secret_name_is_masked() -> None:
    (problem,) = problems(kafka={"oauthbearer_token_refresh_cb": CANARY})
    assert CANARY not in problem


def test_a_secret_may_be_given_and_compares() -> None:
    made = make(username="u", password=Secret(CANARY))
    assert made.password == Secret(CANARY)
    assert made.password != Secret("x")
    assert made.password != CANARY
    assert hash(made.password) == hash(Secret(CANARY))


# ---- copies ----


def test_the_wire_keeps_everything() -> None:
    made = make(
        username="u",
        password=CANARY,
        kafka={"a": "b"},
        max_wait="7ms",
        commit_in_order=True,
        ring_bytes="1MiB",
        processors="auto",
        name="n",
    )
    assert KqConf.from_wire(made.to_wire()) == made
    assert KqConf.from_wire(made.to_wire()).password.reveal() == CANARY


def test_what_is_no_wire_form_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        KqConf.from_wire(b"\x93")
    with pytest.raises(msgspec.DecodeError):
        KqConf.from_wire(msgspec.msgpack.encode([1]))


def test_pickle_and_copy_keep_everything() -> None:
    made = secret_conf()
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made


def test_a_conf_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        make().conns = 2  # type: ignore[misc]


def test_replace_checks_again() -> None:
    made = secret_conf().replace(conns=3, max_wait="1s")
    assert (made.conns, made.max_wait_ms, made.password.reveal()) == (3, 1000, CANARY)
    with pytest.raises(ConfigError, match="conns: 0"):
        made.replace(conns=0)
    with pytest.raises(TypeError):
        made.replace(nonsense=1)


def test_replace_lets_a_default_order_follow_commit_in_order() -> None:
    made = make()
    assert made.replace(commit_in_order=True).ordering == "partition"
    assert made.replace(commit_in_order=True).replace(commit_in_order=False).ordering == "key"
    with pytest.raises(ConfigError, match="ordering"):
        make(ordering="unordered").replace(commit_in_order=True)


def test_describe_names_what_differs_and_no_more() -> None:
    assert make().describe() == ["Brokers: a:9092", "Group: g", "Topic: t"]
    lines = make(
        max_wait="200ms",
        ring_bytes="8MiB",
        force_commit=False,
        offset="first",
        username="u",
        password=CANARY,
        ordering="unordered",
    ).describe()
    assert lines[3:] == [
        "Offset: first",
        "Username: u",
        "Password: ***",
        "ForceCommit: false",
        "MaxWait: 200ms",
        "Ordering: unordered",
        "RingBytes: 8MiB",
    ]


def test_load_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mq.yaml"
    file.write_text("C:\n  Brokers: [a:1]\n  Group: g\n  Topic: t\n")
    assert KqConf.load(file) == KqConf.load(str(file), "c")
    assert KqConf.load(file).name == "C"
