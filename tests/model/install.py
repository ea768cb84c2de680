"""Put the model's world under the real roles: what they take from the system, and their limits."""

import logging
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import msgspec

from kqmp.config import KqConf
from kqmp.core import slots
from kqmp.kafka import compiled, member
from kqmp.ring import bell, lane, log
from kqmp.ring import words as w
from kqmp.ring.lane import LaneControl, LaneReader, LaneWriter
from kqmp.ring.log import DispatchReader, DispatchWriter, EndsReader
from kqmp.roles import (
    assignment,
    coordinator,
    dispatch,
    fetcher,
    positions,
    processor,
    tree,
)
from tests.model import control as fakes
from tests.model.consumer import ModelMember, stand_in
from tests.model.engine import BATCH, BAY_COUNT_MAX, SPAN_MAX, Host
from tests.model.memory import views
from tests.model.shadows import (
    ModelAssignment,
    ModelDispatcher,
    ModelPositions,
    ModelProcessor,
)

#: (module, name, value): limits and waits made small, so that a short schedule meets them.
SMALL: tuple[tuple[Any, str, Any], ...] = (
    (assignment, "REVOKE_SLACK_S", 1.0),
    (coordinator, "IDLE_PASS_S", 0.2),
    (coordinator, "LEAVE_S", 5.0),
    (coordinator, "PASS_S", 0.05),
    (positions, "SPAN_MAX", SPAN_MAX),
    (dispatch, "BAY_COUNT_MAX", BAY_COUNT_MAX),
    (fetcher, "BATCH", BATCH),
    (fetcher, "EAGER_S", 0.03),
    (fetcher, "IDLE_S", 0.2),
    (fetcher, "SPAN_MAX", SPAN_MAX),
    (slots, "SLOTS", 16),
    (slots, "hash", lambda key: crc32(key if isinstance(key, bytes) else b"%d" % key)),
)


@contextmanager
def installed(host: Host) -> Iterator[None]:
    """Put the model's world under the real roles."""
    world = host.world
    ring = views(world, host.taken)
    time = fakes.clock(world)
    create_memory = w.create_memory

    def create(name: str, size: int, header: dict[int, int]) -> int:
        fd = create_memory(name, size, header)
        host.fds.append(fd)
        return fd

    patches: list[tuple[Any, str, Any]] = [
        *SMALL,
        (w, "create_memory", create),
        (lane, "LaneControl", ring[LaneControl]),
        (log, "DispatchReader", ring[DispatchReader]),
        (dispatch, "LaneWriter", ring[LaneWriter]),
        (dispatch, "DispatchWriter", ring[DispatchWriter]),
        (processor, "LaneReader", ring[LaneReader]),
        (processor, "EndsReader", ring[EndsReader]),
        (processor, "Processor", type("P", (ModelProcessor,), {"host": host})),
        (processor, "select", SimpleNamespace(poll=lambda: fakes.Poller(world), POLLIN=1)),
        (fetcher, "Assignment", type("A", (ModelAssignment,), {"host": host})),
        (fetcher, "Dispatcher", ModelDispatcher),
        (fetcher, "Member", ModelMember),
        (member, "ck", stand_in(host.consumer)),
        (compiled, "why_not", lambda: "a model"),
        (
            coordinator,
            "selectors",
            SimpleNamespace(
                DefaultSelector=lambda: fakes.Selector(world), EVENT_READ=selectors.EVENT_READ
            ),
        ),
        (coordinator, "Positions", type("L", (ModelPositions,), {"ledger": host.ledger})),
        (tree, "spawn", host.spawn),
        (tree, "LOG_BYTES", host.log_bytes),
        (positions, "LOST_DRAIN_S", host.lost_drain_s),
        (tree, "os", SimpleNamespace(close=lambda fd: None)),
        *((module, "time", time) for module in (assignment, fetcher, processor, tree)),
        *((bell, name, function) for name, function in fakes.bells(world, 1 << 20).items()),
    ]
    before = [(owner, name, getattr(owner, name, None)) for owner, name, _ in patches]
    from_wire = KqConf.from_wire
    level = logging.getLogger("kqmp").level
    try:
        for owner, name, value in patches:
            setattr(owner, name, value)
        KqConf.from_wire = classmethod(lambda _, data: CONFS[data])  # type: ignore[method-assign, assignment]
        logging.getLogger("kqmp").setLevel(logging.CRITICAL + 1)
        yield
    finally:
        logging.getLogger("kqmp").setLevel(level)
        KqConf.from_wire = from_wire  # type: ignore[method-assign]
        for owner, name, value in before:
            if name == "hash":
                delattr(owner, name)
            else:
                setattr(owner, name, value)


#: Wire form -> configuration. Checking one takes longer than a schedule may.
CONFS: dict[bytes, KqConf] = {}
_MADE: dict[str, KqConf] = {}


def conf(**values: Any) -> KqConf:
    """Return a configuration with limits below those that `KqConf` allows."""
    key = repr(sorted(values.items()))
    if key not in _MADE:
        ring_bytes = values.pop("ring_bytes")
        made = KqConf(
            brokers=["b"],
            group="g",
            topic="t",
            commit_interval="200ms",
            drain_timeout="1s",
            kafka={"session.timeout.ms": "1000"},
            **values,
        )
        msgspec.structs.force_setattr(made, "ring_bytes", ring_bytes)
        _MADE[key] = made
        CONFS[made.to_wire()] = made
    return _MADE[key]
