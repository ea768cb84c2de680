"""What may be pushed, and what it becomes."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from kqmp.kafka.payload import encoded, header_pairs, size_of, unpushable


class Order(msgspec.Struct):
    number: int


@dataclass
class Payment:
    amount: int


class Model:
    def model_dump_json(self) -> str:
        return '{"a":1}'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"x", b"x"),
        ("x", "x"),
        (None, None),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        ({"a": 1}, b'{"a":1}'),
        ([1, "b"], b'[1,"b"]'),
        (Order(3), b'{"number":3}'),
        (Payment(12), b'{"amount":12}'),
        (Model(), '{"a":1}'),
    ],
)
def test_objects_become_json_and_text_stays(value: Any, written: Any) -> None:
    assert encoded(value) == written


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (5, "not int"),
        (True, "not bool"),
        (Payment, "not the class Payment"),
        (object(), "not object"),
        ({"a": object()}, "cannot be written as JSON"),
    ],
)
def test_anything_else_is_refused(value: Any, part: str) -> None:
    with pytest.raises(TypeError, match=part):
        encoded(value)


def test_headers_keep_their_order_and_repetitions() -> None:
    assert header_pairs(None) is None
    assert header_pairs({"a": "x", "b": None}) == [("a", b"x"), ("b", None)]
    assert header_pairs([("a", b"x"), ("a", "y")]) == [("a", b"x"), ("a", b"y")]


@pytest.mark.parametrize(
    ("headers", "part"),
    [
        ({1: "x"}, "a name must be str, not int"),
        ({"a": 1}, "the value of 'a' must be str, bytes or None, not int"),
        (["ab", "c"], "pairs of a name and a value"),
    ],
)
def test_wrong_headers_are_named(headers: Any, part: str) -> None:
    with pytest.raises(TypeError, match=part):
        header_pairs(headers)


@pytest.mark.parametrize(
    ("value", "key", "part"),
    [("ab\ud800", None, "value: character 2"), ("a", "\udc00", "key: character 0")],
)
def test_half_a_character_is_named_with_its_place(value: str, key: str | None, part: str) -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        (key or value).encode()
    assert (unpushable(caught.value, value, key) or "").startswith(part)


def test_the_size_counts_bytes_of_key_value_and_headers() -> None:
    assert size_of("\u00e9", b"key", [("h", b"xy"), ("n", None)]) == 2 + 3 + 3 + 1
