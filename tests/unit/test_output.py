"""A pipe without a reader is noticed; files, terminals and living readers are left alone."""

import logging
import os

import pytest

from kqmp.obs.output import OutputWatch
from kqmp.obs.repeats import Repeats


def test_a_reader_that_leaves_is_noticed():
    read_fd, write_fd = os.pipe()
    watch = OutputWatch((write_fd,))
    assert not watch.is_gone()
    os.write(write_fd, b"unread")
    assert not watch.is_gone()
    os.close(read_fd)
    assert watch.is_gone()
    os.close(write_fd)


def test_what_is_no_pipe_is_never_gone(tmp_path):
    master, slave = os.openpty()
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    watch = OutputWatch((slave, file, -1))
    os.close(master)
    assert not watch.is_gone()
    os.close(slave)
    os.close(file)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    logger = logging.getLogger("test.repeats")
    repeats = Repeats(logging.getLogger("test.report"))
    logger.addFilter(repeats)
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeFilter(repeats)


def test_texts_that_differ_in_numbers_are_of_one_kind(said):
    logger = logging.getLogger("test.repeats")
    for number in range(100):
        logger.warning("127.0.0.1:%d: refused (after %d ms)", number, number)
    logger.warning("something else")
    assert said() == [f"127.0.0.1:{n}: refused (after {n} ms)" for n in range(3)] + [
        "something else"
    ]


def test_what_librdkafka_says_twice_is_said_once(said):
    logging.getLogger("test.repeats").error("FAIL [client#consumer-1] [thrd:a]: a: refused")
    assert said() == []
