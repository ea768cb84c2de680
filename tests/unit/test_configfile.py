"""Files and flags: formats, sections, references, places, secrets."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kqmp.config import DevServer, Log, Prometheus
from kqmp.configfile import SERVICE_KEYS, Loaded, load, load_from_flags
from kqmp.configfile.names import edit_distance
from kqmp.errors import ConfigError

CANARY = "canary-7f3a"

SEED = """\
Name: mq
Host: 0.0.0.0
Port: 8888

#kq
KqConsumerConf:
  Name: kqConsumer
  Brokers:
  - 127.0.1:9092
  Group: kqConsumer
  Topic: payment-success
  Offset: first
  Consumers: 8
  Processors: 8
"""
GOOD = "C:\n  Brokers: [a:1]\n  Group: g\n  Topic: t\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file into the working directory; its name stands in errors as it is."""
    monkeypatch.chdir(tmp_path)

    def writer(text: str | bytes, name: str = "mq.yaml") -> Path:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return Path(name)

    return writer


def errors(path: Path, *args: Any, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, *args, **{"env": {}, **options})
    return list(caught.value.problems)


# ---- the seed and the three formats ----


def test_the_seed_of_the_project_loads_byte_for_byte(write: Write) -> None:
    loaded = load(write(SEED))
    conf = loaded.conf
    assert (conf.name, conf.group, conf.topic) == ("kqConsumer", "kqConsumer", "payment-success")
    assert conf.brokers == ("127.0.1:9092",)
    assert (conf.offset, conf.conns, conf.consumers, conf.processors) == ("first", 1, 8, 8)
    assert loaded.section == "KqConsumerConf"
    assert loaded.document["Port"] == 8888
    assert loaded.document["KqConsumerConf"]["Brokers"] == ["127.0.1:9092"]
    assert loaded.notes == []


SAME = {
    "mq.yml": """\
        Foreign: {deep: [1, two]}
        C:
          brokers: [a:1, b:2]
          GROUP: g
          Topic: t
          MaxWait: 200ms
          ForceCommit: no
          RingBytes: 1MiB
          Kafka: {client.rack: 1.10, enable.auto.commit: off}
        """,
    "mq.json": """\
{
\t"Foreign": {"deep": [1, "two"]},
\t"C": {
\t\t"brokers": ["a:1", "b:2"], "GROUP": "g", "Topic": "\\u0074", "MaxWait": "200ms",
\t\t"ForceCommit": false, "RingBytes": 1048576,
\t\t"Kafka": {"client.rack": 1.10, "enable.auto.commit": false}
\t}
}
""",
    "mq.toml": """\
[Foreign]
deep = [1, "two"]
[C]
brokers = ["a:1", "b:2"]
GROUP = "g"
Topic = "t"
MaxWait = "200ms"
ForceCommit = false
RingBytes = 1_048_576
[C.Kafka]
client.rack = "1.10"
enable.auto.commit = false
""",
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_the_three_formats_say_the_same(write: Write, name: str, ends: str) -> None:
    loaded = load(write("\ufeff" + SAME[name].replace("\n", ends), name))
    conf = loaded.conf
    assert conf.brokers == ("a:1", "b:2")
    assert (conf.name, conf.group, conf.topic, conf.max_wait_ms) == ("C", "g", "t", 200)
    assert (conf.force_commit, conf.ring_bytes) == (False, 1024**2)
    assert conf.kafka == {"client.rack": "1.10", "enable.auto.commit": "false"}
    assert loaded.document["Foreign"] == {"deep": [1, "two"]}


def test_json_strings_and_numbers_are_jsons(write: Write) -> None:
    text = {"C": json.loads(json.dumps({"Brokers": "a", "Group": "\U0001f600", "Topic": "no"}))}
    path = write(
        json.dumps({**text, "x": ["\u2028", 1e300, "2024-01-01", "<<", None, True]}), "a.json"
    )
    loaded = load(path)
    assert loaded.conf.group == "\U0001f600"
    assert loaded.conf.topic == "no"
    assert loaded.document["x"] == ["\u2028", 1e300, "2024-01-01", "<<", None, True]


def test_anchors_and_merge_keys(write: Write) -> None:
    loaded = load(
        write(
            "base: &base {Brokers: [a:1], Group: other, Conns: 2}\n"
            "C:\n  Topic: t\n  <<: *base\n  Group: g\n"
        ),
        "C",
    )
    assert (loaded.conf.group, loaded.conf.conns) == ("g", 2)
    assert loaded.document["C"] == {"Conns": 2, "Brokers": ["a:1"], "Topic": "t", "Group": "g"}


# ---- what cannot be read ----


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("mq.yaml", "a: [1\nb: 2\n", "mq.yaml:2:2: expected ',' or ']'"),
        ("mq.yaml", "a:\n\tb: 1\n", "mq.yaml:2:1: a tab; YAML is indented with spaces"),
        ("mq.yaml", "a: b: c\n", "mq.yaml:1:5: mapping values are not allowed here"),
        ("mq.yaml", "a: 1\n---\nb: 1\n", "mq.yaml:2:1: "),
        ("mq.yaml", "C:\n  Group: !x y\n", "mq.yaml:2:10: Group: a YAML tag is not allowed"),
        ("mq.yaml", "a: !!python/object:os.system {}\n", "mq.yaml:1:4: a: a YAML tag"),
        ("mq.yaml", "!!map {a: 1}\n", "mq.yaml:1:1: a YAML tag"),
        ("mq.yaml", "a: 1\nb: 2\na: 3\n", "mq.yaml:3:1: a: given twice, first on line 1"),
        ("mq.yaml", "C:\n  x: &x [*x]\n", "mq.yaml:2:6: an anchor that contains itself"),
        ("mq.yaml", "a: *nowhere\n", "mq.yaml:1:4: undefined alias; quote the value"),
        ("mq.yaml", "? [a]\n: b\n", "mq.yaml:1:3: a key must be text"),
        ("mq.yaml", "a: 2024-13-45\n", "mq.yaml:1:4: a number or date that does not exist"),
        ("mq.yaml", "<<: 5\n", "mq.yaml:1:5: <<: only maps can be merged"),
        ("mq.yaml", "a: 1\nb: \x07\n", "mq.yaml:2:4: a character that YAML forbids"),
        ("mq.yaml", b"a: 1\nb: \xff\n", "mq.yaml:2: not UTF-8 text"),
        ("mq.yaml", "- a\n", "mq.yaml:1:1: the file must be a map"),
        ("mq.yaml", "[" * 20_000, "mq.yaml: nested too deeply"),
        ("mq.yaml", "#" * 2_000_000, "mq.yaml: larger than 1048576 bytes"),
        ("mq.json", '{"a": 1,}', "mq.json:1:"),
        ("mq.json", '{"a": 1}}', "mq.json:1:9: Extra data"),
        ("mq.json", '{"a": "b', "mq.json:1:7: Unterminated string"),
        ("mq.json", "[" * 100_000, "mq.json: nested too deeply"),
        ("mq.json", '{"a": 1, "a": 2}', "mq.json:1:10: a: given twice"),
        ("mq.json", f'{{"a": {"9" * 5000}}}', "mq.json: holds a number that is too long"),
        ("mq.toml", "a = 1\nb = \n", "mq.toml:2:"),
        ("mq.toml", "[a\n", "mq.toml:1:"),
        ("mq.toml", "a = 1\na = 2\n", "mq.toml:2:"),
        ("mq.toml", "a = '''x", "mq.toml:1:"),
        ("mq.ini", "", "mq.ini: cannot tell what kind of file this is; use a name that ends in"),
    ],
)
def test_a_file_that_cannot_be_read(
    write: Write, name: str, text: str | bytes, expected: str
) -> None:
    (problem,) = errors(write(text, name))
    assert problem.startswith(expected)


def test_aliases_cannot_blow_up(write: Write) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    (problem,) = errors(write("\n".join(lines)))
    assert "aliases make more than 100000 parts" in problem


def test_all_tags_and_duplicates_come_at_once(write: Write) -> None:
    found = errors(write("a: !x 1\na: 2\nb: !y 3\n"))
    assert [line.split(": ")[0] for line in found] == ["mq.yaml:1:4", "mq.yaml:2:1", "mq.yaml:3:4"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = errors(tmp_path / "no.yaml")
    assert problem == f"{tmp_path / 'no.yaml'}: cannot be read: No such file or directory"
    (tmp_path / "dir.yaml").mkdir()
    (problem,) = errors(tmp_path / "dir.yaml")
    assert problem.endswith("cannot be read: Is a directory")
    (problem,) = errors(Path("a\0.yaml"))
    assert "cannot be read" in problem


# ---- sections ----

PUSHER = "P:\n  Brokers: [a:1]\n  Topic: out\n"


@pytest.mark.parametrize(
    ("text", "wanted", "section"),
    [
        (GOOD + PUSHER, None, "C"),
        (PUSHER + GOOD, None, "C"),
        (GOOD, "c", "C"),
        (GOOD + GOOD.replace("C:", "D:"), "d", "D"),
        (GOOD.replace("C:", "Kafka:"), None, "Kafka"),
        (GOOD.replace("\n  ", "\n").replace("C:\n", ""), None, ""),
        (GOOD.replace("\n  ", "\n").replace("C:\n", "") + "Rest: {Timeout: 3}\n", ".", ""),
    ],
)
def test_the_section_is_found(write: Write, text: str, wanted: str | None, section: str) -> None:
    loaded = load(write(text), wanted)
    assert loaded.section == section
    assert loaded.conf.group == "g"
    assert loaded.conf.name == (section or "mq")


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        (GOOD + GOOD.replace("C:", "D:"), None, "mq.yaml: C, D all look like a consumer; choose"),
        (GOOD + "Group: x\nTopic: y\n", None, "mq.yaml: C, . (the top level) all look like"),
        (GOOD + "x: 1\n", "X", "mq.yaml:5:1: x: a section must be a map"),
        (GOOD + PUSHER, "Q", "mq.yaml: there is no section 'Q'; the file has C, P"),
        ("x: 1\n", "Q", "mq.yaml: there is no section 'Q'; the file has no sections"),
        ("x: {}\nX: {}\n", "X", ""),
        ("xa: {}\nXA: {}\n", "Xa", "mq.yaml: section 'Xa' is there twice"),
    ],
)
def test_a_section_that_cannot_be_told(
    write: Write, text: str, wanted: str | None, expected: str
) -> None:
    found = errors(write(text), wanted)
    assert found[0].startswith(expected or "mq.yaml:2:1: Brokers: missing")


def test_a_consumer_without_its_group_is_found_by_the_rest(write: Write) -> None:
    (problem,) = errors(write("x: 1\nP:\n  Brokers: [a:1]\n  Topic: out\n"))
    assert problem.startswith("mq.yaml:2:1: Group: missing; use the name of the consumer group")


def test_what_is_missing_is_placed_at_the_section(write: Write) -> None:
    found = errors(write("x: 1\nC:\n  Conns: 2\n"), "C")
    assert [line.split(";")[0] for line in found] == [
        "mq.yaml:2:1: Brokers: missing",
        "mq.yaml:2:1: Group: missing",
        "mq.yaml:2:1: Topic: missing",
    ]
    assert errors(write("")) == errors(write("{}"))
    found = errors(write("[C]\nConns = 2\n", "mq.toml"), "C")
    assert found[0].startswith("mq.toml: C.Brokers: missing")


def test_go_zeros_service_keys_are_accepted_with_one_line(write: Write) -> None:
    keys = "".join(f"  {name}: {{Host: 1}}\n" for name in SERVICE_KEYS)
    keys = keys.replace("Telemetry", "telemetry") + "  Log: {KeepDays: 3, mode: file}\n"
    keys += "  Mode: dev\n  DevServer: {EnablePprof: true}\n"
    loaded = load(write(GOOD + keys))
    assert loaded.notes == [
        "accepted, no effect: telemetry, Shutdown, Profiling, Log.KeepDays, Log.mode,"
        " DevServer.EnablePprof"
    ]


def test_service_keys_take_effect(write: Write) -> None:
    text = GOOD + "  log: {level: ERROR, Encoding: json, Stat: no}\n  DevServer: {}\n"
    text += "  MetricsUrl: https://x/y\n"
    text += "  Prometheus: {Host: 127.0.0.1, port: '${PORT}', Path: /m}\n"
    made = load(write(text), env={"PORT": "9102"}).conf
    assert made.log == Log(level="error", encoding="json", stat=False)
    assert made.prometheus == Prometheus(host="127.0.0.1", port=9102, path="/m")
    assert made.dev_server == DevServer()
    assert made.metrics_url == "https://x/y"
    assert (DevServer().port, DevServer().health_path, Prometheus().port) == (
        6060,
        "/healthz",
        9101,
    )


def test_what_is_wrong_in_a_table_has_its_place(write: Write) -> None:
    text = """  Log:
    Level: loud
    Encodng: json
  Mode: prod
  Prometheus:
    Host: 1
    Port: 70000
    Path: ${NOWHERE}
  DevServer: 6060
  MetricsUrl: ftp://x
"""
    assert errors(write(GOOD + text)) == [
        "mq.yaml:6:12: Log: Level: 'loud' is not allowed;"
        " use debug, info, warning, error or severe",
        "mq.yaml:7:5: Log: Encodng: unknown key; did you mean Encoding?",
        "mq.yaml:8:9: Mode: 'prod' is not allowed; use dev, test, rt, pre or pro",
        "mq.yaml:10:11: Prometheus: Host: 1 is read as a number or date, not as text;"
        ' write it in quotes: "1"',
        "mq.yaml:11:11: Prometheus: Port: 70000 is not allowed; use a whole number from 1 to 65535",
        "mq.yaml:12:11: Prometheus: Path: the environment variable NOWHERE is not set; set it or"
        " write ${NOWHERE:-default}",
        "mq.yaml:13:14: DevServer: 6060 is not allowed; use a map of Enabled, Host, Port,"
        " MetricsPath, HealthPath, EnableMetrics, HealthResponse",
        "mq.yaml:14:15: MetricsUrl: 'ftp://x' is not allowed; use a URL that begins with http:// or"
        " https://, without a user in it",
    ]
    found = errors(write("[C.DevServer]\nPort = 0\nX = 1\n", "mq.toml"), "C")
    assert (
        "mq.toml: C.DevServer: Port: 0 is not allowed; use a whole number from 1 to 65535" in found
    )
    assert "mq.toml: C.DevServer: X: unknown key; use one of Enabled, Host" in "\n".join(found)


def test_flags_set_keys_of_tables(write: Write) -> None:
    file = write(GOOD + "  DevServer: {Port: x, Host: h}\n")
    made = load(file, overrides={"devserver.port": "1", "Log.Level": "debug"}).conf
    assert made.dev_server == DevServer(port=1, host="h")
    assert made.log == Log(level="debug")
    for flag, text in (
        ("DevServer.Port", "--set DevServer: Port: 'x' is not allowed"),
        ("DevServer.Prt", "--set DevServer: prt: unknown key"),
        ("DevServer", "--set DevServer: a map; set one key of it, as DevServer.Enabled=..."),
    ):
        with pytest.raises(ConfigError) as caught:
            load(write(GOOD), overrides={flag: "x"})
        assert caught.value.problems[0].startswith(text)


def test_service_keys_make_no_consumer(write: Write) -> None:
    pusher = "P:\n  Brokers: [a:1]\n  Topic: t\n  Log: {Level: debug}\n  Mode: dev\n"
    assert load(write(GOOD + pusher)).section == "C"
    # At the top level foreign keys near to short ones of ours mean nothing.
    load(write("Brokers: [a:1]\nGroup: g\nTopic: t\nModes: 1\nLogs: 2\nModel: x\n"))


def test_unknown_keys_in_a_section(write: Write) -> None:
    found = errors(write(GOOD + "  Procesors: 8\n  Whatever: 1\n  max_bytes: 5\n  7: x\n"))
    assert found[0] == "mq.yaml:5:3: Procesors: unknown key; did you mean Processors?"
    assert found[1].startswith("mq.yaml:6:3: Whatever: unknown key; use one of Name, Brokers,")
    assert found[2] == "mq.yaml:7:3: max_bytes: unknown key; did you mean MaxBytes?"
    assert found[3].startswith("mq.yaml:8:3: 7: unknown key; use one of")
    assert len(found) == 4


def test_the_top_level_lets_foreign_keys_be_but_not_misspelt_ones(write: Write) -> None:
    top = "Brokers: [a:1]\nGroup: g\nTopic: t\n"
    text = top + "Host: 0.0.0.0\nPort: 1\nTelemetry: {}\nRedis: {Host: x}\nConn: {a: 1}\n1: 2\n"
    loaded = load(write(text))
    assert loaded.notes == ["accepted, no effect: Telemetry"]
    found = errors(write(top + "Conn: 2\nOfset: first\nProzesors: 1\nkafkas: {a: 1}\n"))
    assert found == [
        "mq.yaml:4:1: Conn: unknown key; did you mean Conns?",
        "mq.yaml:5:1: Ofset: unknown key; did you mean Offset?",
        "mq.yaml:6:1: Prozesors: unknown key; did you mean Processors?",
        "mq.yaml:7:1: kafkas: unknown key; did you mean Kafka?",
    ]


def test_outside_the_section_nothing_is_looked_at(write: Write) -> None:
    load(write("Conn: 2\nGruop: x\n" + GOOD))


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [("", "", 0), ("a", "", 1), ("group", "gruop", 2), ("conns", "conn", 1), ("abc", "xyz", 3)],
)
def test_edit_distance(left: str, right: str, distance: int) -> None:
    assert edit_distance(left, right) == edit_distance(right, left) == distance


# ---- values ----


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Offset: middle", "Offset: 'middle' is not allowed; use first or last"),
        ("Conns: 0", "Conns: 0 is not allowed; use a whole number from 1 to 256"),
        ("Conns: many", "Conns: 'many' is not allowed; use a whole number"),
        ("Conns: {a: 1}", "Conns: a map is not allowed; use a whole number"),
        ("Conns:", "Conns: empty; use a whole number from 1 to 256, or leave it out"),
        ("MaxWait: 5", "MaxWait: 5 has no unit; write 5s or 5ms"),
        ("MaxWait: 1:30", "MaxWait: 1:30 has no unit"),
        ("MinBytes: 20MiB", "MinBytes: 20MiB is more than MaxBytes 10MiB; make it at most that"),
        ("maxBytes: 100", "MinBytes: 10KiB is more than maxBytes 100"),
        ("Username: u", "Username: given without Password; give both or neither"),
        ("Handler: 3", "Handler: 3 is read as a number or date, not as text; write it in quotes"),
        ("Ordering: key\n  CommitInOrder: true", "Ordering: key contradicts CommitInOrder true"),
        ("conns: 0", "conns: 0 is not allowed"),
        ("group: h", "group: given twice, in different case"),
        ("Kafka: 5", "Kafka: 5 is not allowed; use a map"),
        ("Kafka: {enable.auto.commit: yes}", "Kafka: enable.auto.commit: 'true' is refused: "),
        ("Kafka:\n    group: {id: x}", "Kafka: group.id: 'x' is refused: set Group"),
        ("Kafka: {a: [1]}", "Kafka: a: the value must be text"),
        ("Kafka: {1: a}", "Kafka: the name of a librdkafka property is text"),
    ],
)
def test_a_wrong_value_has_its_place_and_the_key_as_written(
    write: Write, line: str, expected: str
) -> None:
    (problem,) = errors(write(GOOD + f"  {line}\n"))
    place, _, text = problem.partition(": ")
    assert text.startswith(expected)
    file, number, column = place.split(":")
    assert (file, number in ("5", "6")) == ("mq.yaml", True)
    assert int(column) >= 3


@pytest.mark.parametrize(
    ("value", "what"),
    [("no", "true/false"), ("2024", "a number or date"), ("2024-01-01", "a number or date")],
)
def test_text_that_yaml_reads_as_something_else_must_be_quoted(
    write: Write, value: str, what: str
) -> None:
    (problem,) = errors(write(GOOD.replace("Group: g", f"Group: {value}")))
    assert problem == (
        f"mq.yaml:3:10: Group: {value} is read as {what}, not as text;"
        f' write it in quotes: "{value}"'
    )
    assert load(write(GOOD.replace("Group: g", f'Group: "{value}"'))).conf.group == value


def test_places_of_values_are_exact(write: Write) -> None:
    text = (
        "C:\n  Brokers: [a:1]\n  Group:   g\n  Topic: t\n  Conns:   0\n  Kafka:\n    group.id:  x\n"
    )
    found = errors(write(text))
    assert [line.split(": ")[0] for line in found] == ["mq.yaml:5:12", "mq.yaml:7:16"]


def test_an_empty_kafka_is_no_error(write: Write) -> None:
    assert load(write(GOOD + "  Kafka:\n")).conf.kafka == {}


def test_problems_are_sorted_by_line_whatever_finds_them(write: Write) -> None:
    text = """\
C:
  Topic: ${NOPE}
  Offset: middle
  Gruop: x
  Brokers: [9092]
  Conns: 0
"""
    found = errors(write(text), overrides={"Processors": "0"}, kafka_overrides={"group.id": "x"})
    assert [line.split(": ")[0] for line in found] == [
        "mq.yaml:1:1",
        "mq.yaml:2:10",
        "mq.yaml:3:11",
        "mq.yaml:4:3",
        "mq.yaml:5:12",
        "mq.yaml:6:10",
        "--set Processors",
        "-X group.id",
    ]


def test_toml_problems_name_the_path(write: Write) -> None:
    text = """\
[C]
Brokers = ["a:1"]
Group = true
Topic = "t"
Conns = 0
MaxWait = 5
Foo = 1
[C.Kafka]
group.id = "x"
"""
    found = errors(write(text, "mq.toml"))
    assert [line.split(": ")[1] for line in found] == [
        "C.Group",
        "C.Conns",
        "C.MaxWait",
        "C.Foo",
        "C.Kafka",
    ]
    assert found[4] == "mq.toml: C.Kafka: group.id: 'x' is refused: set Group"


# ---- references ----

ENV = {"TOPIC": "from-env", "N": "3", "EMPTY": "", "LIST": "a:1,b:2", "NO": "no"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${TOPIC}", "from-env"),
        ("x-${TOPIC}-${N}", "x-from-env-3"),
        ("'${TOPIC}'", "from-env"),
        ("${NOPE:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${N:-default}", "3"),
        ("${NO}", "no"),
    ],
)
def test_references_to_the_environment(write: Write, value: str, expected: str) -> None:
    text = GOOD.replace("Topic: t", f"Topic: {value}")
    assert load(write(text), env=ENV).conf.topic == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a$$b", "a$b"), ("$${N}", "${N}"), ("5$", "5$"), ("$N", "$N"), ("$$$$", "$$")],
)
def test_dollars_that_refer_to_nothing(write: Write, value: str, expected: str) -> None:
    assert (
        load(write(GOOD.replace("Group: g", f"Group: '{value}'")), env=ENV).conf.group == expected
    )


def test_references_become_what_the_key_wants(write: Write) -> None:
    text = GOOD.replace("[a:1]", "${LIST}") + (
        "  Conns: ${N}\n  ForceCommit: ${NO}\n  MaxWait: ${N}s\n"
        "  Kafka: {client.id: '${TOPIC}', '${N}': x}\n"
    )
    conf = load(write(text), env=ENV).conf
    assert (conf.brokers, conf.conns, conf.force_commit) == (("a:1", "b:2"), 3, False)
    assert conf.max_wait_ms == 3000
    assert conf.kafka == {"client.id": "from-env", "${N}": "x"}


def test_a_wrong_value_of_a_reference_is_shown_as_it_came(write: Write) -> None:
    (problem,) = errors(write(GOOD + "  Conns: ${TOPIC}\n"), env=ENV)
    assert problem.startswith("mq.yaml:5:10: Conns: 'from-env' is not allowed")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${NOPE}", "the environment variable NOPE is not set; set it or write ${NOPE:-default}"),
        ("a${", "${ without its }"),
        ("${a b}", "${...} without the name of a variable"),
        ("${}", "${...} without the name of a variable"),
        ("${file:nowhere}", "the file 'nowhere' cannot be read: No such file or directory"),
        ("${file:}", "the file '' cannot be read: "),
        ("${file:bad}", "the file 'bad' is not UTF-8 text"),
        ("${file:large}", "the file 'large' is larger than 1048576 bytes"),
    ],
)
def test_references_that_cannot_be_followed(write: Write, value: str, expected: str) -> None:
    Path("bad").write_bytes(b"\xff")
    Path("large").write_bytes(b"x" * (1024**2 + 1))
    (problem,) = errors(write(GOOD.replace("Group: g", f"Group: '{value}'")))
    assert problem.startswith(f"mq.yaml:3:10: Group: {expected}")


def test_a_secret_file_loses_its_one_line_end(write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f" {CANARY}\n\n")
    text = GOOD + f"  Username: u\n  Password: ${{file:{tmp_path / 'secret'}}}\n"
    conf = load(write(text)).conf
    assert conf.password.reveal() == f" {CANARY}\n"


def test_outside_the_section_references_are_followed_where_they_can_be(write: Write) -> None:
    loaded = load(
        write(GOOD + "db:\n  url: ${TOPIC}/${N}\n  other: ['${NOPE}', 'a$$b']\n"), env=ENV
    )
    assert loaded.document["db"] == {"url": "from-env/3", "other": ["${NOPE}", "a$b"]}
    (note,) = loaded.notes
    assert "outside the section" in note
    assert "NOPE" in note


# ---- flags ----


def flags(values: Mapping[str, str], **options: Any) -> Loaded:
    return load_from_flags({"Brokers": "a:1,b:2", "Group": "g", "topic": "t", **values}, **options)


def test_flags_alone_suffice() -> None:
    loaded = flags({"max_wait": "1s", "PROCESSORS": "4", "ForceCommit": "false", "Offset": "first"})
    assert loaded.conf.brokers == ("a:1", "b:2")
    assert (loaded.conf.max_wait_ms, loaded.conf.processors) == (1000, 4)
    assert (loaded.conf.force_commit, loaded.conf.offset) == (False, "first")
    assert (loaded.section, loaded.document, loaded.notes) == ("", {}, [])


def test_text_from_flags_needs_no_quotes() -> None:
    assert flags({"Group": "no"}).conf.group == "no"
    assert flags({"Group": "2024"}).conf.group == "2024"


def test_what_is_missing_without_a_file_names_the_flag() -> None:
    with pytest.raises(ConfigError) as caught:
        load_from_flags({"Topic": "t"})
    assert [line.split(";")[0] for line in caught.value.problems] == [
        "--brokers: missing",
        "--group: missing",
    ]


def test_wrong_flags_are_named_as_typed() -> None:
    with pytest.raises(ConfigError) as caught:
        flags(
            {"conns": "0", "Gruop": CANARY, "Kafka": "x", "MinBytes": "2", "MaxBytes": "1"},
            kafka_overrides={"enable.auto.commit": "true"},
            shortcuts={"topic": "a b"},
        )
    assert [line.partition(": ")[0] for line in caught.value.problems] == [
        "--set Gruop",
        "--set Kafka",
        "--topic",
        "--set conns",
        "--set MinBytes",
        "-X enable.auto.commit",
    ]
    assert CANARY not in str(caught.value)


def test_shortcuts_win_over_set_and_set_over_the_file(write: Write) -> None:
    path = write(GOOD + "  Conns: 2\n  Processors: 2\n  Kafka: {a: '1', b: '1'}\n")
    conf = load(
        path,
        overrides={"Conns": "3", "Processors": "3", "name": "n"},
        kafka_overrides={"b": "2"},
        shortcuts={"processors": "4"},
    ).conf
    assert (conf.name, conf.conns, conf.processors) == ("n", 3, 4)
    assert conf.kafka == {"a": "1", "b": "2"}


def test_a_flag_makes_up_for_what_is_wrong_in_the_file(write: Write) -> None:
    path = write(
        "C:\n  Brokers: [a:1]\n  Group: no\n  Topic: ${NOPE}\n  Conns: 0\n"
        "  Kafka: {group.id: x, a: '${NOPE}'}\n"
    )
    assert len(errors(path)) == 5
    found = errors(
        path, overrides={"Group": "g", "Topic": "t", "Conns": "1"}, kafka_overrides={"a": "b"}
    )
    assert found == ["mq.yaml:6:21: Kafka: group.id: 'x' is refused: set Group"]


# ---- secrets ----


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mq.yaml", GOOD + f"  Password: {CANARY}\n"),
        ("mq.yaml", GOOD + f"  Password: [{CANARY}]\n"),
        ("mq.yaml", GOOD + f"  Password: {{a: {CANARY}}}\n"),
        ("mq.yaml", GOOD + f"  Password: *{CANARY}\n"),
        ("mq.yaml", GOOD + f"  Password: !{CANARY}\n"),
        ("mq.yaml", GOOD + f"  Password: !{CANARY}!x y\n"),
        ("mq.yaml", GOOD + f"  Password: &{CANARY}\n"),
        ("mq.yaml", GOOD + f"  Password: &{CANARY} a\n  Username: &{CANARY} b\n"),
        ("mq.yaml", GOOD + f'  Password: "{CANARY}\n'),
        ("mq.yaml", GOOD + f'  Password: "{CANARY}\\q"\n'),
        ("mq.yaml", GOOD + f"  Password: %{CANARY}\n"),
        ("mq.yaml", GOOD + f"  Password: x: {CANARY}\n"),
        ("mq.yaml", GOOD + f"  Password: |{CANARY}\n"),
        ("mq.yaml", GOOD + f"  Password: 'a' {CANARY}\n"),
        ("mq.yaml", GOOD + f"  Password: a{{{CANARY}: ${{{CANARY}\n"),
        ("mq.yaml", GOOD + f"  Pasword: {CANARY}\n"),
        ("mq.yaml", GOOD + f"  Topic: {{Password: {CANARY}}}\n".replace("Topic", "topic")),
        ("mq.yaml", GOOD + f"  Kafka: {{sasl.password: {CANARY}, enable.auto.commit: true}}\n"),
        ("mq.yaml", GOOD + f"  Kafka: {{ssl.key.password: [{CANARY}]}}\n"),
        ("mq.yaml", GOOD + "  Password: ${SECRET}\n"),
        ("mq.yaml", GOOD + "  Password: '${SECRET}${NOPE}'\n"),
        ("mq.json", json.dumps({"C": {"Group": "g", "Topic": "t", "Password": CANARY}})),
        ("mq.json", f'{{"C": {{"Group": "g", "Password": "{CANARY}\\q"}}}}'),
        ("mq.json", f'{{"C": {{"Group": "g", "Password": {CANARY}}}}}'),
        ("mq.toml", f'[C]\nGroup = "g"\nTopic = "t"\nPassword = "{CANARY}"\n'),
        ("mq.toml", f"[C]\nPassword = {CANARY}\n"),
        ("mq.toml", f'[C]\nPassword = "{CANARY}\n'),
        ("mq.toml", f'[C]\nPassword = "{CANARY}" x\n'),
    ],
)
def test_no_error_shows_a_password(write: Write, name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(text, name), env={"SECRET": CANARY})
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert chain.__suppress_context__ or chain.__context__ is None
        assert CANARY not in str(chain)
        chain = chain.__cause__


def test_a_number_as_password_is_not_shown(write: Write) -> None:
    (problem,) = errors(write(GOOD + "  Username: u\n  Password: 8675309\n"))
    assert "8675309" not in problem
    assert problem.startswith("mq.yaml:6:13: Password: the value (not shown)")


def test_what_was_loaded_does_not_show_the_password(write: Write) -> None:
    loaded = load(write(GOOD + f"  Username: u\n  Password: {CANARY}\n"))
    assert CANARY not in repr(loaded)
    assert loaded.document["C"]["Password"] == CANARY
