"""The banner says what is in force and what would surprise, and nothing else."""

import re

import pytest

from kqmp import KqConf
from kqmp.config import memory
from kqmp.roles import banner, dispatch
from kqmp.roles.spawn import MATH_THREADS

MIB = 1 << 20


def conf(**changes):
    return KqConf(brokers=["a:1", "b:2"], group="g", topic="t", name="mq").replace(**changes)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(banner, "usable_cores", lambda: (2, "2 (affinity)"))


def notes(made):
    return [line.removeprefix("note: ") for line in made if line.startswith("note: ")]


def test_all_lines(two_cores, monkeypatch):
    for name in MATH_THREADS:
        monkeypatch.delenv(name, raising=False)
    made = banner.lines(conf(), "mqs:consume", ("accepted, no effect yet: Log",))
    assert re.fullmatch(r"kqmp [\d.]+, confluent-kafka [\d.]+, Python [\d.]+", made[0])
    assert made[1:] == [
        "mq: handler mqs:consume, topic t, group g, brokers a:1, b:2",
        "guarantee: at least once; messages of one key in a partition are handled one after"
        " another, in offset order (Ordering key)",
        "processes: 1 x (1 fetcher + 8 processors); buffers: lanes 32MiB + logs 4MiB + librdkafka"
        " 20MiB + bays 32MiB = at most 88MiB, beside what the handlers take",
        "note: accepted, no effect yet: Log",
        "note: failures are passed over (ForceCommit true)",
        "note: Processors 8, 2 usable cores (affinity)",
        "note: OMP_NUM_THREADS, OPENBLAS_NUM_THREADS, MKL_NUM_THREADS, NUMEXPR_NUM_THREADS = 1 in"
        " the processors; set them to have more threads",
    ]


def test_nothing_surprising_is_not_said(two_cores, monkeypatch):
    for name in MATH_THREADS:
        monkeypatch.setenv(name, "4")
    made = notes(banner.lines(conf(processors=2, force_commit=False), "h:h", ()))
    assert made == ["a failing message is retried for ever and its lane waits (ForceCommit false)"]


def test_all_fetchers_processors_count(two_cores):
    made = notes(banner.lines(conf(processors=2, conns=2), "h:h", ()))
    assert "Processors 2 x Conns 2, 2 usable cores (affinity)" in made


def test_no_secret_is_shown():
    secret = conf(username="u", password="pw-1234", kafka={"ssl.key.password": "pw-5678"})
    text = "\n".join(banner.lines(secret, "h:h", ()))
    assert "pw-" not in text


@pytest.mark.parametrize(
    ("conns", "partitions", "text"),
    [
        (1, 1, "topic t has 1 partition"),
        (2, 12, "topic t has 12 partitions"),
        (4, 3, "topic t has 3 partitions: 1 of 4 fetchers (Conns) get none"),
    ],
)
def test_partitions(conns, partitions, text):
    assert banner.partitions_note(conf(conns=conns), partitions) == text


def test_the_sum_is_of_what_is_really_used():
    wanted = conf(conns=3, processors=5, ring_bytes=MIB, max_bytes=64 * MIB)
    assert memory.bounds(wanted) == {
        "lanes": 15 * MIB,
        "logs": 12 * MIB,
        "librdkafka": 3 * 128 * MIB,
        "bays": 24 * MIB,
    }
    assert dispatch.RINGS_IN_BAYS is memory.RINGS_IN_BAYS
    raw = conf(kafka={"queued.max.messages.kbytes": "1024"})
    assert memory.prefetch_bytes(raw) == MIB
    # No number: librdkafka refuses it by name.
    assert memory.prefetch_bytes(conf(kafka={"queued.max.messages.kbytes": "x"})) == 20 * MIB
