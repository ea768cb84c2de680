"""Files with several consumers: which are run, and what is wrong with them together."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kqmp.configfile import load, load_all
from kqmp.configfile.load import Flags
from kqmp.errors import ConfigError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file into the working directory; its name stands in errors as it is."""
    monkeypatch.chdir(tmp_path)

    def writer(text: str, name: str = "mq.yaml") -> Path:
        Path(name).write_text(text)
        return Path(name)

    return writer


def section(name: str, **keys: str) -> str:
    keys = {"Brokers": "[a:1]", "Group": "g", "Topic": name.lower(), "Handler": "mqs:f", **keys}
    return f"{name}:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items() if value)


def errors(path: Path, flags: Flags | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_all(path, flags or Flags(), {})
    return list(caught.value.problems)


def test_every_section_with_a_group_is_a_consumer(write: Write) -> None:
    text = section("Orders") + "Web: {Port: 80}\n" + section("Audit", Processors="2")
    pusher = section("Push", Group="", Handler="")
    found = load_all(write("Name: mq\n" + text + pusher))
    assert [one.section for one in found] == ["Orders", "Audit"]
    assert [one.conf.topic for one in found] == ["orders", "audit"]
    assert [one.conf.name for one in found] == ["Orders", "Audit"]
    assert found[1].conf.processors == 2
    assert all(set(one.document) == {"Name", "Orders", "Web", "Audit", "Push"} for one in found)
    assert all(one.notes == [] for one in found)


def test_the_top_level_is_one_of_them(write: Write) -> None:
    top = "Brokers: [a:1]\nGroup: g\nTopic: t\nHandler: mqs:f\n"
    found = load_all(write(top + section("Orders")))
    assert [(one.section, one.conf.name, one.conf.topic) for one in found] == [
        ("", "mq", "t"),
        ("Orders", "Orders", "orders"),
    ]


def test_one_consumer_is_read_as_ever(write: Write) -> None:
    path = write(section("Orders", Handler="") + section("Push", Group="", Handler=""))
    (found,) = load_all(path)
    assert found == load(path)
    assert found.conf.handler == ""


def test_the_only_one_with_a_group_is_it(write: Write) -> None:
    text = section("Bill", Group="", Processors="2") + section("Orders", Handler="")
    (found,) = load_all(write(text))
    assert found.section == "Orders"
    assert found.notes == ["mq.yaml: Bill has no Group: it is not run"]


def test_a_group_may_come_from_the_flags(write: Write) -> None:
    path = write(section("Bill", Group="", Processors="2"))
    (found,) = load_all(path, Flags(shortcuts={"group": "g"}))
    assert (found.section, found.conf.group, found.notes) == ("Bill", "g", [])


def test_without_any_the_errors_are_those_of_load(write: Write) -> None:
    path = write(section("Orders", Group=""))
    with pytest.raises(ConfigError, match="Group: missing"):
        load_all(path)


def test_a_section_without_handler_is_named_with_its_line(write: Write) -> None:
    text = section("Orders") + section("Audit", Handler="") + section("Bill", Handler="")
    assert errors(write(text)) == [
        f"mq.yaml:{line}:1: {name}: Handler: missing; name it here, such as mqs:consume, or run"
        f" only this section: kqmp run TARGET -f mq.yaml --section {name}"
        for line, name in ((6, "Audit"), (10, "Bill"))
    ]


def test_the_problems_of_all_sections_are_told_at_once(write: Write) -> None:
    text = section("Orders", Conns="0") + section("Audit", Handler="") + section("Bill", Topic="")
    found = errors(write(text), Flags({"Offset": "middle"}))
    assert [line.partition(" ")[0] for line in found] == ["mq.yaml:6:10:", "--set", "mq.yaml:11:1:"]
    assert "Topic: missing" in found[2]
    # The flag is as wrong for each of them, and told once; what a section lacks comes after.
    assert len(found) == 3


def test_flags_hold_for_every_section(write: Write) -> None:
    flags = Flags({"Offset": "first"}, {"check.crcs": "true"}, {"brokers": "b:2"})
    for one in load_all(write(section("Orders") + section("Audit")), flags):
        assert one.conf.offset == "first"
        assert one.conf.brokers == ("b:2",)
        assert one.conf.kafka == {"check.crcs": "true"}


def test_two_sections_of_one_group_and_topic_are_an_error(write: Write) -> None:
    text = section("Orders", Topic="t") + section("Audit", Topic="t")
    (found,) = errors(write(text))
    assert found.startswith(
        "mq.yaml:6:1: Audit: Group: 'g' and Topic 't' are those of Orders too, and each message"
    )
    # Two clusters may have a topic and a group of the same name.
    other = section("Orders", Topic="t") + section("Audit", Topic="t", Brokers="[b:1]")
    assert len(load_all(write(other))) == 2
    shared = section("Orders", Topic="t", Brokers="[b:1, a:1]") + section("Audit", Topic="t")
    assert len(errors(write(shared))) == 1


def test_a_toml_section_is_named_by_its_path(write: Write) -> None:
    text = "".join(f'[{name}]\nBrokers = ["a:1"]\nGroup = "g"\nTopic = "{name}"\n' for name in "AB")
    found = errors(write(text, "mq.toml"))
    assert found[0].startswith("mq.toml: A.Handler: missing; ")
    assert len(found) == 2


def test_what_looks_like_a_consumer_and_has_no_group_is_noted(write: Write) -> None:
    text = section("Orders") + section("Audit") + section("Bill", Group="", Processors="2")
    first, second = load_all(write(text))
    assert first.notes == ["mq.yaml: Bill has no Group: it is not run"]
    assert second.notes == []
