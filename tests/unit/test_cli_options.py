"""The flags as changes of a configuration that a `Queue` brings along."""

import pytest

from kqmp.cli.options import Given, changes
from kqmp.config import KqConf
from kqmp.errors import ConfigError
from kqmp.roles import service


def given(*sets: str) -> Given:
    return Given(file=None, section=None, sets=sets, properties=(), shortcuts={})


def test_one_key_of_a_table_can_be_set() -> None:
    asked = changes(given("DevServer.Port=7070", "Log.Level=debug", "Conns=2"))
    conf = KqConf(
        brokers="b:1", group="g", topic="t", dev_server={"HealthPath": "/up", "Port": 6061}
    )
    changed = service._changed(conf, asked)
    assert changed.conns == 2
    assert changed.log is not None
    assert changed.log.level == "debug"
    assert changed.dev_server is not None
    assert (changed.dev_server.port, changed.dev_server.health_path) == (7070, "/up")


@pytest.mark.parametrize("wrong", ["DevServer=x", "Conns.Port=1", "Nothing.Port=1"])
def test_a_key_that_is_no_table_has_no_parts_and_a_table_has(wrong: str) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        changes(given(wrong))
