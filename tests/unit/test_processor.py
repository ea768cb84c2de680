"""A processor whose handler fails: what is retried, and what is said of it."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from kqmp.handler import Handler, Outcome
from kqmp.message import Message
from kqmp.ring import words as w
from kqmp.ring.frame import Frame, Section, encode_payload
from kqmp.ring.lane import LaneControl, LaneReader, LaneWriter, create
from kqmp.roles import processor as processor_module
from kqmp.roles.errorhook import ErrorHook
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
    processor._on_error = None  # type: ignore[assignment]
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
    processor._on_error = None  # type: ignore[assignment]
    monkeypatch.setattr(processor, "_report", lambda _frame, _index, error: told.append(error))
    processor._stopping = False
    frame = processor._lane.next_frame(writer.end, None)
    assert frame is not None
    processor._handle(frame)
    assert [error.args for error in told] == [(0,), (1,), (2,)]
    assert [error.__context__ for error in told] == [None] * 3
    assert processor._lane.cursor == 2


class Rig:
    """A processor at three messages; a handler that raises `ValueError` for some of them."""

    def __init__(
        self, on_error: Callable[[Message, Exception], object] | None, *, force_commit: bool
    ) -> None:
        fd = create(1 << 16)
        self.writer = LaneWriter(fd, 0, 0)
        payload = encode_payload([5, 6, 7], [b"k"] * 3, [b"a", b"b", b"c"])
        assert self.writer.write([Section(1, 0, 4, 3)], 3, payload)
        self.fails: list[bytes] = []
        self.handled: list[bytes] = []
        self.reported: list[Exception] = []
        handler = Handler(
            name="m:f", form="key_value", call=self._call, columns=frozenset(), on_error=on_error
        )
        made = self.processor = Processor.__new__(Processor)
        made._lane = LaneReader(fd)
        made._words = made._lane.words
        made._skip = made._lane.skipped_epochs()
        made._aside, made._frames, made._slow, made._stopping = -1, 0, False, False
        spec = SimpleNamespace(topic="t", force_commit=force_commit)
        made._spec = spec  # type: ignore[assignment]
        made._handler = handler
        made._on_error = ErrorHook(handler, logging.getLogger("kqmp.processor"))
        made._report = self._report  # type: ignore[method-assign]

    def _report(self, frame: Frame, index: int, error: Exception) -> None:
        self.reported.append(error)

    def _call(self, key: bytes | None, value: bytes | None) -> None:
        assert value is not None
        self.handled.append(value)
        if value in self.fails:
            self.fails.remove(value)
            raise ValueError(value)

    def run(self, *fails: bytes) -> tuple[int, int, int]:
        """Handle the frame; return cursor, failed and retried."""
        self.fails += fails
        frame = self.processor._lane.next_frame(self.writer.end, None)
        assert frame is not None
        self.processor._handle(frame)
        words = self.processor._words
        return self.processor._lane.cursor, words[w.FAILED], words[w.RETRIED]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor_module, "RETRY_FIRST_S", 0.0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("force_commit", [True, False])
def test_on_error_is_told_which_message_failed_instead_of_the_log(*, force_commit: bool) -> None:
    told: list[tuple[object, ...]] = []

    def on_error(message: Message, error: Exception) -> None:
        told.append((message.topic, message.partition, message.offset, message.value, error.args))

    rig = Rig(on_error, force_commit=force_commit)
    cursor, failed, retried = rig.run(b"b")
    assert told == [("t", 4, 6, b"b", (b"b",))]
    assert (cursor, failed, retried) == ((3, 1, 0) if force_commit else (3, 0, 1))
    assert rig.handled == [b"a", b"b", *([] if force_commit else [b"b"]), b"c"]
    assert rig.reported == []


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("force_commit", [True, False])
def test_its_word_counts_whatever_force_commit_says(*, force_commit: bool) -> None:
    says = [Outcome.RETRY, Outcome.RETRY, Outcome.DONE]
    rig = Rig(lambda _message, _error: says.pop(0), force_commit=force_commit)
    assert rig.run(b"b", b"b", b"b") == (3, 1, 2)
    assert rig.handled == [b"a", b"b", b"b", b"b", b"c"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("does", "told"),
    [("raises", "on_error of m:f failed"), ("returns", "on_error of m:f returned")],
)
def test_an_on_error_that_is_wrong_itself_leaves_it_to_force_commit(
    does: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    def on_error(message: Message, error: Exception) -> object:
        if does == "raises":
            raise KeyError("in on_error")
        return "retry"

    rig = Rig(on_error, force_commit=True)
    assert rig.run(b"b") == (3, 1, 0)
    assert told in caplog.text
    # What was to be told is told, where on_error could not.
    assert [error.args for error in rig.reported] == ([(b"b",)] if does == "raises" else [])


def test_a_processor_does_not_preempt_the_fetcher_that_wakes_it():
    code = (
        "import os\n"
        "from kqmp.roles.processor import _yield_to_the_fetcher\n"
        "_yield_to_the_fetcher()\n"
        "print(os.sched_getscheduler(0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == os.SCHED_BATCH
