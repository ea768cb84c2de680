"""Standard output of commands whose reader may go away."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kqmp.cli.stdout import ReaderGone, Stdout


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def test_all_is_written(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    out = Stdout(writing)
    assert not out.is_terminal
    assert not out.has_color
    out.write(b"raw\xff\n")
    out.lines(["caf\u00e9", "lone \udcff"])
    out.check()
    assert os.read(reading, 100) == b"raw\xff\n" + "caf\u00e9\nlone \\udcff\n".encode()


def test_a_reader_that_is_gone_is_noticed(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    out = Stdout(writing)
    os.close(reading)
    with pytest.raises(ReaderGone):
        out.check()
    with pytest.raises(ReaderGone):
        out.write(b"x")


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(SystemExit) as caught:
            Stdout(full).write(b"x")
    finally:
        os.close(full)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: cannot write the output: No space left on device\n"


def test_a_closed_descriptor_is_no_place_for_a_connection(pipe: tuple[int, int]) -> None:
    _, writing = pipe
    os.close(writing)
    Stdout(writing).write(b"x")
    assert Path(f"/proc/self/fd/{writing}").readlink() == Path("/dev/null")


def test_a_terminal_has_color_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    try:
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert Stdout(slave).has_color
        monkeypatch.setenv("NO_COLOR", "1")
        assert Stdout(slave).is_terminal
        assert not Stdout(slave).has_color
    finally:
        os.close(master)
        os.close(slave)
