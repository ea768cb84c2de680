from array import array

from kqmp.core.batch import Chunk, Columns, Opening, Part
from kqmp.core.bays import Bay

A, B = Opening(1, 0, 0), Opening(2, 1, 0)


def chunk(*parts, bytes_each=10):
    """`(opening, first, count)` each."""
    offsets = [first + i for _, first, count in parts for i in range(count)]
    keys = [b"k"] * len(offsets)
    return Chunk(
        Columns(array("q", offsets), keys, list(keys)),
        [Part(opening, count) for opening, _, count in parts],
        bytes_each,
    )


def drain(bay, limit=100):
    taken = []
    while (piece := bay.take(limit)) is not None:
        taken.append(list(piece.columns.offsets))
    return taken


def test_an_empty_bay_gives_nothing():
    bay = Bay()
    assert bay.take(1) is None
    assert bay.peek() is None
    assert bay.held_low(A) is None
    assert (bay.count, bay.byte_count, list(bay.openings())) == (0, 0, [])


def test_messages_leave_in_order_one_chunk_at_most_at_a_time():
    bay = Bay()
    bay.append(chunk((A, 5, 3)))
    bay.append(chunk((A, 8, 2), (B, 0, 1)))
    assert (bay.count, bay.byte_count) == (6, 60)
    assert list(bay.peek().columns.offsets) == [5, 6, 7]
    assert drain(bay, limit=2) == [[5, 6], [7], [8, 9], [0]]
    assert (bay.count, bay.byte_count) == (0, 0)


def test_the_lowest_held_offset_follows_a_split_inside_a_part():
    bay = Bay()
    bay.append(chunk((A, 5, 4), (A, 20, 2)))
    for low in (6, 7, 8, 20, 21):
        bay.take(1)
        assert bay.held_low(A) == low
    bay.take(1)
    assert bay.held_low(A) is None
    assert list(bay.openings()) == []


def test_a_split_between_two_parts_leaves_the_index_alone():
    bay = Bay()
    bay.append(chunk((A, 5, 2), (A, 9, 2), (B, 40, 1)))
    bay.append(chunk((A, 30, 1)))
    bay.take(2)
    assert (bay.held_low(A), bay.held_low(B)) == (9, 40)
    bay.take(2)
    assert (bay.held_low(A), bay.held_low(B)) == (30, 40)
    bay.take(1)
    assert (bay.held_low(A), bay.held_low(B)) == (30, None)


def test_what_did_not_fit_goes_back_to_the_front():
    bay = Bay()
    bay.append(chunk((A, 5, 4), (B, 7, 1), (A, 9, 1)))
    taken = bay.take(5)
    assert (bay.held_low(A), bay.held_low(B)) == (9, None)
    bay.put_back(taken)
    assert (bay.held_low(A), bay.held_low(B)) == (5, 7)
    assert (bay.count, bay.byte_count) == (6, 60)
    assert drain(bay) == [[5, 6, 7, 8, 7], [9]]


def test_dropped_openings_leave_nothing_behind():
    bay = Bay()
    bay.append(chunk((A, 5, 2), (B, 7, 1)))
    bay.append(chunk((A, 9, 2), bytes_each=1000))
    assert bay.drop({Opening(3, 2, 0)}) == 0
    assert bay.drop({A}) == 4
    assert (bay.count, bay.byte_count) == (1, 10)
    assert list(bay.openings()) == [B]
    assert bay.held_low(A) is None
    assert drain(bay) == [[7]]
