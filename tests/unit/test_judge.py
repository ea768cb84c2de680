"""The judge of ledgers is itself judged: each wrong it looks for is seen, and only that."""

from collections.abc import Sequence

import pytest

from tests.support.judge import (
    Kill,
    Observation,
    Produced,
    commit_problems,
    judge,
    unbounded_repeats,
)
from tests.support.ledger import END, FAILED, START, Ledger, Record, Tail, key_field


def message(uid: int, key: bytes | None = b"k", offset: int | None = None) -> Produced:
    return Produced(uid, 0, uid if offset is None else offset, key, 7)


def record(kind: int, uid: int, pid: int = 1, ns: int = 0, key: bytes | None = b"k") -> Record:
    return Record(kind, 0, pid, uid, ns, key_field(key), uid, 7)


def handled(*uids: int, pid: int = 1) -> list[Record]:
    """Return the records of one process that handles these, one after another."""
    return [record(kind, uid, pid, 10 * uid + kind) for uid in uids for kind in (START, END)]


MESSAGES = [message(uid) for uid in range(3)]


def wrongs(records: Sequence[Record], produced: Sequence[Produced] = MESSAGES) -> str:
    return " ".join(judge(produced, records).problems())


def test_a_clean_ledger_has_no_wrongs() -> None:
    verdict = judge(MESSAGES, handled(0, 1, 2))
    verdict.assert_sound(duplicates_at_most=0)
    assert (verdict.handled, verdict.starts, verdict.duplicates) == (3, 3, 0)


def test_a_message_that_only_started_is_lost() -> None:
    assert "1 lost" in wrongs([*handled(0, 1), record(START, 2)])


def test_what_nobody_produced_or_what_was_altered_is_invented() -> None:
    assert "2 invented" in wrongs(handled(0, 1, 2, 3))
    altered = record(END, 1)._replace(crc=8)
    assert "1 invented" in wrongs([*handled(0), record(START, 1), altered, *handled(2)])
    other_key = record(START, 1, key=b"other")
    assert "1 invented" in wrongs([*handled(0), other_key, record(END, 1), *handled(2)])
    shifted = [r._replace(offset=r.offset + 1) for r in handled(2)]
    assert "2 invented" in wrongs([*handled(0, 1), *shifted])


def test_a_later_message_before_an_earlier_one_ended_breaks_the_order() -> None:
    assert "order breaks" in wrongs(handled(0, 2, 1))
    # Another key owes this one nothing.
    produced = [message(0), message(1, b"other"), message(2)]
    swapped = [
        record(START, 1, key=b"other"),
        record(END, 1, key=b"other"),
        *handled(0, 2),
    ]
    assert not wrongs(swapped, produced)


def test_a_replay_breaks_no_order() -> None:
    verdict = judge(MESSAGES, handled(0, 1, 0, 1, 2))
    verdict.assert_sound()
    assert verdict.repeats == {0: 1, 1: 1}
    with pytest.raises(AssertionError, match="2 duplicates > 1"):
        verdict.assert_sound(duplicates_at_most=1)


def test_one_key_in_two_processes_at_once_is_an_overlap() -> None:
    both = [record(START, 0, 1), record(START, 0, 2), record(END, 0, 1), record(END, 0, 2)]
    assert "1 overlaps" in wrongs([*both, *handled(1, 2)])


def test_a_killed_process_leaves_no_overlap() -> None:
    assert not wrongs([record(START, 0, 1), *handled(0, 1, 2, pid=2)])


def test_partition_order_looks_at_all_keys_and_unordered_at_none() -> None:
    produced = [message(0, b"a"), message(1, b"b")]
    swapped = [record(kind, uid, key=key) for uid, key in ((1, b"b"), (0, b"a")) for kind in (1, 2)]
    assert judge(produced, swapped, ordering="partition").order_breaks
    assert not judge(produced, swapped, ordering="key").order_breaks
    produced = MESSAGES[:2]
    assert not judge(produced, handled(1, 0), ordering="unordered").problems()


def test_a_failure_finishes_only_where_it_is_passed_over() -> None:
    failed = [record(START, 0), record(FAILED, 0), *handled(1, 2)]
    assert not judge(MESSAGES, failed).problems()
    retried = judge(MESSAGES, failed, final={END})
    assert retried.lost
    assert retried.order_breaks
    mended = judge(MESSAGES, [*failed[:2], *handled(0, 1, 2)], final={END})
    mended.assert_sound(duplicates_at_most=0)


def test_a_commit_above_an_unfinished_offset_is_seen() -> None:
    records = handled(0, 2, 1)  # ends at 2, 22, 12
    assert not commit_problems([Observation(13, {0: 2})], MESSAGES, records)
    assert commit_problems([Observation(11, {0: 2})], MESSAGES, records)
    assert commit_problems([Observation(13, {0: 3})], MESSAGES, records)
    assert not commit_problems([Observation(13, {0: 3})], MESSAGES, records, excused={2})
    never = handled(0, 2)
    assert commit_problems([Observation(99, {0: 3})], MESSAGES, never)


def test_a_commit_that_goes_back_is_seen() -> None:
    seen = [Observation(40, {0: 3}), Observation(41, {0: 2})]
    assert "went back" in commit_problems(seen, MESSAGES, handled(0, 1, 2))[0]


def test_each_repeat_needs_a_kill_that_accounts_for_it() -> None:
    dead = [*handled(0, 1), record(START, 2, ns=23)]
    again = [record(kind, uid, 2, 50 + uid) for uid in (1, 2) for kind in (START, END)]
    processor = Kill(30, "processor", 1, {0: 0})
    problems, counts = unbounded_repeats(MESSAGES, dead + again, [processor])
    assert len(problems) == 1
    assert "without a cause" in problems[0]
    assert counts == {"processor": 1}
    fetcher = Kill(30, "fetcher", 9, {0: 1})
    problems, counts = unbounded_repeats(MESSAGES, dead + again, [fetcher])
    assert not problems
    assert counts == {"fetcher": 2}
    problems, _ = unbounded_repeats(MESSAGES, dead + again, [fetcher._replace(committed={0: 2})])
    assert "below the committed position 2" in problems[0]
    problems, _ = unbounded_repeats(MESSAGES, dead + again, [fetcher._replace(ns=60)])
    assert len(problems) == 2


class Shown:
    """What a handler is shown."""

    partition = 3
    offset = 5
    key = None
    value = b"12 body"


def test_a_ledger_is_read_as_it_was_written(tmp_path) -> None:
    path = tmp_path / "ledger"
    tail = Tail(path)
    assert not tail.poll()
    pen = Ledger(str(path))
    pen.start(Shown)
    assert [(r.kind, r.uid, r.partition, r.offset) for r in tail.poll()] == [(START, 12, 3, 5)]
    assert not tail.ended
    with pytest.raises(ZeroDivisionError), pen.handling(Shown):
        raise ZeroDivisionError
    with pytest.raises(SystemExit), pen.handling(Shown):
        raise SystemExit
    assert [r.kind for r in tail.poll()] == [START, FAILED, START]
    assert tail.ended == {12}
    assert next(iter(tail.records)).key == key_field(None)
    assert tail.written == 4
