"""What librdkafka is told: defaults that the guarantees rest on, and what a user may change."""

from pathlib import Path
from typing import Any

from kqmp.config import KqConf
from kqmp.kafka.client import consumer_properties, key_to_mend, refusal


def properties(index: int = 0, **values: Any) -> dict[str, object]:
    conf = KqConf(brokers=["b:1"], group="g", topic="t", **values)
    return consumer_properties(conf, index)


def test_kqmp_alone_decides_what_is_committed_and_where_reading_starts() -> None:
    given = properties()
    assert given["enable.auto.commit"] is False
    assert given["enable.auto.offset.store"] is False
    assert given["auto.offset.reset"] == "error"
    assert given["partition.assignment.strategy"] == "cooperative-sticky"


def test_a_revoke_that_waits_for_the_handlers_never_outlasts_the_poll_interval() -> None:
    assert properties()["max.poll.interval.ms"] == 300_000
    assert properties(drain_timeout="10m")["max.poll.interval.ms"] == 610_000
    own = properties(kafka={"max.poll.interval.ms": 40_000})
    assert own["max.poll.interval.ms"] == "40000"


def test_heartbeats_fit_a_short_session() -> None:
    assert properties()["heartbeat.interval.ms"] == 2500
    assert properties(kafka={"session.timeout.ms": 2000})["heartbeat.interval.ms"] == 500
    both = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 100}
    assert properties(kafka=both)["heartbeat.interval.ms"] == "100"


def test_each_fetcher_has_an_instance_id_of_its_own() -> None:
    assert "group.instance.id" not in properties()
    assert properties(1, instance_id="pod-3")["group.instance.id"] == "pod-3-1"


def test_one_message_larger_than_max_bytes_still_comes() -> None:
    given = properties(max_bytes="200MiB")
    assert given["max.partition.fetch.bytes"] == 200 << 20
    assert int(str(given["receive.message.max.bytes"])) >= 400 << 20


def mend(reason: str, **values: Any) -> str:
    conf = KqConf(brokers=["b:1", "c:2"], group="g", topic="t", **values)
    return refusal(conf, reason)


def test_a_refusal_names_the_keys_to_mend() -> None:
    login = {"username": "me", "password": "secret"}
    wrong = "sasl://b:1/bootstrap: SASL authentication error: no (after 303ms in state AUTH_REQ)"
    assert mend(wrong, **login) == (
        "the brokers b:1, c:2 refuse us: sasl://b:1/bootstrap: SASL authentication error: no;"
        " mend Username 'me' or Password; or sasl.mechanism under Kafka (-X), which is 'PLAIN'"
    )
    unknown = "b:1: SASL SCRAM-SHA-256 mechanism handshake failed: supported: PLAIN"
    said = mend(unknown, **login, kafka={"sasl.mechanism": "SCRAM-SHA-256"})
    assert said.endswith("; mend sasl.mechanism under Kafka (-X), which is 'SCRAM-SHA-256'")
    assert mend("Broker: Topic authorization failed", **login).endswith(
        "; give the user 'me' (Username) the right to it"
    )


def test_a_refused_certificate_names_the_file_and_not_librdkafka_s_property() -> None:
    verify = (
        "SSL handshake failed: certificate verify failed: broker certificate could not be verified,"
        " verify that ssl.ca.location is correctly configured (after 1ms in state SSL_HANDSHAKE)"
    )
    assert "; mend CaFile '/ca.pem': it is to be the PEM file" in mend(verify, ca_file="/ca.pem")
    assert "; set CaFile to the PEM file of the authority" in mend(verify)
    assert "ssl.ca.location" not in mend(verify)
    assert "is it a port for TLS?" in mend("SSL handshake failed: wrong version", ca_file="/c")


def test_a_file_that_is_no_authority_says_what_it_is_instead(tmp_path: Path) -> None:
    refused = "ssl.ca.location failed: error:05880020"
    (tmp_path / "text").write_text("no certificate")
    for name, problem in (("none", "No such file"), ("text", "it holds no certificate")):
        path = str(tmp_path / name)
        given = KqConf(brokers=["b:1"], group="g", topic="t", ca_file=path)
        assert key_to_mend(given, refused).startswith(f"CaFile {path!r}: {problem}")
