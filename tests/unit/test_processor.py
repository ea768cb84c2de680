"""A processor whose handler fails: what is retried, and what is said of it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kqmp.ring.frame import Section, encode_payload
from kqmp.ring.lane import LaneControl, LaneReader, LaneWriter, create
from kqmp.roles import processor as processor_module
from kqmp.roles.processor import Processor


def test_a_stop_in_a_retry_leaves_what_lies_behind_unfinished() -> None:
    fd = create(1 << 16)
    writer = LaneWriter(fd, 0, 0)
    payload = encode_payload([5, 6, 7], [b"k"] * 3, [b"fails", b"skipped", b"next"])
    sections = [Section(1, 0, 0, 1), Section(2, 0, 1, 1), Section(3, 0, 2, 1)]
    assert writer.write(sections, 3, payload)
    LaneControl(fd).skip([2])
    handled: list[bytes] = []

    def call(_key: bytes, value: bytes) -> None:
        handled.append(value)
        if value == b"fails":
            processor._stopping = True
            raise ValueError(value)

    processor = Processor.__new__(Processor)
    processor._lane = LaneReader(fd)
    processor._words = processor._lane.words
    processor._skip = processor._lane.skipped_epochs()
    processor._aside, processor._frames, processor._slow = -1, 0, False
    processor._spec = SimpleNamespace(topic="t", force_commit=False)  # type: ignore[assignment]
    processor._handler = SimpleNamespace(form="key_value", call=call)  # type: ignore[assignment]
    processor._limit = SimpleNamespace(admit=lambda _: False)  # type: ignore[assignment]
    processor._channel = SimpleNamespace(wait=lambda _: [], closed=True)  # type: ignore[assignment]
    frame = processor._lane.next_frame(writer.end, None)
    assert frame is not None
    processor._handle(frame)
    assert handled == [b"fails"]
    assert processor._lane.cursor == 0


def test_what_a_retry_raises_is_told_without_the_failures_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processor_module, "RETRY_FIRST_S", 0.0)
    fd = create(1 << 16)
    writer = LaneWriter(fd, 0, 0)
    assert writer.write([Section(1, 0, 0, 2)], 2, encode_payload([5, 6], [b"k"] * 2, [b"a", b"b"]))
    told: list[BaseException] = []

    def call(_key: bytes, value: bytes) -> None:
        if value == b"b" and len(told) < 3:
            raise ValueError(len(told))

    processor = Processor.__new__(Processor)
    processor._lane = LaneReader(fd)
    processor._words = processor._lane.words
    processor._skip = processor._lane.skipped_epochs()
    processor._aside, processor._frames, processor._slow = -1, 0, False
    processor._spec = SimpleNamespace(force_commit=False)  # type: ignore[assignment]
    processor._handler = SimpleNamespace(form="key_value", call=call)  # type: ignore[assignment]
    monkeypatch.setattr(processor, "_report", lambda _frame, _index, error: told.append(error))
    processor._stopping = False
    frame = processor._lane.next_frame(writer.end, None)
    assert frame is not None
    processor._handle(frame)
    assert [error.args for error in told] == [(0,), (1,), (2,)]
    assert [error.__context__ for error in told] == [None] * 3
    assert processor._lane.cursor == 2


def test_a_processor_does_not_preempt_the_fetcher_that_wakes_it():
    code = (
        "import os\n"
        "from kqmp.roles.processor import _yield_to_the_fetcher\n"
        "_yield_to_the_fetcher()\n"
        "print(os.sched_getscheduler(0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == os.SCHED_BATCH
