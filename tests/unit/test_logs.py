import json
import logging
import os
import subprocess
import sys
import traceback
import warnings
from datetime import datetime
from pathlib import Path

import pytest

from kqmp.handler import parse_target, wrap
from kqmp.obs import logs
from kqmp.obs.logs import RateLimited, failure_text, relay, setup

REPOSITORY = Path(__file__).parent.parent.parent
#: A logger of the handler's module.
USER = logging.getLogger("mqs")


@pytest.fixture(autouse=True)
def root():
    """The root logger without pytest's handlers, which `setup` would close."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    logger.handlers[:] = []
    yield logger
    logging.captureWarnings(capture=False)
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def log(tmp_path):
    """Return a file's descriptor with read() -> its lines so far."""
    path = tmp_path / "log"

    class Log:
        fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

        def read(self):
            return path.read_text().splitlines()

    yield Log()
    os.close(Log.fd)


@pytest.fixture
def writes(monkeypatch):
    """Return the list of what os.write was called with from now on."""
    seen = []
    real = os.write

    def recorded(fd, data):
        seen.append(bytes(data))
        return real(fd, data)

    monkeypatch.setattr(os, "write", recorded)
    return seen


def fail():
    raise ValueError("bad\ninput")


# --- setup ---


def test_a_plain_record_has_time_level_role_and_message(log):
    setup("processor 0.3", stream_fd=log.fd)
    logging.getLogger("users.own").warning("low on %s", "paper")
    (line,) = log.read()
    time, rest = line.split(" ", 1)
    moment = datetime.fromisoformat(time)
    assert moment.tzinfo is not None
    assert abs(moment.timestamp() - datetime.now().astimezone().timestamp()) < 3600
    assert rest == "WARNING processor 0.3: low on paper"


def test_a_record_is_one_write_traceback_included(log, writes):
    setup("fetcher 0", stream_fd=log.fd)
    try:
        fail()
    except ValueError:
        USER.exception("failed")
    (data,) = writes
    assert data.decode().splitlines() == log.read()
    assert log.read()[0].endswith(" ERROR   fetcher 0: failed")
    assert log.read()[1] == "Traceback (most recent call last):"
    assert data.endswith(b"\ninput\n")


def test_the_level_counts_and_a_wrong_one_is_an_error(log):
    setup("x", stream_fd=log.fd, level="WARNING")
    USER.info("dropped")
    USER.warning("kept")
    assert [line.split(": ")[1] for line in log.read()] == ["kept"]
    with pytest.raises(ValueError, match="LOUD"):
        setup("x", stream_fd=log.fd, level="LOUD")


def test_a_second_set_up_and_basic_config_do_not_double_the_lines(log, root):
    setup("x", stream_fd=log.fd)
    setup("y", stream_fd=log.fd)
    logging.basicConfig(stream=sys.stdout)
    USER.info("once")
    assert len(root.handlers) == 1
    assert [line.rpartition(" ")[0].split(" ", 1)[1] for line in log.read()] == ["INFO    y:"]


def test_warnings_become_records(log):
    setup("x", stream_fd=log.fd)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings has put back the function that logging had replaced.
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert "WARNING x: " in log.read()[0]
    assert "DeprecationWarning: old thing" in log.read()[0]


def test_a_wrong_format_string_fails_nobody(log, capsys):
    setup("x", stream_fd=log.fd)
    USER.info("%d", "no number")
    USER.info("next")
    assert "Logging error" in capsys.readouterr().err
    assert log.read()[0].endswith("next")


def test_text_that_is_no_unicode_is_written(log):
    setup("x", stream_fd=log.fd)
    USER.info("\udcff")
    assert log.read()[0].endswith("\\udcff")


@pytest.mark.parametrize("encoding", ["plain", "json"])
def test_a_record_is_bounded(log, encoding):
    setup("x", stream_fd=log.fd, encoding=encoding)
    USER.info("a%sz", "b" * 1_000_000)
    text = "\n".join(log.read())
    assert len(text) < 2 * logs.TEXT_MAX
    if encoding == "json":
        text = json.loads(text)["message"]
    assert "a" + "b" * 1000 in text
    assert "bz" in text
    assert f"{1_000_002 - logs.TEXT_MAX} characters left out" in text


def test_to_a_pipe_a_long_record_goes_in_parts_that_end_at_line_ends(writes):
    reader, writer = os.pipe()
    try:
        setup("x", stream_fd=writer)
        lines = [str(number) * 30 for number in range(200)] + ["w" * 5000, "end"]
        USER.info("\n".join(lines))
        received = os.read(reader, 1 << 16)
    finally:
        os.close(reader)
        os.close(writer)
    assert received == b"".join(writes)
    assert received.decode().splitlines()[1:] == lines[1:]
    assert all(part.endswith(b"\n") for part in writes)
    assert len(writes) < 20
    # Only the line that no pipe takes whole is longer.
    assert [len(part) for part in writes if len(part) > 4096] == [5001]


def test_a_descriptor_that_takes_part_of_it_gets_the_rest(log, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
    setup("x", stream_fd=log.fd)
    USER.info("a longer line")
    assert log.read()[0].endswith("INFO    x: a longer line")


def test_a_reader_that_is_gone_and_a_closed_descriptor_fail_nobody():
    reader, writer = os.pipe()
    setup("x", stream_fd=writer)
    os.close(reader)
    USER.info("nobody reads this")
    os.close(writer)
    USER.info("nor this")
    setup("x", stream_fd=writer)
    USER.info("nor that")


def test_a_full_pipe_that_does_not_block_drops_the_record(monkeypatch):
    monkeypatch.setattr(logs, "WRITE_WAIT_S", 0.0)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        setup("x", stream_fd=writer)
        for _ in range(100):
            USER.info("x" * 2000)
        os.read(reader, 1 << 20)
        USER.info("there is room again")
        assert os.read(reader, 1 << 20).endswith(b"there is room again\n")
    finally:
        os.close(reader)
        os.close(writer)


def test_lines_of_several_processes_never_tangle(tmp_path):
    path = tmp_path / "log"
    code = """
import logging, sys
from kqmp.obs.logs import setup
setup(sys.argv[1])
for number in range(300):
    logging.info("%s", "\\n".join([sys.argv[1] * 40] * 20))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with path.open("ab") as file:
        children = [
            subprocess.Popen([sys.executable, "-c", code, name], stderr=file, env=environment)
            for name in "ab"
        ]
    assert [child.wait() for child in children] == [0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 2 * 300 * 20
    for start in range(0, len(lines), 20):
        first, *rest = lines[start : start + 20]
        name = first[-1]
        assert first.endswith(f"INFO    {name}: {name * 40}")
        assert set(rest) == {name * 40}


# --- relay ---


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def program():
    """Return a program's logger, whose handler keeps the records."""
    logger = logging.Logger("program", logging.INFO)  # noqa: LOG001 - registered nowhere
    handler = Kept()
    logger.addHandler(handler)
    logger.records = handler.records
    return logger


def test_a_record_comes_through_json_as_it_was(log, root, program):
    setup("processor 0.3", stream_fd=log.fd, encoding="json", level="DEBUG")
    sent = Kept()
    root.addHandler(sent)
    try:
        fail()
    except ValueError:
        logging.getLogger("users.own").exception("100%% of %s\nfailed", "naïve")
    logging.getLogger("users.own").debug("unwanted")
    for line in log.read():
        relay(line.encode() + b"\n", program)
    (got,) = program.records
    original = sent.records[0]
    assert got.getMessage() == original.getMessage() == "100% of naïve\nfailed"
    for field in ("name", "levelno", "levelname", "created", "pathname", "lineno", "process"):
        assert getattr(got, field) == getattr(original, field), field
    assert (got.funcName, got.filename) == (original.funcName, original.filename)
    assert got.msecs == pytest.approx(original.msecs, abs=1)
    assert (got.processName, got.role) == ("processor 0.3", "processor 0.3")
    shown = logging.Formatter("%(levelname)s %(message)s").format(got)
    assert shown.startswith("ERROR 100% of naïve\nfailed\nTraceback (most recent call last):\n")
    assert shown.endswith("ValueError: bad\ninput")


def test_json_has_the_fields_of_a_log_collector(log):
    setup("fetcher 0", stream_fd=log.fd, encoding="json")
    USER.info("hello", stack_info=True)
    fields = json.loads(log.read()[0])
    assert {"time", "level", "role", "message"} <= fields.keys()
    assert (fields["level"], fields["role"], fields["message"]) == ("INFO", "fetcher 0", "hello")
    assert fields["exc_text"].startswith("Stack (most recent call last):")


@pytest.mark.parametrize(
    "line",
    [
        b"Fatal Python error: Segmentation fault\n",
        b"\xff\xfe\n",
        b"{}\n",
        b"[1, 2]\n",
        b'{"name": "x", "levelno": "high"}\n',
        b"5",
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_record_is_a_warning(line, program):
    relay(line, program)
    (record,) = program.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == line.decode("utf-8", "backslashreplace").rstrip()


def test_an_empty_line_is_nothing(program):
    relay(b"\n", program)
    assert program.records == []


# --- rate limit ---


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def messages(logger):
    found = [record.getMessage() for record in logger.records]
    logger.records.clear()
    return found


def test_the_first_of_an_interval_are_admitted_and_the_others_counted(program, clock):
    limited = RateLimited(program, limit=2, interval_s=60, clock=clock)
    assert [limited.admit("ValueError") for _ in range(5)] == [True, True, False, False, False]
    assert limited.admit("KeyError")
    clock.now_s += 59.9
    assert not limited.admit("ValueError")
    limited.report_ended()
    assert messages(program) == []
    clock.now_s += 0.1
    assert limited.admit("ValueError")
    assert messages(program) == ["suppressed 4 similar records in 60 s: ValueError"]
    assert [limited.admit("ValueError") for _ in range(2)] == [True, False]


def test_what_was_suppressed_is_reported_without_another_record(program, clock):
    limited = RateLimited(program, limit=1, interval_s=60, clock=clock)
    for kind in ("a", "a", "b"):
        limited.admit(kind)
    clock.now_s += 30
    for kind in ("c", "c", "c"):
        limited.admit(kind)
    clock.now_s += 30
    limited.report_ended()
    assert messages(program) == ["suppressed 1 similar records in 60 s: a"]
    limited.report_all()
    assert messages(program) == ["suppressed 2 similar records in 30 s: c"]
    limited.report_all()
    limited.report_ended()
    assert messages(program) == []


def test_the_table_of_kinds_is_bounded(program, clock):
    limited = RateLimited(program, limit=1, kinds_max=10, clock=clock)
    for number in range(1000):
        assert limited.admit(f"kind {number}")
        assert not limited.admit(f"kind {number}")
    assert len(limited._windows) == 10
    assert len(messages(program)) == 990
    limited.report_all()
    assert messages(program)[-1].endswith(": kind 999")


# --- failures ---


def failure(call, *arguments, key=b"k"):
    try:
        call(*arguments)
    except Exception as error:  # noqa: BLE001 - as the processor does
        return failure_text("images", 3, 1234, key, error)
    raise AssertionError("did not fail")


def test_a_failure_says_where_and_shows_the_users_lines(tmp_path):
    module = tmp_path / "mqs.py"
    module.write_text("def consume(key: str, value):\n    return 1 / len(value)\n")
    scope = {}
    exec(compile(module.read_text(), module, "exec"), scope)
    handler = wrap(scope["consume"], parse_target("mqs:consume"))
    first, *rest = failure(handler.call, b"k", b"").splitlines()
    assert first == (
        "handler failed: topic images partition 3 offset 1234 key 'k':"
        " ZeroDivisionError: division by zero"
    )
    assert rest[0] == "Traceback (most recent call last):"
    assert f'  File "{module}", line 2, in consume' in rest
    assert rest[-1] == "ZeroDivisionError: division by zero"
    assert "kqmp/handler" not in "\n".join(rest)


def test_a_failure_of_the_conversion_has_no_lines_of_ours(tmp_path):
    handler = wrap(annotated, parse_target("mqs:consume"))
    try:
        handler.call(b"\xff", None)
    except UnicodeDecodeError as error:
        # As the processor calls it: without a frame of this test.
        error.__traceback__ = error.__traceback__.tb_next
        text = failure_text("images", 3, 1234, b"\xff", error)
    assert text.startswith(
        "handler failed: topic images partition 3 offset 1234 key b'\\xff':"
        " UnicodeDecodeError: 'utf-8' codec can't decode"
    )
    assert "\n" not in text


def annotated(key: str, value):
    return key


def test_causes_and_groups_are_shown():
    def chained():
        try:
            fail()
        except ValueError as error:
            raise ExceptionGroup("several", [KeyError("a")]) from error

    text = failure(chained)
    assert text.splitlines()[0].endswith(": ExceptionGroup: several (1 sub-exception)")
    assert "in fail" in text
    assert "The above exception was the direct cause" in text
    assert "KeyError: 'a'" in text


def test_a_failure_is_bounded_and_its_first_line_is_one():
    def huge():
        raise ValueError("first\nsecond " + "x" * 1_000_000)

    text = failure(huge)
    assert len(text) < logs.TEXT_MAX + 100
    assert ": ValueError: first second xxx" in text.splitlines()[0]
    assert len(text.splitlines()[0]) < 2 * logs.SUMMARY_MAX


def test_endless_recursion_is_bounded():
    def down(number):
        return up(number + 1)

    def up(number):
        return down(number)

    text = failure(down, 0)
    assert text.count("  File ") <= logs.FRAMES_MAX
    assert "RecursionError" in text


def test_an_exception_that_cannot_be_shown_is_shown_somehow():
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def silent():
        raise Silent

    assert "Silent: <exception str() failed>" in failure(silent)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (None, "none"),
        (b"", "''"),
        (b"order-1", "'order-1'"),
        ("grün".encode(), "'grün'"),
        (b"line\nbreak", "b'line\\nbreak'"),
        (b"\x00\xff", "b'\\x00\\xff'"),
        (b"\x1b[31mred", "b'\\x1b[31mred'"),
        (b"k" * 64, repr("k" * 64)),
        (b"k" * 65, repr("k" * 64) + "... (65 bytes)"),
        (b"k" * 63 + "ü".encode() * 9, repr("k" * 63) + "... (81 bytes)"),
        (b"k" * 62 + b"\xff" * 9, repr(b"k" * 62 + b"\xff\xff") + "... (71 bytes)"),
    ],
)
def test_a_key_is_shown_escaped_and_short(key, shown):
    assert logs.shown_key(key) == shown
    assert f" key {shown}: ValueError: bad input\n" in failure(fail, key=key)


def test_the_frames_of_others_are_all_there():
    shown = failure(fail)
    assert traceback.format_list(traceback.extract_stack())[-1].split(",")[0] in shown
