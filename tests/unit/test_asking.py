"""Questions to the brokers, asked of a client that is not one."""

from types import SimpleNamespace

import confluent_kafka as ck
import pytest

from kqmp.config import KqConf
from kqmp.kafka import asking
from kqmp.kafka.asking import Cluster

CONF = KqConf(brokers=["h:1"], group="g", topic="t")


def test_errors_of_the_connections_do_not_grow_without_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = SimpleNamespace(list_topics=lambda timeout: "metadata")

    def made(settings: dict, logger: object) -> SimpleNamespace:
        client.heard = settings["error_cb"]
        return client

    monkeypatch.setattr(ck, "Consumer", made)
    cluster = Cluster(CONF, "g")
    for number in range(asking.ERRORS_MAX + 3):
        client.heard(number)
    assert list(cluster.errors) == list(range(3, asking.ERRORS_MAX + 3))
