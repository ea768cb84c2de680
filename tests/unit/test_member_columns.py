"""What `PlainSource` makes of a batch of messages, without a broker."""

import confluent_kafka as ck
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqmp.kafka import columns


def message(partition, offset, value=b"v", key=b"k"):
    return ck.Message(topic="t", partition=partition, offset=offset, key=key, value=value)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 60), min_size=1, unique=True)),
        min_size=1,
        max_size=6,
    )
)
def test_offsets_are_those_of_the_messages_with_and_without_gaps(parts):
    batch = [message(partition, offset) for partition, some in parts for offset in sorted(some)]
    runs = [(partition, len(some)) for partition, some in parts]
    assert columns._offsets(batch, runs) == [one.offset() for one in batch]


@pytest.mark.parametrize("count", [1, columns.EXACT_BELOW - 1, columns.EXACT_BELOW, 2000])
def test_the_size_of_equal_values_is_exact(count):
    batch = [message(0, offset, b"x" * 100) for offset in range(count)]
    assert columns._value_bytes(batch) == pytest.approx(100 * count, rel=0.04)


def test_large_values_are_counted_one_by_one():
    batch = [
        message(0, i, b"x" * (columns.LARGE_VALUE * 20 if i % 16 == 0 else 1)) for i in range(512)
    ]
    assert columns._value_bytes(batch) == sum(len(one.value()) for one in batch)


def columns_of(batch):
    def on_error(partition, offset, error):
        raise AssertionError((partition, offset, error))

    fetched = columns.PlainSource(None, frozenset(), on_error).columns_of(batch)
    assert fetched is not None
    return fetched


def test_a_tombstone_and_a_message_without_a_key_are_kept():
    fetched = columns_of([message(0, 7, None, None), message(1, 3)])
    assert fetched.columns.values == [None, b"v"]
    assert fetched.columns.keys == [None, b"k"]
    assert fetched.runs == [(0, 1), (1, 1)]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=120))
def test_many_short_runs_become_few_and_each_partition_keeps_its_order(partitions):
    batch = [message(p, at, b"%d" % at, b"%d" % p) for at, p in enumerate(partitions)]
    fetched = columns_of(batch)
    assert len(fetched.runs) <= max(8, 4 * len(set(partitions)) + 4)
    start = 0
    seen = {partition: [] for partition in partitions}
    for partition, count in fetched.runs:
        part = fetched.columns.cut(start, start + count)
        assert part.keys == [b"%d" % partition] * count
        assert part.values == [b"%d" % offset for offset in part.offsets]
        seen[partition] += part.offsets
        start += count
    assert start == len(batch)
    for partition, offsets in seen.items():
        assert offsets == [at for at, p in enumerate(partitions) if p == partition]
