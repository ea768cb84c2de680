"""librdkafka's mock cluster in a process of its own: a broker for `kqmp demo`, with no install.

The cluster is one thread of librdkafka, reached through ctypes in the very library that
confluent_kafka has loaded, since the properties it offers for it (`test.mock.num.brokers`) can
set neither partitions nor the delay of the first rebalance. It proves nothing about Kafka; its
traps, read in rdkafka_mock*.c of librdkafka 2.16 and tried:

- each partition keeps 5 MiB and 100,000 record batches and drops the oldest without a word:
  produce compressed over many partitions, and compare `topic_bounds` with what was produced;
- an empty fetch always sleeps the whole `fetch.wait.max.ms`: set it low;
- a rebalance of a live classic group lasts the session timeout less a second: set that low;
- two members whose first assignors differ abort the hosting process: hence the own process;
- no administration, no TLS or SASL, no static members, no read_committed.
"""

import ctypes
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import confluent_kafka as ck

from kqmp.errors import WorkerStartError

#: What the mock keeps of one partition, in (compressed) bytes and in record batches.
RETENTION_BYTES: Final = 5 << 20
RETENTION_BATCHES: Final = 100_000
#: How long the hosting process may take to start and to end.
START_S: Final = 30.0
END_S: Final = 5.0

_POINTER: Final = ctypes.c_void_p
_TEXT: Final = ctypes.c_char_p
_INT: Final = ctypes.c_int
#: Without prototypes ctypes would cut pointers to 32 bits.
_PROTOTYPES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "rd_kafka_conf_new": (_POINTER, ()),
    "rd_kafka_conf_set": (_INT, (_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t)),
    "rd_kafka_new": (_POINTER, (_INT, _POINTER, _TEXT, ctypes.c_size_t)),
    "rd_kafka_destroy": (None, (_POINTER,)),
    "rd_kafka_err2str": (_TEXT, (_INT,)),
    "rd_kafka_mock_cluster_new": (_POINTER, (_POINTER, _INT)),
    "rd_kafka_mock_cluster_destroy": (None, (_POINTER,)),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, (_POINTER,)),
    "rd_kafka_mock_topic_create": (_INT, (_POINTER, _TEXT, _INT, _INT)),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (_POINTER, ctypes.c_int32)),
}
_RD_KAFKA_PRODUCER: Final = 0
_RD_KAFKA_CONF_OK: Final = 0


class MockCluster:
    """A cluster of one broker on 127.0.0.1, in this process. `close` it on the same thread.

    Caller: the hosting process; a failed assertion of the mock ends it.
    """

    def __init__(self, rebalance_delay_ms: int = 0) -> None:
        """Start the broker.

        Args:
            rebalance_delay_ms: how long a new group waits for more members, >= 0 (Kafka's
                `group.initial.rebalance.delay.ms`, there and in the mock 3,000 by default).

        Raises:
            WorkerStartError: this librdkafka has no mock cluster, or cannot start it.
        """
        self._call = _functions()
        text = ctypes.create_string_buffer(512)
        conf = self._call["rd_kafka_conf_new"]()
        # The handle only carries the cluster: it would warn that it has no brokers to go to.
        if self._call["rd_kafka_conf_set"](conf, b"log_level", b"2", text, 512):
            raise WorkerStartError(f"librdkafka: {text.value.decode()}")
        self._handle = self._call["rd_kafka_new"](_RD_KAFKA_PRODUCER, conf, text, 512)
        if not self._handle:
            raise WorkerStartError(f"librdkafka: {text.value.decode()}")
        self._cluster = self._call["rd_kafka_mock_cluster_new"](self._handle, 1)
        if not self._cluster:
            raise WorkerStartError("librdkafka could not start its mock cluster")
        self._call["rd_kafka_mock_group_initial_rebalance_delay_ms"](
            self._cluster, rebalance_delay_ms
        )
        #: host:port for `bootstrap.servers`.
        self.bootstrap: str = self._call["rd_kafka_mock_cluster_bootstraps"](self._cluster).decode()

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic; one that clients just name gets 4 partitions.

        Raises:
            WorkerStartError: there is one of that name, or `partitions` < 1.
        """
        code = self._call["rd_kafka_mock_topic_create"](self._cluster, name.encode(), partitions, 1)
        if code or partitions < 1:
            # It takes 0 partitions, a topic that no client can use.
            reason = self._call["rd_kafka_err2str"](code).decode() if code else "0 partitions"
            raise WorkerStartError(f"mock cluster: cannot create topic {name!r}: {reason}")

    def close(self) -> None:
        """End the broker; its messages are gone."""
        self._call["rd_kafka_mock_cluster_destroy"](self._cluster)
        self._call["rd_kafka_destroy"](self._handle)


def _functions() -> dict[str, Callable[..., Any]]:
    """Return the functions of the librdkafka that confluent_kafka has loaded."""
    library = ctypes.CDLL(_library_path())
    functions: dict[str, Callable[..., Any]] = {}
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name, None)
        if function is None:
            raise WorkerStartError(f"this librdkafka ({ck.libversion()[0]}) lacks {name}")
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions


def _library_path() -> str:
    # The wheel's library has a hash in its name; another build's may lie anywhere.
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if "librdkafka" in path.rpartition("/")[2]:
            return f"/{path}"
    return ck.cimpl.__file__ or ""


class MockHost:
    """A mock cluster in a child process, with one topic. A context manager; ends with its block.

    The child ends by itself when this process is gone, however that came about, and a terminal's
    Ctrl-C does not reach it.
    """

    def __init__(self, topic: str, partitions: int, rebalance_delay_ms: int = 0) -> None:
        """Start the process and wait until the broker listens.

        Args:
            topic: name of the topic.
            partitions: >= 1.
            rebalance_delay_ms: as for `MockCluster`.

        Raises:
            WorkerStartError: the process or the cluster could not be started.
        """
        arguments = [topic, str(partitions), str(rebalance_delay_ms)]
        self._process = start_helper("kqmp.kafka.mock", arguments)
        answer = first_line(self._process, START_S)
        word, _, self.bootstrap = answer.partition(" ")
        if word != "ready":
            self.close()
            raise WorkerStartError(f"the mock cluster did not start: {answer or 'it ended'}")

    @property
    def pid(self) -> int:
        """Process id of the broker."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Tell whether the broker still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process and reap it. Idempotent."""
        end_helper(self._process)

    def __enter__(self) -> "MockHost":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def python_command(module: str, arguments: list[str]) -> list[str]:
    """Return the command that runs `main()` of one of our modules, installed or not."""
    boot = (
        "import importlib, sys; root, module = sys.argv[1:3]; del sys.argv[1:3];"
        " sys.path.append(root); importlib.import_module(module).main()"
    )
    root = str(Path(__file__).parents[2])
    return [sys.executable, "-P", "-c", boot, root, module, *arguments]


def start_helper(module: str, arguments: list[str]) -> "subprocess.Popen[bytes]":
    """Start the `main()` of a module as a helper that lives as long as this process at most.

    Its standard input is a pipe whose end it takes as the order to end (`exit_with_parent`); its
    standard output is ours to read. It is in a process group of its own, so that a terminal's
    Ctrl-C reaches us alone.

    Raises:
        WorkerStartError: the system refuses another process.
    """
    try:
        return subprocess.Popen(
            python_command(module, arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
    except OSError as error:
        raise WorkerStartError(f"cannot start a process: {error}") from error


def first_line(process: "subprocess.Popen[bytes]", timeout_s: float) -> str:
    """Return the first line a helper prints, without its end; "" if it ends or stays silent."""
    assert process.stdout is not None
    poller = select.poll()
    poller.register(process.stdout, select.POLLIN)
    if not poller.poll(timeout_s * 1000):
        return ""
    return process.stdout.readline().decode().rstrip("\n")


def end_helper(process: "subprocess.Popen[bytes]") -> None:
    """End a helper, by force if it takes longer than `END_S`, and reap it. Idempotent."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        process.stdout.close()


def exit_with_parent() -> None:
    """Have this helper end when its standard input does, whatever it is doing then."""

    def wait() -> None:
        # The descriptor, not sys.stdin: a lock of a buffered reader would be held at the exit.
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, name="exit-with-parent", daemon=True).start()


def main() -> None:
    """Entry of the hosting process; its arguments are TOPIC PARTITIONS DELAY_MS.

    Prints one line, `ready HOST:PORT` or `failed REASON`, and ends with its standard input.
    """
    topic, partitions, rebalance_delay_ms = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    try:
        cluster = MockCluster(rebalance_delay_ms)
        cluster.create_topic(topic, partitions)
    except WorkerStartError as error:
        answer = f"failed {error}"
    else:
        answer = f"ready {cluster.bootstrap}"
    os.write(1, f"{answer}\n".encode())
    while os.read(0, 4096):
        pass
    # No clean end: nothing of this cluster outlives the process, and clients may still be there.
    os._exit(0)
