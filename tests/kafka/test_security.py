"""SASL and TLS on real Kafka: who is let in, and what whoever is refused is told to mend."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient

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
    """A cluster that asks for TLS and a password, with one topic that holds `COUNT` messages."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.topic = unique_name("secured")
        self.properties: dict[str, Any] = {
            "bootstrap.servers": cluster.bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": cluster.security.user,
            "sasl.password": cluster.security.password,
            "ssl.ca.location": str(cluster.ca_file),
            "log_level": 0,  # it would complain of the end of the cluster
        }
        create_topic(AdminClient(self.properties), self.topic, 2, None, 1)
        producer = ck.Producer(self.properties)
        self.values = {f"value-{number}" for number in range(COUNT)}
        for value in self.values:
            producer.produce(self.topic, value.encode())
        assert producer.flush(30) == 0

    def section(self, **changes: Any) -> dict[str, Any]:
        """Return the section of a consumer in a new group that is let in, but for `changes`."""
        section = {
            "Brokers": [self.cluster.bootstrap],
            "Group": unique_name("secured"),
            "Topic": self.topic,
            "Offset": "first",
            "Processors": 1,
            "Username": self.cluster.security.user,
            "Password": self.cluster.security.password,
            "CaFile": str(self.cluster.ca_file),
        }
        return section | changes


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    kafka = cluster_module()
    with kafka.Cluster(security=kafka.Security.of(sasl=True, tls=True)) as cluster:
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
def test_a_queue_reads_by_password_over_tls(
    secured: Secured, run: Run, tmp_path: Path, mechanism: str | None
) -> None:
    kafka = {"Kafka": {"sasl.mechanism": mechanism}} if mechanism else {}
    engine = run(secured.section(**kafka))
    out = tmp_path / "out"

    def all_read() -> bool:
        return out.exists() and set(out.read_text().splitlines()) >= secured.values

    engine.wait_until(all_read, f"all {COUNT} messages handled")
    engine.stop()
    password = secured.cluster.security.password
    assert password not in engine.output
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
    line = refused(run(secured.section(Password="guessed")), 5)
    code, error = checked(tmp_path / "engine")
    assert code == 5
    for text in (line, error):
        assert f"the brokers {secured.cluster.bootstrap} refuse us: " in text
        assert "Invalid username or password" in text
        assert "mend Username 'kqmp' or Password; or sasl.mechanism under Kafka (-X)" in text
        assert "guessed" not in text


def test_a_wrong_authority_is_exit_5_and_names_the_file(
    secured: Secured, run: Run, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text(OTHER_CA)
    line = refused(run(secured.section(CaFile=str(other))), 5)
    code, error = checked(tmp_path / "engine")
    assert code == 5
    for text in (line, error):
        assert "broker certificate could not be verified" in text
        assert f"mend CaFile '{other}': it is to be the PEM file of the authority" in text


def test_a_file_that_is_no_authority_is_exit_2_and_named(
    secured: Secured, run: Run, tmp_path: Path
) -> None:
    missing = tmp_path / "none.pem"
    line = refused(run(secured.section(CaFile=str(missing))), 2)
    code, error = checked(tmp_path / "engine")
    assert code == 2
    for text in (line, error):
        assert f"mend CaFile '{missing}': No such file or directory" in text
