"""Each process writes into a pipe of its own; whole lines come out, whoever dies or is slow."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqmp.roles import pipes
from kqmp.roles.pipes import PipeReader, StderrPipes

pytestmark = pytest.mark.engine


class Rig:
    """Both sides in one process."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.reader = PipeReader(self.lines.append)
        self.maker = StderrPipes(os.dup(self.reader.theirs.fileno()))
        self.reader.theirs.close()

    def close(self) -> None:
        self.reader.close()
        self.maker._socket.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def test_lines_of_several_processes_never_tangle(rig: Rig) -> None:
    first, second = rig.maker(), rig.maker()
    os.write(first, b"one, ")
    os.write(second, b"a whole one\nand ")
    rig.reader.read()
    assert rig.lines == [b"a whole one"]
    os.write(first, b"finished\n")
    os.write(second, b"another\n")
    rig.reader.read()
    assert sorted(rig.lines) == [b"a whole one", b"and another", b"one, finished"]
    os.close(first)
    os.close(second)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.integers(1, 400))
def test_what_goes_in_comes_out_cut_at_line_ends(parts, cut):
    rig = Rig()
    try:
        fd = rig.maker()
        data = b"".join(parts)
        for start in range(0, len(data), cut):
            os.write(fd, data[start : start + cut])
            rig.reader.read()
        os.close(fd)
        rig.reader.drain(1.0)
        assert rig.lines == [line for line in data.split(b"\n") if line]
        assert len(rig.reader.fds()) == 1
    finally:
        rig.close()


def test_a_line_without_an_end_is_told_at_the_end_of_its_process(rig: Rig) -> None:
    fd = rig.maker()
    os.write(fd, b"last words")
    rig.reader.read()
    assert rig.lines == []
    os.close(fd)
    rig.reader.read()
    assert rig.lines == [b"last words"]


def test_a_line_without_an_end_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "LINE_MAX", 1000)
    fd = rig.maker()
    for _ in range(10):
        os.write(fd, b"x" * 400)
        rig.reader.read()
    os.close(fd)
    rig.reader.drain(1.0)
    assert b"".join(rig.lines) == b"x" * 4000
    assert max(map(len, rig.lines)) <= 1400


def test_a_program_that_is_gone_blocks_nobody() -> None:
    rig = Rig()
    before = rig.maker()
    rig.reader.close()
    after = rig.maker()
    for fd in (before, after):
        with pytest.raises(BrokenPipeError):
            os.write(fd, b"nobody hears\n")
        os.close(fd)
    rig.close()


def test_a_writer_that_stays_is_not_waited_for(rig: Rig) -> None:
    fd = rig.maker()
    os.write(fd, b"a line\n")
    rig.reader.read()
    rig.reader.drain(0.0)
    assert rig.lines == [b"a line"]
    os.close(fd)
