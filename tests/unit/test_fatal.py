"""A client that librdkafka itself gave up: another member came with our `InstanceId`."""

from confluent_kafka import KafkaError

from kqmp.config import KqConf
from kqmp.errors import ExitCode
from kqmp.kafka.client import consumer_properties, last_words
from kqmp.kafka.member import Member
from tests.support.member import Group


def member():
    conf = KqConf(brokers=["127.0.0.1:1"], group="g", topic="t")
    return Member(consumer_properties(conf, 0), "t", Group(), ())


def test_only_a_fatal_error_makes_a_client_useless():
    it = member()
    it._partition_error(-1, -1001, KafkaError(KafkaError._TRANSPORT))
    assert it.fatal is None
    it._partition_error(-1, -1001, KafkaError(KafkaError._FATAL))
    assert it.fatal is not None
    it.close()


def test_a_fenced_static_member_has_no_successor():
    code, text = last_words("me-0", KafkaError(KafkaError._FATAL))
    assert code == ExitCode.GAVE_UP
    assert text.startswith("InstanceId: another member of the group came as 'me-0'")


def test_any_other_end_of_a_client_is_followed_by_a_new_one():
    assert last_words("", KafkaError(KafkaError._FATAL))[0] == 1
    assert last_words("me-0", KafkaError(KafkaError._TRANSPORT))[0] == 1
