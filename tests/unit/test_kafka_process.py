"""scripts/kafka_process.py: only the very process that was started is ever signalled."""

import os
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.kafka import cluster_module

cluster_module()
# A neighbour of kafka_cluster, which can be imported once that is loaded.
kafka_process = import_module("kafka_process")

ProcessId = kafka_process.ProcessId
kill_all = kafka_process.kill_all
launch_detached = kafka_process.launch_detached
launch_tied = kafka_process.launch_tied
stop_all = kafka_process.stop_all

#: Its first thread ends, another goes on.
HEADLESS = [
    sys.executable,
    "-c",
    "import ctypes, threading, time\n"
    "threading.Thread(target=time.sleep, args=(300,)).start()\n"
    "ctypes.CDLL(None).pthread_exit(None)",
]
SLEEP = ["sleep", "300"]
DEAF = [
    sys.executable,
    "-c",
    "import signal as s; s.signal(15, s.SIG_IGN); print(1, flush=True)\ns.pause()",
]


def test_a_process_is_told_from_another_with_the_same_pid(tmp_path: Path):
    process = launch_detached(SLEEP, tmp_path / "pid", tmp_path / "log")
    other_start = ProcessId(process.pid, process.start_ticks - 1, process.boot_id)
    other_boot = ProcessId(process.pid, process.start_ticks, "another-boot")
    try:
        assert process.is_running()
        for stranger in (other_start, other_boot):
            assert not stranger.is_running()
            assert stranger.wait_gone(0)
            kill_all([stranger])
        assert process.is_running()
    finally:
        kill_all([process])
    assert not process.is_running()


def test_the_child_puts_itself_on_record_with_the_same_identity(tmp_path: Path):
    log = tmp_path / "log"
    process = launch_detached(["sh", "-c", "cat pid; pwd"], tmp_path / "pid", log)
    assert process.wait_gone(30)
    written = f"{process.pid} {process.start_ticks} {process.boot_id}"
    assert log.read_text().splitlines() == [written, str(tmp_path)]
    assert ProcessId.read(tmp_path / "pid") == process


@pytest.mark.parametrize("text", ["", "12", "a b c", "1 2 3 4"])
def test_a_record_that_is_not_whole_names_nobody(tmp_path: Path, text: str):
    (tmp_path / "pid").write_text(text)
    assert ProcessId.read(tmp_path / "pid") is None
    assert ProcessId.read(tmp_path / "absent") is None


def test_dead_and_undead_processes_do_not_run():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    undead = ProcessId.of(child.pid)
    assert undead is not None
    assert not undead.is_running()
    child.wait()
    assert not undead.is_running()
    assert ProcessId.of(child.pid) is None


def test_a_process_runs_while_any_of_its_threads_does(tmp_path: Path):
    process = launch_detached(HEADLESS, tmp_path / "pid", tmp_path / "log")
    try:
        # The state is "Z" as soon as the first thread has ended.
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert process.is_running()
        assert process.is_running()
        assert not process.wait_gone(0)
    finally:
        kill_all([process])
    assert not process.is_running()


def test_stop_asks_first_and_kills_the_deaf(tmp_path: Path):
    polite = launch_detached(SLEEP, tmp_path / "a", tmp_path / "a.log")
    deaf = launch_detached(DEAF, tmp_path / "b", tmp_path / "b.log")
    while (tmp_path / "b.log").read_text() != "1\n":
        assert not deaf.wait_gone(0.01)
    stop_all([polite, deaf], term_timeout_s=0.2)
    assert not polite.is_running()
    assert not deaf.is_running()
    stop_all([polite, deaf], term_timeout_s=0.2)


def test_a_command_that_does_not_exist_is_gone_at_once(tmp_path: Path):
    process = launch_detached(["no-such-program"], tmp_path / "pid", tmp_path / "log")
    assert process.wait_gone(30)
    assert "no-such-program" in (tmp_path / "log").read_text()


def test_no_foreign_descriptor_reaches_the_child(tmp_path: Path):
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    process = launch_detached(SLEEP, tmp_path / "pid", tmp_path / "log")
    os.close(write_end)
    try:
        # The end of the file comes only when nobody holds the other end any more.
        assert os.read(read_end, 1) == b""
    finally:
        os.close(read_end)
        kill_all([process])


PARENT = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import kafka_process
launch = getattr(kafka_process, sys.argv[2])
directory = Path(sys.argv[3])
process = launch(["sleep", "300"], directory / "pid", directory / "log")
while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\\n":
    pass
os.kill(os.getpid(), 9)
"""


def launched_by_a_parent_that_is_killed(name: str, directory: Path) -> Any:
    scripts = str(Path(str(kafka_process.__file__)).parent)
    command = [sys.executable, "-c", PARENT, scripts, name, str(directory)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    process = ProcessId.read(directory / "pid")
    assert process is not None
    return process


def test_a_tied_process_dies_with_its_parent(tmp_path: Path):
    assert launched_by_a_parent_that_is_killed("launch_tied", tmp_path).wait_gone(30)


def test_a_detached_process_outlives_its_parent(tmp_path: Path):
    process = launched_by_a_parent_that_is_killed("launch_detached", tmp_path)
    try:
        assert process.is_running()
        assert os.getsid(process.pid) == process.pid
    finally:
        kill_all([process])


def test_a_tied_process_outlives_the_thread_that_asked_for_it(tmp_path: Path):
    started: list[Any] = []

    def start() -> None:
        started.append(launch_tied(SLEEP, tmp_path / "pid", tmp_path / "log"))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    try:
        # The death signal would have come with the thread's end, before join returned.
        assert not started[0].wait_gone(0.1)
    finally:
        kill_all(started)
