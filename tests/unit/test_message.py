import copy
import pickle
import sys

import pytest

from kqmp import message as module
from kqmp.message import Columns, Message, TimestampType


def columns(**changes):
    fields = {
        "topic": "images",
        "sections": [(7, 2), (3, 0), (5, 1)],
        "keys": [None, b"", b"k"],
        "values": [b"a", None, b""],
        "offsets": [10, 12, 4],
        "timestamps_ms": [1000, -1, 3000],
        "timestamp_types": [1, 0, 2],
        "headers": [None, [], [("trace", b"x"), ("trace", None), ("empty", b"")]],
    }
    return Columns(**{**fields, **changes})


def test_each_field_is_the_one_at_the_index():
    batch = columns()
    messages = [Message(batch, index) for index in range(len(batch))]
    assert [m.topic for m in messages] == ["images"] * 3
    assert [m.partition for m in messages] == [7, 7, 5]
    assert [m.offset for m in messages] == [10, 12, 4]
    assert [m.key for m in messages] == [None, b"", b"k"]
    assert [m.value for m in messages] == [b"a", None, b""]


def test_a_record_without_a_timestamp_has_none():
    batch = columns()
    assert [Message(batch, i).timestamp_ms for i in range(3)] == [1000, None, 3000]
    assert [Message(batch, i).timestamp_type for i in range(3)] == [
        TimestampType.CREATE_TIME,
        TimestampType.NOT_AVAILABLE,
        TimestampType.LOG_APPEND_TIME,
    ]


def test_none_and_empty_headers_are_distinct():
    batch = columns()
    assert Message(batch, 0).headers is None
    assert Message(batch, 1).headers == ()
    assert Message(batch, 2).headers == (("trace", b"x"), ("trace", None), ("empty", b""))


def test_columns_that_nobody_asked_for_are_none():
    message = Message(columns(timestamps_ms=None, timestamp_types=None, headers=None), 2)
    assert message.timestamp_ms is None
    assert message.timestamp_type is TimestampType.NOT_AVAILABLE
    assert message.headers is None


def test_the_fields_are_looked_up_on_access_only():
    class Untouchable(list):
        def __getitem__(self, index):
            raise AssertionError("read")

    batch = columns(headers=Untouchable([None]), values=Untouchable([None]))
    message = Message(batch, 0)
    assert message.offset == 10
    with pytest.raises(AssertionError, match="read"):
        _ = message.headers


@pytest.mark.parametrize("index", [-1, 3])
def test_partition_of_refuses_what_is_not_there(index):
    with pytest.raises(IndexError, match=f"record {index} of a frame of 3"):
        columns().partition_of(index)
    with pytest.raises(IndexError, match="of a frame of 0"):
        columns(sections=[]).partition_of(0)


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("passed_on", [copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_message_that_is_passed_on_keeps_its_fields_and_leaves_its_frame(index, passed_on):
    batch = columns(values=[b"a", None, b"", b"unrelated" * 1000], offsets=[10, 12, 4, 5])
    message = Message(batch, index)
    for other in (passed_on(message), message.detached()):
        assert other._fields() == message._fields()
        assert len(other._columns) == 1


def test_a_pickle_is_of_the_message_not_of_its_frame():
    batch = columns(values=[b"a", b"unrelated" * 1000, b""])
    assert len(pickle.dumps(Message(batch, 0))) < 1000


def test_read_only_and_without_a_dict():
    message = Message(columns(), 0)
    with pytest.raises(AttributeError):
        message.value = b"x"
    with pytest.raises(AttributeError):
        message.extra = 1
    with pytest.raises(AttributeError):
        columns().extra = 1


def test_of_makes_what_a_handler_test_needs():
    message = Message.of(topic="t", key=b"k", value=b"v", timestamp_ms=5, headers=[("h", None)])
    assert (message.topic, message.partition, message.offset) == ("t", 0, 0)
    assert (message.key, message.value) == (b"k", b"v")
    assert (message.timestamp_ms, message.timestamp_type) == (5, TimestampType.CREATE_TIME)
    assert message.headers == (("h", None),)
    bare = Message.of()
    assert (bare.key, bare.value, bare.timestamp_ms, bare.headers) == (None, None, None, None)
    assert bare.timestamp_type is TimestampType.NOT_AVAILABLE


def test_text():
    assert Message.of(value="grün".encode()).text() == "grün"
    assert Message.of(value=b"").text() == ""
    assert Message.of(value=None).text() is None
    with pytest.raises(UnicodeDecodeError):
        Message.of(value=b"\xff").text()


@pytest.fixture(params=["orjson", "msgspec"])
def parser(request, monkeypatch):
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setitem(sys.modules, "orjson", None)
    module._json_loads.cache_clear()
    yield request.param
    module._json_loads.cache_clear()


def test_json_with_either_parser(parser):
    assert module._json_loads().__module__.startswith("orjson" if parser == "orjson" else "kqmp")
    assert Message.of(value=b'{"id": 1, "tags": ["a", null]}').json() == {
        "id": 1,
        "tags": ["a", None],
    }
    assert Message.of(value=None).json() is None
    with pytest.raises(ValueError):  # noqa: PT011 - each parser has its own words
        Message.of(value=b"{").json()
    with pytest.raises(ValueError):  # noqa: PT011
        Message.of(value=b"").json()


def test_repr_shows_where_it_is_and_not_what_is_in_it():
    assert repr(Message(columns(), 0)) == "<Message images[7]@10 value 1 bytes>"
    assert repr(Message(columns(), 1)) == "<Message images[7]@12 value null>"
