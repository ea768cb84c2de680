"""What the key Log and the command line make of the log, and of the stat line of each minute."""

import logging
from typing import Any

import msgspec
import pytest

from kqmp.config import KqConf
from kqmp.handler import parse_target
from kqmp.obs.status import LiveLine
from kqmp.roles import control, service
from kqmp.roles.coordinator import Coordinator
from kqmp.roles.reporter import Reporter
from kqmp.roles.service import Order
from kqmp.roles.tree import Plan

REF = parse_target("mqs:consume")
PROBED = control.Probed(msgspec.msgpack.encode(REF), "mqs:consume", [])


def conf(**log: Any) -> KqConf:
    return KqConf(brokers=["b:1"], group="g", topic="t", processors=1, log=log)


@pytest.mark.parametrize(
    ("log", "said", "level", "encoding"),
    [
        ({}, {}, "INFO", "plain"),
        ({"Level": "debug", "Encoding": "json"}, {}, "DEBUG", "json"),
        ({"Level": "severe"}, {}, "CRITICAL", "plain"),
        ({"Level": "debug", "Encoding": "json"}, {"log_level": "ERROR"}, "ERROR", "json"),
        ({"Encoding": "json"}, {"log_encoding": "plain"}, "INFO", "plain"),
    ],
)
def test_the_command_line_wins_over_the_key_log(
    log: dict[str, str], said: dict[str, Any], level: str, encoding: str
) -> None:
    order = Order(ref=REF, conf=conf(**log), label="S", **said)
    plan = service.plan_of(order, PROBED)
    assert (plan.log_level, plan.log_encoding) == (level, encoding)
    spec = service.spec_of(order)
    assert (spec.log_level, spec.log_encoding) == (level, encoding)


def test_a_queue_brings_its_key_log_along() -> None:
    probed = msgspec.structs.replace(PROBED, conf=conf(level="error").to_wire())
    assert service.plan_of(Order(ref=REF, conf=None), probed).log_level == "ERROR"


@pytest.mark.parametrize("stat", [True, False])
def test_stat_false_leaves_out_the_stat_line(
    *, stat: bool, caplog: pytest.LogCaptureFixture
) -> None:
    plan = Plan(conf=conf(stat=stat), handler=b"", handler_name="m:f", columns=[])
    coordinator = Coordinator(plan)
    caplog.set_level(logging.INFO)
    try:
        reporter = Reporter(plan, LiveLine(-1, {}), None)
        for now_s in (100.0, 161.0):
            reporter(coordinator, now_s)
    finally:
        coordinator.tree.close()
    assert ("(g) - qps: 0.0/s" in caplog.text) is stat
