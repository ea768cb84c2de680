"""What `Member` makes of a batch of messages, without a broker."""

import confluent_kafka as ck
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqmp.kafka import member


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
    assert member._offsets(batch, runs) == [one.offset() for one in batch]


@pytest.mark.parametrize("count", [1, member.EXACT_BELOW - 1, member.EXACT_BELOW, 2000])
def test_the_size_of_equal_values_is_exact(count):
    batch = [message(0, offset, b"x" * 100) for offset in range(count)]
    assert member._value_bytes(batch) == pytest.approx(100 * count, rel=0.04)


def test_large_values_are_counted_one_by_one():
    batch = [
        message(0, i, b"x" * (member.LARGE_VALUE * 20 if i % 16 == 0 else 1)) for i in range(512)
    ]
    assert member._value_bytes(batch) == sum(len(one.value()) for one in batch)


def test_a_tombstone_and_a_message_without_a_key_are_kept():
    fetched = member.Member._columns(
        _Bare(), [message(0, 7, None, None), message(1, 3)], [None, b"k"]
    )
    assert fetched.columns.values == [None, b"v"]
    assert fetched.runs == [(0, 1), (1, 1)]


class _Bare:
    _wanted: frozenset[str] = frozenset()
    _reading = frozenset({0, 1})
