"""Configuration: round trips, and that no input whatever raises anything but ConfigError."""

import contextlib
import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from kqmp.config import KEYS, KqConf
from kqmp.config.units import format_duration_ms, format_size, parse_duration_ms, parse_size
from kqmp.configfile import SERVICE_KEYS, load, load_from_flags
from kqmp.configfile.expand import ExpansionError, expand
from kqmp.configfile.names import edit_distance
from kqmp.configfile.tree import plain
from kqmp.configfile.yamltree import read_json, read_yaml
from kqmp.errors import ConfigError

CANARY = "canary-7f3a"

plain_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")))
names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
durations_ms = st.integers(1, 3_600_000)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["8", "1s", "10MiB", "auto", "first", "${X}", "${file:/nowhere}", "$$", "no"])
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
kq_keys = st.sampled_from([*(key.kq for key in KEYS), *SERVICE_KEYS, "Gruop", "topic"])
sections = st.dictionaries(kq_keys, documents, max_size=8)


# ---- units ----


@given(st.integers(0, 10**11))
def test_durations_are_read_back_as_written(duration_ms: int) -> None:
    assert parse_duration_ms(format_duration_ms(duration_ms)) == duration_ms
    assert parse_duration_ms(timedelta(milliseconds=duration_ms)) == duration_ms
    assert parse_duration_ms(duration_ms / 1000) == duration_ms


@given(st.integers(0, 10**12 - 1))
def test_sizes_are_read_back_as_written(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes
    assert parse_size(str(size_bytes)) == parse_size(size_bytes) == size_bytes


@given(st.text() | st.from_regex(r"[0-9.]{0,15}[hmskib]{0,3}[0-9]{0,3}[hms]{0,2}"))
@example("1ib")
@example("1 \u212ab")
@example("1m" * 2)
def test_any_text_is_a_unit_or_a_value_error(text: str) -> None:
    for parse in (parse_duration_ms, parse_size):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


# ---- KqConf ----

confs = st.fixed_dictionaries(
    {"brokers": st.lists(names, min_size=1, max_size=3), "group": names, "topic": names},
    optional={
        "name": names,
        "offset": st.sampled_from(["first", "last"]),
        "conns": st.integers(1, 256),
        "consumers": st.integers(1, 1000),
        "processors": st.integers(1, 256) | st.just("auto"),
        "min_bytes": st.integers(1, 10_000),
        "max_bytes": st.integers(10_240, 10**9),
        "force_commit": st.booleans(),
        "commit_in_order": st.booleans(),
        "commit_interval": durations_ms.map(format_duration_ms),
        "max_wait": st.integers(1, 30_000).map(lambda ms: timedelta(milliseconds=ms)),
        "drain_timeout": durations_ms.map(lambda ms: ms / 1000),
        "ring_bytes": st.integers(65536, 2**30),
        "max_attempts": st.integers(1, 10**6),
        "instance_id": names,
        "kafka": st.dictionaries(names, plain_text | st.integers(0, 10**6) | st.booleans()),
    },
)


@given(confs, plain_text, plain_text)
def test_the_wire_and_replace_keep_everything(
    values: dict[str, Any], username: str, password: str
) -> None:
    if username.strip() and password:
        values |= {"username": username, "password": password}
    conf = KqConf(**values)
    assert KqConf.from_wire(conf.to_wire()) == conf
    assert conf.replace() == conf
    assert conf.replace(conns=7).replace(conns=conf.conns) == conf


@given(st.dictionaries(st.sampled_from([key.name for key in KEYS]), documents))
def test_any_values_make_a_conf_or_a_config_error(values: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        conf = KqConf(**values)
        assert KqConf.from_wire(conf.to_wire()) == conf


# ---- files ----


@given(documents)
def test_json_is_read_as_json_reads_it(document: object) -> None:
    text = json.dumps(document, allow_nan=False) if _finite(document) else "null"
    root = read_json(text, "a.json")
    assert root is not None
    assert plain(root, str) == json.loads(text)


@given(documents.filter(lambda document: document is not None))
def test_yaml_is_read_as_pyyaml_reads_it(document: object) -> None:
    if not _finite(document) or not _encodable(document):
        return
    text = yaml.safe_dump(document, allow_unicode=True)
    try:
        expected = yaml.safe_load(text)
    except yaml.YAMLError:
        return
    root = read_yaml(text, "a.yaml")
    assert root is not None
    assert plain(root, str) == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


yaml_lines = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "  ", "    ", "- ", "\t", "? ", "<<: "]),
        st.sampled_from(
            [f"{key.kq}: " for key in KEYS] + ["C:", "&a ", "*a", "!t ", "[", "}", "a = "]
        ),
        st.sampled_from(
            ["", "1", "[a", "{a: b}", "*a", "&a x", "'", '"', "|", "${X}", "no", "---"]
        ),
    )
).map("\n".join)


@given(
    text=st.text() | yaml_lines | st.binary().map(lambda data: data.decode("latin-1")),
    kind=st.sampled_from(["yaml", "json", "toml"]),
    section=st.none() | st.sampled_from(["C", ".", ""]),
)
def test_any_file_loads_or_is_a_config_error(
    folder: Path, text: str, kind: str, section: str | None
) -> None:
    path = folder / f"mq.{kind}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        load(path, section, env={})


@given(
    section=sections,
    top=st.booleans(),
    password=st.sampled_from(["${S}", CANARY, [CANARY], {"a": CANARY}]),
)
def test_any_section_loads_or_is_a_config_error_without_the_password(
    folder: Path, section: dict[str, Any], password: object, *, top: bool
) -> None:
    section["Password"] = password
    path = folder / "mq.json"
    path.write_text(json.dumps(section if top else {"C": section}))
    problems: tuple[str, ...] = ()
    shown = ""
    try:
        shown = repr(load(path, "." if top else "C", env={"S": CANARY}))
    except ConfigError as error:
        problems = error.problems
    assert bool(problems) != bool(shown)
    assert CANARY not in "\n".join((shown, *problems))
    assert all(line.startswith(f"{path}:") for line in problems)


@given(
    st.dictionaries(kq_keys | st.text(max_size=8), st.text(max_size=12)),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8)),
)
def test_any_flags_load_or_are_a_config_error(
    overrides: dict[str, str], properties: dict[str, str]
) -> None:
    with contextlib.suppress(ConfigError):
        load_from_flags(overrides, properties)


# ---- references, names ----


@given(st.text())
def test_escaped_text_is_itself(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == text


@given(st.text(st.sampled_from("${}:-aA_ ")), st.dictionaries(st.sampled_from("aA"), st.text()))
def test_any_reference_is_followed_or_refused(text: str, env: dict[str, str]) -> None:
    with contextlib.suppress(ExpansionError):
        expand(text, env)


@given(st.text("abc", max_size=6), st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, b) == edit_distance(b, a)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


def _finite(document: object) -> bool:
    if isinstance(document, dict):
        return all(map(_finite, document.values()))
    if isinstance(document, list):
        return all(map(_finite, document))
    return not isinstance(document, float) or math.isfinite(document)


def _encodable(document: object) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
