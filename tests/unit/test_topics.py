"""A topic as `kqmp topic show` tells it, and tables."""

from kqmp.cli.table import aligned, tabbed
from kqmp.cli.topic import described, headline, jsonable, told
from kqmp.kafka.topics import Partition, Topic

WELL = Partition(0, 1, (1, 2), (1, 2), 100, 1_600)
ILL = Partition(1, None, (2, 1), (1,), None, None)
TOPIC = Topic("orders", [WELL, ILL], {"retention.ms": "1000"})


def test_for_people() -> None:
    assert headline(TOPIC) == "orders: 2 partitions, replication 2"
    assert described(TOPIC) == [
        "orders: 2 partitions, replication 2, 1,500 messages, 1 not fully in sync,"
        " 1 without a leader",
        "settings of its own:",
        "  retention.ms = 1000",
        "",
        "PARTITION  LEADER  REPLICAS  IN SYNC  LOW   HIGH  MESSAGES",
        "        0       1  1,2       1,2      100  1,600     1,500",
        "        1       -  2,1       1          -      -         -",
    ]
    assert described(TOPIC._replace(config={}))[1] == "no settings of its own"
    assert described(TOPIC._replace(config=None))[1] == "its settings are not shown to this user"


def test_for_programs() -> None:
    assert told(TOPIC) == [
        "partition\t0\t1\t1,2\t1,2\t100\t1600\t1500",
        "partition\t1\t-\t2,1\t1\t-\t-\t-",
        "config\tretention.ms\t1000",
    ]
    assert jsonable(TOPIC)["messages"] == 1_500


def test_a_table_without_rows_is_its_header() -> None:
    assert aligned(("A", "B"), []) == ["A  B"]
    assert tabbed([]) == []


def test_cells() -> None:
    assert aligned(("N", "X"), [(1234567, 0.25), (None, 1.0)]) == [
        "        N    X",
        "1,234,567  0.2",
        "        -  1.0",
    ]
    assert tabbed([(1234567, 0.25, None, "t", (1, 2))]) == ["1234567\t0.250\t-\tt\t1,2"]
