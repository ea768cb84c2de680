import pytest

from kqmp.core.batch import Chunk, Columns, Opening, Part, split_by_lane

A, B = Opening(1, 0, 10), Opening(2, 1, 70)


def columns(offsets, *, full=False):
    offsets = list(offsets)
    names = [str(offset).encode() for offset in offsets]
    if not full:
        return Columns(offsets, names, [b"v" + name for name in names])
    return Columns(
        offsets,
        names,
        [None if offset % 2 else b"v" for offset in offsets],
        [offset * 1000 for offset in offsets],
        bytes(offset % 3 for offset in offsets),
        [
            None if offset % 2 else [("h", name)]
            for offset, name in zip(offsets, names, strict=True)
        ],
    )


def rows(columns):
    """The columns turned to one tuple a message; absent columns are None."""
    count = len(columns.keys)
    filled = [list(column) if column is not None else [None] * count for column in columns]
    return list(zip(*filled, strict=True))


def test_an_opening_starts_at_its_position():
    opening = Opening(7, 3, 42)
    assert (opening.epoch, opening.topic_id, opening.partition) == (7, 0, 3)
    assert opening.fetched_position == opening.committed_position == 42


@pytest.mark.parametrize("full", [False, True])
def test_cut_select_and_pick_treat_all_columns_alike(full):
    whole = columns(range(10, 16), full=full)
    assert rows(whole.cut(1, 4)) == rows(whole)[1:4]
    assert rows(whole.select(b"\1\0\0\1\0\1")) == [rows(whole)[i] for i in (0, 3, 5)]
    for indexes in ([], [4], [5, 0, 2]):
        assert rows(whole.pick(indexes)) == [rows(whole)[i] for i in indexes]
    for part in (whole.cut(1, 4), whole.select(b"\1\0\0\1\0\1"), whole.pick([3])):
        assert isinstance(part.offsets, list)
        assert [column is None for column in part] == [column is None for column in whole]


@pytest.mark.parametrize(
    ("count", "head", "rest"),
    [
        (1, [(A, 1)], [(A, 1), (B, 2), (A, 1)]),
        (2, [(A, 2)], [(B, 2), (A, 1)]),
        (3, [(A, 2), (B, 1)], [(B, 1), (A, 1)]),
        (4, [(A, 2), (B, 2)], [(A, 1)]),
    ],
)
def test_a_split_divides_messages_and_parts_at_the_same_place(count, head, rest):
    chunk = Chunk(columns([10, 11, 70, 71, 12]), [Part(A, 2), Part(B, 2), Part(A, 1)], 100)
    first, second = chunk.split(count)
    assert (first.parts, second.parts) == (head, rest)
    assert (first.count, second.count) == (count, 5 - count)
    assert rows(first.columns) + rows(second.columns) == rows(chunk.columns)
    assert first.bytes_each == second.bytes_each == 100


def test_without_takes_out_every_part_of_an_opening():
    chunk = Chunk(columns([10, 11, 70, 71, 12]), [Part(A, 2), Part(B, 2), Part(A, 1)], 100)
    assert list(chunk.without({A}).columns.offsets) == [70, 71]
    assert chunk.without({A}).parts == [(B, 2)]
    assert list(chunk.without({B}).columns.offsets) == [10, 11, 12]
    assert chunk.without({A, B}).count == 0
    assert chunk.without(frozenset()) == chunk


def test_each_lane_gets_its_messages_in_order_with_their_parts():
    batch = columns([10, 11, 12, 70, 71], full=True)
    split = dict(split_by_lane(batch, [Part(A, 3), Part(B, 2)], bytes([255, 0, 255, 0, 0]), 50))
    assert sorted(split) == [0, 255]
    assert list(split[0].columns.offsets) == [11, 70, 71]
    assert split[0].parts == [(A, 1), (B, 2)]
    assert list(split[255].columns.offsets) == [10, 12]
    assert split[255].parts == [(A, 2)]
    assert rows(split[0].columns) == [rows(batch)[i] for i in (1, 3, 4)]


def test_one_lane_for_all_shares_the_columns():
    batch, parts = columns([10, 11]), [Part(A, 2)]
    ((lane, chunk),) = split_by_lane(batch, parts, bytes([3, 3]), 50)
    assert lane == 3
    assert chunk == Chunk(batch, [Part(A, 2)], 50)
    assert chunk.parts is not parts


def test_nothing_to_split_yields_nothing():
    assert list(split_by_lane(columns([]), [], b"", 1)) == []
