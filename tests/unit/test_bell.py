import os
import select

import pytest

from kqmp.ring import bell


@pytest.fixture
def fd():
    fd = bell.create()
    yield fd
    os.close(fd)


def rings(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def test_a_bell_is_silent_until_it_is_rung_and_after_it_was_cleared(fd):
    assert not rings(fd)
    bell.ring(fd)
    assert rings(fd)
    bell.clear(fd)
    assert not rings(fd)


def test_many_rings_are_cleared_at_once(fd):
    for _ in range(5):
        bell.ring(fd)
    bell.clear(fd)
    assert not rings(fd)


def test_clearing_a_silent_bell_returns_at_once(fd):
    bell.clear(fd)
    bell.clear(fd)
    assert not rings(fd)


def test_ringing_a_bell_whose_counter_is_full_returns_at_once(fd):
    os.eventfd_write(fd, 2**64 - 2)
    bell.ring(fd)
    assert rings(fd)


def test_a_bell_never_blocks_and_closes_on_exec(fd):
    assert not os.get_blocking(fd)
    assert not os.get_inheritable(fd)


def test_a_ring_reaches_a_copy_of_the_descriptor(fd):
    copy = os.dup(fd)
    bell.ring(copy)
    assert rings(fd)
    os.close(copy)
