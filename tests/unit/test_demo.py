"""How `kqmp demo` judges: sabotaged ledgers, kills, a broker that forgot; and what it measures."""

import os
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from kqmp.cli import demo_handler, demo_load
from kqmp.cli.demo import Demo
from kqmp.cli.demo_engine import Kill, recovery_s
from kqmp.cli.demo_handler import Handler
from kqmp.cli.demo_ledger import Ledger, Record, Verdict, judge, open_for_append, parse
from kqmp.cli.demo_report import Outcome, problems, table
from kqmp.cli.demo_watch import Watch
from kqmp.cli.screen import Screen

KEYS, EACH = 3, 4
CRCS = [[100 * key + number for number in range(EACH)] for key in range(KEYS)]


def record(key: int, number: int, start_ns: int, end_ns: int = 0, pid: int = 1) -> Record:
    return Record(key, number, pid, CRCS[key][number], start_ns, end_ns or start_ns + 5)


def clean() -> list[Record]:
    """Return a ledger of all messages, handled one after another in turns."""
    order = [(key, number) for number in range(EACH) for key in range(KEYS)]
    return [record(key, number, 10 * place) for place, (key, number) in enumerate(order, 1)]


def outcome(records: list[Record], **changes: Any) -> Outcome:
    return Outcome(
        **{
            "messages": KEYS * EACH,
            "plain_messages": KEYS * EACH,
            "processors": 2,
            "plain": judge(clean(), CRCS),
            "engine": judge(records, CRCS),
            "committed": KEYS * EACH,
            **changes,
        }
    )


# ---- the judge


def test_a_clean_ledger_is_clean() -> None:
    verdict = judge(clean(), CRCS)
    assert verdict == Verdict(distinct=12, elapsed_ns=115, busy_ns=60, first_start_ns={1: 10})
    assert problems(outcome(clean())) == []


def test_the_order_of_writing_does_not_matter() -> None:
    assert judge(clean()[::-1], CRCS) == judge(clean(), CRCS)


@pytest.mark.parametrize("missing", range(KEYS * EACH))
def test_each_missing_message_is_seen(missing: int) -> None:
    records = clean()
    del records[missing]
    verdict = judge(records, CRCS)
    assert (verdict.lost, verdict.disordered) == (1, 0)
    assert problems(outcome(records)) == ["1 messages were lost"]


@pytest.mark.parametrize("key", range(KEYS))
@pytest.mark.parametrize("number", range(EACH - 1))
def test_each_swap_of_neighbours_of_a_key_is_seen(key: int, number: int) -> None:
    records = clean()
    first = next(i for i, r in enumerate(records) if (r.key, r.number) == (key, number))
    second = first + KEYS
    records[first], records[second] = (
        record(key, number, records[second].start_ns),
        record(key, number + 1, records[first].start_ns),
    )
    verdict = judge(records, CRCS)
    assert verdict.disordered == 1
    assert problems(outcome(records)) == ["1 messages were begun out of order"]


def test_two_messages_of_a_key_at_the_same_time_are_out_of_order() -> None:
    records = clean()
    # The second one of key 0 begins while the first one runs, and ends after it.
    records[0] = record(0, 0, 10, 40)
    assert judge(records, CRCS).disordered == 0
    records[0] = record(0, 0, 10, 41)
    assert judge(records, CRCS).disordered == 1


def test_a_message_of_a_lost_one_s_key_may_not_pass_the_ones_before() -> None:
    records = [r for r in clean() if (r.key, r.number) != (0, 1)]
    swapped = [r for r in records if (r.key, r.number) not in {(0, 0), (0, 2)}]
    swapped += [record(0, 0, 70), record(0, 2, 10)]
    verdict = judge(swapped, CRCS)
    assert (verdict.lost, verdict.disordered) == (1, 1)


def test_a_repeat_is_counted_and_breaks_no_order() -> None:
    records = [*clean(), record(0, 0, 500), record(0, 1, 510)]
    verdict = judge(records, CRCS)
    assert (verdict.distinct, verdict.repeated, verdict.disordered) == (12, 2, 0)


def test_a_repeat_before_its_turn_breaks_it() -> None:
    # Number 2 is begun before number 1 was done even once, and again later.
    records = [*clean(), record(0, 2, 12)]
    assert judge(records, CRCS).disordered == 1


def test_altered_and_invented_messages_are_no_proof_of_handling() -> None:
    records = clean()
    records[0] = records[0]._replace(crc=7)
    records += [
        Record(KEYS, 0, 1, 0, 900, 905),
        Record(0, EACH, 1, 0, 900, 905),
    ]
    verdict = judge(records, CRCS)
    assert (verdict.invented, verdict.lost) == (3, 1)
    assert "3 messages arrived altered" in problems(outcome(records))


def test_an_empty_ledger_lost_everything() -> None:
    verdict = judge([], CRCS)
    assert verdict.lost == KEYS * EACH
    assert verdict.per_second == 0.0
    assert problems(outcome([])) == ["12 messages were lost"]
    assert table(outcome([]))  # no division by zero


# ---- the report


def test_repeats_are_within_one_a_kill() -> None:
    records = [*clean(), record(0, 3, 500)]
    assert problems(outcome(records)) != []
    assert problems(outcome(records, recoveries_s=[0.1])) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"exit_code": 7}, "exit code 7"),
        ({"committed": 11}, "11 of 12 messages were committed"),
        ({"plain": judge(clean()[1:], CRCS)}, "the plain loop"),
    ],
)
def test_other_broken_promises_are_told(changes: dict[str, Any], told: str) -> None:
    (problem,) = problems(outcome(clean(), **changes))
    assert told in problem


def test_nothing_is_said_of_losses_when_the_mock_dropped_messages() -> None:
    one = outcome(clean()[1:], retained=False)
    (problem,) = problems(one)
    assert "says nothing about losses" in problem
    lost = next(line for line in table(one) if "lost" in line)
    assert lost.endswith("not known")


def test_the_table_shows_both_runs() -> None:
    plain = Verdict(distinct=12, elapsed_ns=2_000_000_000)
    engine = Verdict(distinct=12, elapsed_ns=1_000_000_000, repeated=1)
    lines = table(outcome([], plain=plain, engine=engine, recoveries_s=[0.25, 0.0, 0.5]))
    cells = {line[:22].strip(): line[22:].split() for line in lines[1:]}
    assert cells["seconds"] == ["2.0", "1.0"]
    assert cells["messages a second"] == ["6", "12"]
    assert cells["speed-up"] == ["1.00", "2.00"]
    assert cells["processors killed"] == ["-", "3"]
    assert cells["back at work after"] == ["-", "0.50", "s"]
    assert cells["repeated"] == ["-", "1"]
    assert cells["lost"] == ["-", "0"]
    assert cells["order of each key"] == ["-", "kept"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(("records", "code"), [(clean(), 0), (clean()[1:], 1)])
def test_the_exit_code_says_whether_all_was_as_promised(records: list[Record], code: int) -> None:
    assert Demo(Screen(None), torture=False).report(outcome(records)) == code


def test_recovery_is_the_time_to_the_successors_first_message() -> None:
    kill = Kill("0.1", 10, at_ns=1_000)
    places = {10: "0.1", 11: "0.1", 12: "0.1", 20: "0.0"}
    starts = {10: 500, 11: 2_000_000_000 + 1_000, 12: 9_000_000_000, 20: 1_500}
    assert recovery_s(kill, places, starts) == 2.0
    assert recovery_s(kill, places, {10: 500, 20: 1_500}) == 0.0


# ---- ledger and handler


def test_a_ledger_is_written_by_others_through_its_path() -> None:
    with Ledger() as ledger:
        ends = [open_for_append(ledger.path) for _ in range(2)]
        for place, one in enumerate(clean()):
            os.write(ends[place % 2], one.pack())
        assert ledger.count == 12
        assert ledger.read() == clean()
        assert ledger.read(10) == clean()[10:]
        for end in ends:
            os.close(end)


def test_half_a_record_is_no_record() -> None:
    data = clean()[0].pack()
    assert list(parse(data + data[:-1])) == [clean()[0]]


def test_the_watch_counts_different_messages_and_who_wrote() -> None:
    with Ledger() as ledger:
        watch = Watch(ledger, 3)
        end = open_for_append(ledger.path)
        assert watch.goes_on()
        for one in (record(0, 0, 10), record(0, 0, 20, pid=2), record(1, 0, 30, pid=2)):
            os.write(end, one.pack())
        assert watch.goes_on()
        assert watch.done == 2
        assert watch.take_active() == {1, 2}
        assert watch.take_active() == set()
        os.write(end, record(2, 0, 40).pack())
        assert not watch.goes_on()
        os.close(end)


def test_the_handler_writes_what_the_judge_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger() as ledger:
        monkeypatch.setenv(demo_handler.LEDGER_VARIABLE, ledger.path)
        monkeypatch.setenv(demo_handler.ROUNDS_VARIABLE, "3")
        handler = Handler()
        handler.setup()
        for key, number in demo_handler.messages(300):
            value = demo_handler.value_of(key, number)
            handler.consume(demo_handler.key_of(key), value)
        handler.close()
        verdict = judge(ledger.read(), demo_handler.crcs_of(300))
    assert (verdict.distinct, verdict.lost, verdict.invented, verdict.disordered) == (300, 0, 0, 0)


def test_messages_are_the_same_each_time_and_numbered_within_their_key() -> None:
    made = list(demo_handler.messages(5000))
    assert made == list(demo_handler.messages(5000))
    for key in range(demo_handler.KEYS):
        numbers = [number for one, number in made if one == key]
        assert numbers == list(range(len(numbers)))
    values = {demo_handler.value_of(key, number) for key, number in made}
    assert len({zlib.crc32(value) for value in values}) > 4990


def test_the_work_is_a_chain_of_hashes() -> None:
    assert demo_handler.work(b"x", 0) == b"x"
    assert demo_handler.work(b"x", 3) == demo_handler.work(demo_handler.work(b"x", 1), 2)


# ---- the load


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    monkeypatch.setattr(demo_load, "CALIBRATION_S", 0.001)

    def pretend(count: int) -> None:
        monkeypatch.setattr(demo_load, "usable_cores", lambda: (count, f"{count} (affinity)"))

    return pretend


@pytest.mark.parametrize(
    ("count", "messages", "work_us", "plain"),
    [
        (2, 100_000, 240, 25_000),
        (1, 100_000, 200, 25_000),
        (64, 100_000, 2000, 3000),
        (2, 1000, 2000, 250),
        (2, 1_000_000, 200, 30_000),
    ],
)
def test_a_message_costs_what_keeps_the_demo_short(
    cores: Callable[[int], None], count: int, messages: int, work_us: int, plain: int
) -> None:
    cores(count)
    load = demo_load.measure(messages, None)
    assert load.processors == count
    assert round(load.work_s * 1e6) == work_us
    assert load.plain_messages == plain
    assert load.rounds >= 1


def test_processors_beyond_the_cores_make_no_message_dearer(
    cores: Callable[[int], None],
) -> None:
    cores(2)
    assert demo_load.measure(100_000, 8).work_s == demo_load.measure(100_000, 2).work_s
    assert demo_load.measure(100_000, 8).processors == 8


@pytest.mark.parametrize(("used", "busy"), [(1.0, 0.0), (1.4, 0.0), (2.0, 1.0), (0.2, 0.0)])
def test_a_busy_machine_is_noticed(
    cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, used: float, busy: float
) -> None:
    cores(2)
    monkeypatch.setattr(demo_load, "_cores_used", lambda: used)
    assert demo_load.measure(1000, None).busy_cores == pytest.approx(busy)
