"""The status line stays at the foot of the terminal, and touches nothing that others write."""

import os
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqmp.obs.status import LiveLine
from tests.support.terminal import Screen

TERMINAL = {"TERM": "xterm"}


class Rig:
    """A status line whose writes go to a screen, and somebody else who writes there too."""

    def __init__(self, columns: int = 40, rows: int = 8, env: dict[str, str] | None = None) -> None:
        self.screen = Screen(columns, rows)
        self.line = LiveLine(-1, env or TERMINAL)
        self.line.is_possible = True
        self.raw = ""
        self.line._size = lambda: (self.screen.columns, self.screen.rows)  # type: ignore[method-assign]
        self.line._write = self._write  # type: ignore[method-assign]

    def _write(self, text: str) -> None:
        self.raw += text
        self.screen.feed(text)

    def print(self, text: str) -> None:
        self.screen.feed(text + "\r\n")


@given(
    st.lists(
        st.one_of(st.integers(1, 12).map(lambda n: ["line"] * n), st.just(["status"])), max_size=30
    )
)
def test_what_others_write_is_never_touched(steps):
    rig = Rig()
    printed = []
    shown = None
    for step in chain.from_iterable(steps):
        if step == "line":
            # Of many lengths, none wider than the terminal.
            text = f"{len(printed)}-" + "x" * (len(printed) % 35)
            printed.append(text)
            rig.print(text)
        else:
            shown = f"status {len(printed)}"
            rig.line.show(shown)
        assert shown is None or rig.screen.lines[-1].rstrip() == shown
    written = rig.screen.written()
    assert written == printed + ([shown] if shown else [])
    rig.line.hide()
    assert rig.screen.written() == printed
    for number in range(20):
        rig.print(f"after {number}")
    assert rig.screen.written() == printed + [f"after {number}" for number in range(20)]


def test_a_line_without_its_end_stays_where_it_is():
    rig = Rig()
    rig.screen.feed("half a li")
    rig.line.show("status")
    rig.screen.feed("ne\r\n")
    assert rig.screen.written() == ["half a line", "status"]


def test_a_larger_terminal_gets_the_line_at_its_new_foot():
    rig = Rig(rows=8)
    for number in range(20):
        rig.print(f"line {number}")
    rig.line.show("status 1")
    rig.screen.grow(12)
    rig.line.show("status 2")
    for number in range(20, 40):
        rig.print(f"line {number}")
    rig.line.show("status 3")
    assert rig.screen.lines[-1] == "status 3"
    assert rig.screen.written() == [*(f"line {number}" for number in range(40)), "status 3"]


def test_a_long_line_is_cut():
    rig = Rig(columns=30)
    rig.line.show("s" * 200)
    assert rig.screen.lines[-1] == "s" * 29
    assert rig.screen.history == []


@pytest.mark.parametrize(
    ("env", "bold"), [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)]
)
def test_no_color_is_honoured(env, bold):
    rig = Rig(env={**TERMINAL, **env})
    rig.line.show("status")
    assert ("\x1b[1m" in rig.raw) is bold


def test_one_drawing_is_one_small_write():
    rig = Rig(columns=200)
    writes = []
    rig.line._write = writes.append
    rig.line.show("s" * 300)
    rig.line.show("s" * 300)
    assert len(writes) == 2
    assert max(map(len, writes)) < 300


@pytest.mark.parametrize("env", [{}, {"TERM": ""}, {"TERM": "dumb"}])
def test_a_terminal_that_cannot_gets_nothing(env):
    master, slave = os.openpty()
    try:
        assert not LiveLine(slave, env).is_possible
        assert LiveLine(slave, TERMINAL).is_possible
    finally:
        os.close(master)
        os.close(slave)


def test_no_terminal_gets_nothing():
    read_fd, write_fd = os.pipe()
    line = LiveLine(write_fd, TERMINAL)
    line.show("status")
    line.hide()
    os.close(write_fd)
    assert os.read(read_fd, 100) == b""
    os.close(read_fd)


def test_a_terminal_that_is_not_ours_gets_nothing():
    """As in the background of a shell: this terminal does not control us."""
    master, slave = os.openpty()
    try:
        line = LiveLine(slave, TERMINAL)
        line.show("status")
        line.hide()
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 100)
    finally:
        os.close(master)
        os.close(slave)


def test_a_closed_descriptor_is_no_error():
    line = LiveLine(-1, TERMINAL)
    assert not line.is_possible
    line.is_possible = True
    line.show("status")
    line.hide()
