"""What a ledger proves: nothing lost, nothing invented, order kept, duplicates counted.

Pure functions of three lists: what the producer had acknowledged, what the handlers wrote down, and
what an outside observer saw committed. None of it comes from the engine.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.ledger import END, FAILED, NO_OFFSET, START, Record, key_field

#: A failure message shows so many examples of each kind.
EXAMPLES = 5

#: Kinds of record after which a message is finished. Where failures are retried: `END` alone.
FINAL = frozenset({END, FAILED})


class Produced(NamedTuple):
    """A message that the brokers acknowledged."""

    uid: int
    partition: int
    offset: int
    key: bytes | None
    crc: int


class Observation(NamedTuple):
    """The group's committed positions (partition -> next offset) as they were at `ns`."""

    ns: int
    positions: dict[int, int]


@dataclass
class Verdict:
    """What a ledger proves of one topic's messages."""

    produced: int
    #: Distinct messages with an end record (a failed call counts: its end was seen).
    handled: int = 0
    starts: int = 0
    lost: list[Produced] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    #: A message started while an earlier one of its key in that partition was not finished.
    order_breaks: list[str] = field(default_factory=list)
    #: Two processes had messages of one key at once.
    overlaps: list[str] = field(default_factory=list)
    #: uid -> how often its handler was started beyond the first time.
    repeats: Counter[int] = field(default_factory=Counter)

    @property
    def duplicates(self) -> int:
        """Handler starts beyond the first, over all messages."""
        return sum(self.repeats.values())

    def problems(self) -> list[str]:
        """Return what must never be, in words."""
        kinds: list[tuple[str, Sequence[object]]] = [
            ("lost", self.lost),
            ("invented", self.invented),
            ("order breaks", self.order_breaks),
            ("overlaps", self.overlaps),
        ]
        return [f"{len(found)} {name}: {found[:EXAMPLES]}" for name, found in kinds if found]

    def assert_sound(self, duplicates_at_most: int | None = None) -> None:
        """Fail if anything was lost, invented or out of order, or too much repeated."""
        problems = self.problems()
        if duplicates_at_most is not None and self.duplicates > duplicates_at_most:
            worst = self.repeats.most_common(EXAMPLES)
            problems.append(f"{self.duplicates} duplicates > {duplicates_at_most}: {worst}")
        assert not problems, "; ".join(problems)

    def __str__(self) -> str:
        return (
            f"{self.produced} messages, {self.starts} handler calls, {self.duplicates} duplicates,"
            f" {len(self.lost)} lost, {len(self.order_breaks)} order breaks,"
            f" {len(self.overlaps)} overlaps"
        )


def judge(
    produced: Collection[Produced],
    records: Iterable[Record],
    *,
    ordering: str = "key",
    final: Collection[int] = FINAL,
    excused: Collection[int] = (),
) -> Verdict:
    """Judge a whole ledger.

    Args:
        produced: what the brokers acknowledged; of one topic.
        records: the ledger, in file order; gone through more than once.
        ordering: "key", "partition" or "unordered": what is owed.
        final: kinds of record that finish a message.
        excused: uids that need no end (set aside, or not to be read at all).
    """
    verdict = Verdict(len(produced))
    by_uid = {message.uid: message for message in produced}
    ended = {record.uid for record in records if record.kind in final}
    verdict.handled = len(ended & by_uid.keys())
    verdict.lost = [m for m in produced if m.uid not in ended and m.uid not in excused]
    _find_invented(by_uid, records, verdict)
    starts = Counter(record.uid for record in records if record.kind == START)
    verdict.starts = starts.total()
    # A start that follows a failure which finished nothing is a retry, not a duplicate.
    retries = Counter(r.uid for r in records if r.kind == FAILED and r.kind not in final)
    verdict.repeats = Counter(
        {uid: more for uid, n in starts.items() if (more := n - 1 - retries[uid]) > 0}
    )
    if ordering != "unordered":
        lines = _lines(by_uid, ordering, excused)
        _find_order_breaks(by_uid, records, lines, final, verdict)
    return verdict


def _find_invented(
    by_uid: Mapping[int, Produced], records: Iterable[Record], verdict: Verdict
) -> None:
    for record in records:
        message = by_uid.get(record.uid)
        if message is None:
            verdict.invented.append(f"uid {record.uid} was never acknowledged")
        elif record.crc != message.crc or record.key != key_field(message.key):
            verdict.invented.append(f"{message} arrived altered: {record}")
        elif record.offset not in (NO_OFFSET, message.offset):
            verdict.invented.append(f"{message} was shown with offset {record.offset}")
        elif record.offset != NO_OFFSET and record.partition != message.partition:
            verdict.invented.append(f"{message} was shown in partition {record.partition}")


class _Line:
    """The messages of one key (or partition) in offset order, and how far they are finished."""

    __slots__ = ("finished", "holder", "low", "uids")

    def __init__(self) -> None:
        self.uids: list[int] = []
        #: All uids before this index are finished.
        self.low = 0
        self.finished: set[int] = set()
        #: (pid, uid) of the last start, None after its end.
        self.holder: tuple[int, int] | None = None

    def finish(self, uid: int) -> None:
        self.finished.add(uid)
        while self.low < len(self.uids) and self.uids[self.low] in self.finished:
            self.finished.discard(self.uids[self.low])
            self.low += 1


def _lines(
    by_uid: Mapping[int, Produced], ordering: str, excused: Collection[int]
) -> dict[int, tuple[_Line, int]]:
    """Return uid -> (its line, its place there) of all messages whose order is owed."""
    lines: defaultdict[object, _Line] = defaultdict(_Line)
    places: dict[int, tuple[_Line, int]] = {}
    for message in sorted(by_uid.values(), key=lambda m: (m.partition, m.offset)):
        if message.uid in excused or (message.key is None and ordering == "key"):
            continue
        name = message.partition if ordering == "partition" else (message.partition, message.key)
        line = lines[name]
        places[message.uid] = (line, len(line.uids))
        line.uids.append(message.uid)
    return places


def _find_order_breaks(
    by_uid: Mapping[int, Produced],
    records: Iterable[Record],
    places: Mapping[int, tuple[_Line, int]],
    final: Collection[int],
    verdict: Verdict,
) -> None:
    for record in records:
        if record.uid not in places:
            continue
        line, index = places[record.uid]
        if record.kind == START:
            if index > line.low:
                waiting = by_uid[line.uids[line.low]]
                verdict.order_breaks.append(f"{by_uid[record.uid]} started before {waiting} ended")
            line.holder = (record.pid, record.uid)
            continue
        if line.holder != (record.pid, record.uid):
            verdict.overlaps.append(
                f"{by_uid[record.uid]} ended in {record.pid} after another start"
            )
        else:
            line.holder = None
        if record.kind in final:
            line.finish(record.uid)


def in_hands(records: Iterable[Record], pids: Collection[int]) -> set[int]:
    """Return the uids that each of these (dead) processes may have had in its hands.

    That is the last message each one began: its end may stand in the ledger too, written before
    the engine could take note of it.
    """
    last: dict[int, int] = {}
    for record in records:
        if record.kind == START and record.pid in pids:
            last[record.pid] = record.uid
    return set(last.values())


class Kill(NamedTuple):
    """A kill -9 by the test, with the committed positions that were read just before it."""

    ns: int
    role: str
    pid: int
    committed: dict[int, int]


def unbounded_repeats(
    produced: Iterable[Produced], records: Iterable[Record], kills: Sequence[Kill]
) -> tuple[list[str], Counter[str]]:
    """Return repeats that no kill accounts for, and how many each role's kills do account for.

    A killed processor accounts for what it had in its hands. A fetcher or a coordinator accounts
    for what lies at or above the committed position at its kill: since that position its messages
    may have been handled and are read again.
    """
    by_uid = {message.uid: message for message in produced}
    handed = in_hands(records, {kill.pid for kill in kills if kill.role == "processor"})
    losses = [kill for kill in kills if kill.role != "processor"]
    times = [kill.ns for kill in losses]
    seen: set[int] = set()
    problems: list[str] = []
    counts: Counter[str] = Counter()
    for record in records:
        if record.kind != START or record.uid not in by_uid:
            continue
        if record.uid not in seen:
            seen.add(record.uid)
            continue
        message = by_uid[record.uid]
        last = bisect_left(times, record.ns) - 1
        committed = losses[last].committed.get(message.partition, 0) if last >= 0 else None
        if record.uid in handed:
            handed.discard(record.uid)
            counts["processor"] += 1
        elif committed is None:
            problems.append(f"{message} repeated without a cause")
        elif message.offset < committed:
            problems.append(f"{message} repeated below the committed position {committed}")
        else:
            counts[losses[last].role] += 1
    return problems, counts


def commit_problems(
    observations: Sequence[Observation],
    produced: Iterable[Produced],
    records: Iterable[Record],
    *,
    final: Collection[int] = FINAL,
    excused: Collection[int] = (),
) -> list[str]:
    """Return where a committed position passed an unfinished offset or went back.

    Valid where nobody set positions back. `final` and `excused` are as in `judge`.
    """
    first_end: dict[int, int] = dict.fromkeys(excused, 0)
    for record in records:
        if record.kind in final:
            first_end.setdefault(record.uid, record.ns)
    offsets: defaultdict[int, list[int]] = defaultdict(list)
    done_ns: defaultdict[int, list[float]] = defaultdict(list)
    for message in sorted(produced, key=lambda m: (m.partition, m.offset)):
        offsets[message.partition].append(message.offset)
        before = done_ns[message.partition]
        ended = first_end.get(message.uid, float("inf"))
        before.append(max(ended, before[-1] if before else 0))
    problems = []
    last: dict[int, int] = {}
    for ns, positions in observations:
        for partition, position in positions.items():
            if position < last.get(partition, 0):
                problems.append(f"[{partition}] went back from {last[partition]} to {position}")
            last[partition] = position
            below = bisect_left(offsets[partition], position)
            if below and done_ns[partition][below - 1] > ns:
                problems.append(f"[{partition}] stood at {position} before all below was finished")
    return problems
