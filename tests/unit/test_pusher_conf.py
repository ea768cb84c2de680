"""`PusherConf`: its keys, from arguments, sections of files and flags."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kqmp.config import PUSHER_KEYS, PusherConf
from kqmp.config.keys import KEY
from kqmp.configfile import load_pusher, load_pusher_from_flags
from kqmp.errors import ConfigError
from kqmp.kafka.producer import MESSAGE_BYTES, producer_properties

FILE = """\
Name: orders
KqConsumerConf:
  Brokers: [127.0.0.1:9092]
  Group: g
  Topic: consumed
  Username: me
  Password: pw
  Kafka: {fetch.min.bytes: 10, sasl.mechanism: SCRAM-SHA-256}
KqPusherConf:
  Brokers:
  - 127.0.0.1:9092
  Topic: payment-success
"""


def conf(**values: Any) -> PusherConf:
    return PusherConf(**{"brokers": "b:1", "topic": "t", **values})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mq.yaml"
    path.write_text(FILE)
    return path


def test_defaults_are_those_of_kq_where_it_has_them() -> None:
    made = conf()
    assert made.chunk_size == 1 << 20
    assert made.flush_interval == timedelta(seconds=1)
    assert made.sync is made.allow_auto_topic_creation is False
    assert made.name == "t"


def test_the_table_has_the_fields_of_the_struct() -> None:
    assert tuple(key.name for key in PUSHER_KEYS) == PusherConf.__struct_fields__


def test_no_secret_is_shown() -> None:
    made = conf(username="me", password="pw-123", kafka={"ssl.key.password": "pw-456"})
    for text in (repr(made), str(made), "\n".join(made.describe())):
        assert "pw-" not in text


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"balancer": "LeastBytes"}, ("balancer: 'LeastBytes'", "random", "hash")),
        ({"chunk_size": 0}, ("chunk_size: 0", "from 1")),
        ({"flush_interval": "1h"}, ("flush_interval: '1h'", "15m")),
        ({"topic": ""}, ("topic: missing",)),
        ({"password": "x"}, ("password: given without username",)),
        ({"kafka": {"acks": 1}}, ("kafka: acks: '1' is refused", "could be lost")),
        ({"kafka": {"enable.idempotence": False}}, ("enable.idempotence", "twice or out of order")),
        ({"kafka": {"linger.ms": 5}}, ("linger.ms", "set FlushInterval")),
        ({"kafka": {"transactional.id": "x"}}, ("transactional.id", "no transactions")),
        ({"kafka": {"enable.ssl.certificate.verification": "no"}}, ("always verified",)),
    ],
)
def test_a_wrong_value_is_one_clear_error(values: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        conf(**values)
    assert len(caught.value.problems) == 1
    for part in parts:
        assert part in str(caught.value)


def test_what_changes_nothing_may_be_said() -> None:
    assert conf(kafka={"acks": "all", "enable.idempotence": True}).kafka["acks"] == "all"


def test_a_consumer_s_properties_are_not_the_pusher_s_to_refuse() -> None:
    assert KEY["kafka"].client == "consumer"
    assert conf(kafka={"compression.type": "zstd"}).kafka == {"compression.type": "zstd"}


def test_the_section_that_looks_like_a_pusher_is_found(file: Path) -> None:
    made = PusherConf.load(file)
    assert (made.topic, made.name) == ("payment-success", "KqPusherConf")
    assert PusherConf.load(file, "kqpusherconf") == made


def test_of_two_pushers_one_is_named(file: Path) -> None:
    file.write_text(FILE + "Other:\n  Brokers: [b:1]\n  Topic: t\n")
    with pytest.raises(ConfigError, match=r"KqPusherConf, Other all look like a pusher"):
        PusherConf.load(file)
    assert PusherConf.load(file, "Other").topic == "t"


def test_a_pusher_at_the_top_level(file: Path) -> None:
    file.write_text("Brokers: [b:1]\nTopic: t\nMySql: {Host: x}\n")
    assert PusherConf.load(file).topic == "t"


def test_errors_name_their_place(file: Path) -> None:
    file.write_text(FILE + "  ChunkSice: 1MiB\n  Sync: 3\n  Kafka:\n    acks: 0\n")
    with pytest.raises(ConfigError) as caught:
        PusherConf.load(file)
    chunk, sync, acks = caught.value.problems
    assert chunk.startswith(f"{file}:13:3: ChunkSice: unknown key; did you mean ChunkSize?")
    assert sync.startswith(f"{file}:14:9: Sync: 3 is not allowed")
    assert acks.startswith(f"{file}:16:11: Kafka: acks: '0' is refused")


def test_a_consumer_s_key_in_a_pusher_is_said_to_be_one(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"mq.yaml:4:3: Group: belongs to a consumer"):
        PusherConf.load(file, "KqConsumerConf")


def test_a_file_without_a_pusher_says_so(file: Path) -> None:
    file.write_text(FILE.partition("KqPusherConf")[0])
    with pytest.raises(ConfigError, match="no section looks like a pusher"):
        PusherConf.load(file)


def test_a_command_may_borrow_the_way_to_a_consumer_s_topic(file: Path) -> None:
    assert load_pusher(file, borrow=True).conf.topic == "payment-success"
    loaded = load_pusher(file, "KqConsumerConf", borrow=True, shortcuts={"topic": "other"})
    assert loaded.is_borrowed
    assert loaded.conf.topic == "other"
    assert loaded.conf.username == "me"
    assert loaded.conf.kafka == {"sasl.mechanism": "SCRAM-SHA-256"}
    file.write_text(FILE.partition("KqPusherConf")[0])
    assert load_pusher(file, borrow=True).conf.topic == "consumed"


def test_flags_alone_and_over_a_file(file: Path) -> None:
    loaded = load_pusher(file, overrides={"chunksize": "2MiB"}, kafka_overrides={"client.id": "x"})
    assert loaded.conf.chunk_size == 2 << 20
    assert loaded.conf.kafka == {"client.id": "x"}
    alone = load_pusher_from_flags(shortcuts={"brokers": "b:1,c:2", "topic": "t"})
    assert alone.conf.brokers == ("b:1", "c:2")
    with pytest.raises(ConfigError, match="--brokers: missing"):
        load_pusher_from_flags(shortcuts={"topic": "t"})


def test_a_parsed_section_with_kq_s_names() -> None:
    made = PusherConf.from_section({"Brokers": ["b:1"], "topic": "t", "FlushInterval": "5ms"})
    assert made.flush_interval_ms == 5
    with pytest.raises(ConfigError, match=r"Group: unknown key of a pusher; use one of Name, "):
        PusherConf.from_section({"Brokers": ["b:1"], "Topic": "t", "Group": "g"})


def test_librdkafka_is_told_what_the_promises_need() -> None:
    told = producer_properties(conf(), None)
    assert told["acks"] == "all"
    assert told["enable.idempotence"] is True
    assert told["partitioner"] == "murmur2_random"
    assert told["linger.ms"] == 1000
    assert told["batch.size"] == told["message.max.bytes"] == MESSAGE_BYTES


def test_a_batch_is_never_larger_than_the_topic_takes() -> None:
    told = producer_properties(conf(), 2000)
    assert told["batch.size"] == told["message.max.bytes"] == 2000
    told = producer_properties(conf(chunk_size="4KiB"), 1 << 20)
    assert (told["batch.size"], told["message.max.bytes"]) == (4096, 1 << 20)
    told = producer_properties(conf(kafka={"message.max.bytes": 5000}), None)
    assert (told["batch.size"], told["message.max.bytes"]) == (5000, "5000")


def test_sync_waits_for_no_others_and_a_long_interval_is_no_failure() -> None:
    assert producer_properties(conf(sync=True), None)["linger.ms"] == 0
    told = producer_properties(conf(flush_interval="10m"), None)
    assert (told["linger.ms"], told["message.timeout.ms"]) == (600_000, 1_200_000)
