"""Lines of pipes and files, and signals that end the reading."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kqmp.cli import blocks
from kqmp.cli.blocks import StopRequests, line_blocks, whole
from kqmp.errors import ConfigError


@pytest.fixture
def stop() -> Iterator[StopRequests]:
    with StopRequests() as requests:
        yield requests


def lines_of(path: Path, data: bytes, stop: StopRequests) -> list[bytes]:
    path.write_bytes(data)
    with path.open("rb") as file:
        found = line_blocks(file.fileno(), "f", stop, 1.0)
        return [line for block in found for line in block]


@pytest.mark.parametrize("block_bytes", [1, 3, 1000])
def test_lines_do_not_depend_on_how_they_are_read(
    tmp_path: Path, stop: StopRequests, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "f"
    assert lines_of(path, b"one\n\nthree \r\nlast\xff", stop) == [
        b"one",
        b"",
        b"three \r",
        b"last\xff",
    ]
    assert lines_of(path, b"one\n", stop) == [b"one"]
    assert lines_of(path, b"\n", stop) == [b""]
    assert lines_of(path, b"", stop) == []


def test_a_pipe_gives_what_it_has_and_nothing_while_it_has_none(stop: StopRequests) -> None:
    reader, writer = os.pipe()
    found = line_blocks(reader, "stdin", stop, 0.0)
    assert next(found) == []
    os.write(writer, b"a\nb")
    assert next(found) == [b"a"]
    os.close(writer)
    assert list(found) == [[b"b"]]
    os.close(reader)


def test_a_signal_ends_the_reading_and_drops_an_unfinished_line(stop: StopRequests) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a\nunfinished")
    found = line_blocks(reader, "stdin", stop, 60.0)
    assert next(found) == [b"a"]
    os.kill(os.getpid(), signal.SIGTERM)
    assert not stop.wait_for_input(reader, 60.0)
    assert list(found) == []
    assert whole(reader, "stdin", stop) is None
    assert (stop.count, stop.signal) == (1, signal.SIGTERM)
    os.close(reader)
    os.close(writer)


def test_what_is_no_text_is_refused_before_it_fills_the_memory(
    tmp_path: Path, stop: StopRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "LINE_BYTES_MAX", 10)
    with pytest.raises(ConfigError, match="f: a line is longer than"):
        lines_of(tmp_path / "f", b"short\n" + b"x" * 11, stop)
    with (tmp_path / "f").open("rb") as file, pytest.raises(ConfigError, match="f: larger than"):
        whole(file.fileno(), "f", stop)


def test_what_cannot_be_read_is_said(tmp_path: Path, stop: StopRequests) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ConfigError, match="d: cannot be read: Is a directory"):
        next(line_blocks(fd, "d", stop, 1.0))
    os.close(fd)
