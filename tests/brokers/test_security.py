"""SASL and TLS on real Kafka: who is let in, and what whoever is refused is told to mend.

Three nodes, so that one can be killed under a `Pusher` in the end.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient

from kqmp import Pusher
from kqmp.errors import BrokerError, ConfigError
from tests.support.engine import Engine
from tests.support.kafka import ROOT, cluster_module, create_topic, unique_name

pytestmark = [pytest.mark.kafka]

COUNT = 50
HANDLER = """
import os
out = os.open(os.environ["OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def consume(key, value):
    os.write(out, value + b"\\n")
"""
#: An authority that signed nothing here; its key is gone.
OTHER_CA = """\
-----BEGIN CERTIFICATE-----
MIIBUTCB+KADAgECAggCwLR/vVxWoDAKBggqhkjOPQQDAjANMQswCQYDVQQDEwJj
YTAeFw0yNjExMjQxNDA5NTJaFw0zNjExMjExNDA5NTJaMA0xCzAJBgNVBAMTAmNh
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEQId9uJvn6s0TWx2ck3gLC0sUR4dn
o2OYkXaQhnFloUfWdpbUtNITx0pRWLOjDS0BMypaVPA3zt2/DACyOQMWCKNCMEAw
HQYDVR0OBBYEFNL9plqcTVBJwDnU0KVgnV55/eLuMA4GA1UdDwEB/wQEAwIBBjAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCICjVNrwKBfdUickHNs61
H+cRf0B1vTRqziFRkvulZuzXAiEAtLGBt2YGimuT1tng4t/BZWSrOyUUdhDGrspq
NHmPz14=
-----END CERTIFICATE-----
"""


class Secured:
    """A cluster that asks for TLS and a password."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.properties: dict[str, Any] = {
            "bootstrap.servers": cluster.bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": cluster.security.user,
            "sasl.password": cluster.security.password,
            "ssl.ca.location": str(cluster.ca_file),
            "log_level": 0,  # it would complain of the end of the cluster
        }
        self._admin = AdminClient(self.properties)
        self.topic = self.new_topic(2)

    def new_topic(self, partitions: int) -> str:
        name = unique_name("secured")
        create_topic(self._admin, name, partitions, None, 3)
        return name

    def access(self, **changes: Any) -> dict[str, Any]:
        """Return the keys of a section that is let in, but for `changes`."""
        section = {
            "Brokers": self.cluster.bootstrap.split(","),
            "Topic": self.topic,
            "Username": self.cluster.security.user,
            "Password": self.cluster.security.password,
            "CaFile": str(self.cluster.ca_file),
        }
        return section | changes

    def consumer(self, **changes: Any) -> dict[str, Any]:
        """Return the section of a consumer in a new group."""
        group = unique_name("secured")
        return self.access(**{"Group": group, "Offset": "first", "Processors": 1} | changes)

    def read(self, topic: str, count: int) -> list[tuple[bytes, bytes]]:
        """Return the first `count` keys and values, those of a partition in order."""
        consumer = ck.Consumer(
            {**self.properties, "group.id": topic, "auto.offset.reset": "earliest"}
        )
        try:
            consumer.subscribe([topic])
            found = consumer.consume(count, timeout=40)
            # A message too many would show here.
            found += consumer.consume(1, timeout=0.5)
            assert not any(message.error() for message in found)
            return [(message.key() or b"", message.value() or b"") for message in found]
        finally:
            consumer.close()


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    kafka = cluster_module()
    with kafka.Cluster(3, security=kafka.Security.of(sasl=True, tls=True)) as cluster:
        yield Secured(cluster)


#: `run(section)` starts `kqmp run`.
Run = Callable[[dict[str, Any]], Engine]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    engines: list[Engine] = []

    def start(section: dict[str, Any]) -> Engine:
        environment = {"OUT": str(tmp_path / "out")}
        engine = Engine(tmp_path / "engine", HANDLER, section, tmp_path / "ledger", environment)
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.close()


def checked(directory: Path) -> tuple[int, str]:
    """Run `kqmp check` where an engine was; return its exit code and its error line."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kqmp", "check", "mqs:consume", "-f", "mq.yaml"],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OUT": str(directory / "out")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("error ")]
    return done.returncode, "\n".join(lines)


@pytest.mark.parametrize("mechanism", [None, "SCRAM-SHA-512"])
def test_a_pusher_writes_and_a_queue_reads_by_password_over_tls(
    secured: Secured, run: Run, tmp_path: Path, mechanism: str | None
) -> None:
    kafka = {"Kafka": {"sasl.mechanism": mechanism}} if mechanism else {}
    topic = secured.new_topic(2)
    values = {f"value-{number}" for number in range(COUNT)}
    with Pusher.from_config(secured.access(Topic=topic, **kafka)) as pusher:
        for value in values:
            pusher.push(value)
    engine = run(secured.consumer(Topic=topic, **kafka))
    out = tmp_path / "out"

    def all_read() -> bool:
        return out.exists() and set(out.read_text().splitlines()) >= values

    engine.wait_until(all_read, f"all {COUNT} messages handled")
    engine.stop()
    assert secured.cluster.security.password not in engine.output
    if mechanism:
        assert checked(tmp_path / "engine") == (0, "")


def refused(engine: Engine, code: int) -> str:
    """Wait for an engine that must not start; return the one line that says why."""
    assert engine.wait() == code, engine.output
    assert "Traceback" not in engine.output
    return engine.output.strip().splitlines()[-1]


def test_a_wrong_password_is_exit_5_and_names_the_keys(
    secured: Secured, run: Run, tmp_path: Path
) -> None:
    engine = run(secured.consumer(Password="guessed"))
    code, error = checked(tmp_path / "engine")
    assert code == 5
    line = refused(engine, 5)
    with pytest.raises(BrokerError) as caught:
        Pusher.from_config(secured.access(Password="guessed"))
    for text in (line, error, str(caught.value)):
        assert f"the brokers {', '.join(secured.cluster.bootstrap.split(','))} refuse us: " in text
        assert "Invalid username or password" in text
        assert "mend Username 'kqmp' or Password; or sasl.mechanism under Kafka (-X)" in text
        assert "guessed" not in text


def test_a_wrong_authority_is_exit_5_and_names_the_file(
    secured: Secured, run: Run, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text(OTHER_CA)
    engine = run(secured.consumer(CaFile=str(other)))
    code, error = checked(tmp_path / "engine")
    assert code == 5
    line = refused(engine, 5)
    with pytest.raises(BrokerError) as caught:
        Pusher.from_config(secured.access(CaFile=str(other)))
    for text in (line, error, str(caught.value)):
        assert "broker certificate could not be verified" in text
        assert f"mend CaFile '{other}': it is to be the PEM file of the authority" in text


def test_a_file_that_is_no_authority_is_exit_2_and_named(
    secured: Secured, run: Run, tmp_path: Path
) -> None:
    missing = tmp_path / "none.pem"
    engine = run(secured.consumer(CaFile=str(missing)))
    code, error = checked(tmp_path / "engine")
    assert code == 2
    line = refused(engine, 2)
    with pytest.raises(ConfigError) as caught:
        Pusher.from_config(secured.access(CaFile=str(missing)))
    for text in (line, error, str(caught.value)):
        assert f"mend CaFile '{missing}': No such file or directory" in text


def test_what_a_pusher_was_acknowledged_outlives_a_node(secured: Secured) -> None:
    """Kill the leader of a third of the partitions amid pushes; it stays away.

    A third of the messages is acknowledged then, a third on its way, a third yet to come. What was
    sent to the killed node in vain is sent again to its successors: the log shows each message
    once, and those of a key in order, because of idempotence.
    """
    topic = secured.new_topic(6)
    keys, third = 20, 150
    failed: list[object] = []
    pusher = Pusher.from_config(
        secured.access(Topic=topic), on_error=lambda message, error: failed.append(error)
    )

    def push_third(begin: int) -> None:
        for number in range(begin, begin + third):
            for key in range(keys):
                pusher.push(str(number), key=str(key))

    with pusher:
        push_third(0)
        assert pusher.flush(30) == 0
        push_third(third)
        secured.cluster.kill(1)
        push_third(2 * third)
        assert pusher.flush(60) == 0
    assert failed == []
    count = 3 * third * keys
    told = pusher.statistics()
    assert (told.pushed, told.delivered, told.failed) == (count, count, 0)
    found: dict[bytes, list[int]] = {}
    for key, value in secured.read(topic, count):
        found.setdefault(key, []).append(int(value))
    assert found == {b"%d" % key: list(range(3 * third)) for key in range(keys)}
