"""The check for leaks is itself checked: each thing that may be left behind is seen."""

import os
import select
import socket
import subprocess
import sys
import threading

import psutil

from tests.support import leaks


def found_after(before: leaks.Snapshot) -> leaks.Leaks:
    return leaks.compare(before, leaks.snapshot())


def test_nothing_left_is_no_leak() -> None:
    before = leaks.snapshot()
    assert not found_after(before)
    assert not leaks.wait_until_clean(before, grace_s=0)


def test_descriptors_are_seen_by_kind() -> None:
    before = leaks.snapshot()
    left, right = socket.socketpair()
    memory = os.memfd_create("lane")
    bell = os.eventfd(0)
    poll = select.epoll()
    try:
        found = found_after(before)
    finally:
        for thing in (left, right, poll):
            thing.close()
        os.close(memory)
        os.close(bell)
    assert dict(found.descriptors) == {"Unix socket": 2, "memfd": 1, "eventfd": 1, "eventpoll": 1}
    assert not found_after(before)


def test_network_sockets_and_few_pipes_belong_to_clients_of_the_session() -> None:
    before = leaks.snapshot()
    with socket.socket(socket.AF_INET):
        pipe = os.pipe()
        assert not found_after(before)
        many = [os.pipe() for _ in range(leaks.PIPE_SLACK)]
        found = found_after(before)
    for end in (*pipe, *(end for pair in many for end in pair)):
        os.close(end)
    assert dict(found.descriptors) == {"pipe": 2 + 2 * leaks.PIPE_SLACK}


def test_a_thread_is_seen() -> None:
    before = leaks.snapshot()
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="left-behind")
    thread.start()
    try:
        assert found_after(before).threads == ["left-behind"]
    finally:
        gate.set()
        thread.join()


def test_an_orphan_of_a_killed_child_is_seen_and_named() -> None:
    before = leaks.snapshot()
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', 'orphan'],\n"
        "                     stdout=subprocess.DEVNULL)\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        orphan = psutil.Process(int(child.stdout.readline()))
        child.kill()
    found = found_after(before)
    try:
        assert found.processes == [orphan]
        assert "orphan" in str(found)
    finally:
        leaks.kill_all(found.processes)
    assert not leaks.wait_until_clean(before)
    leaks.reap_adopted()
    assert not orphan.is_running()
