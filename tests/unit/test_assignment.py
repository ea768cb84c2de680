"""The fetcher's side of a partition's life, with a member, a dispatcher and a channel of straw."""

from collections import deque

import pytest

from kqmp.config import KqConf
from kqmp.kafka.member import Bounds, KafkaError, KafkaException
from kqmp.roles import control
from kqmp.roles.assignment import Assignment

P, Q = 0, 1


class Member:
    """Records what it is asked; `refuses` is how many commits in a row are refused."""

    topic = "t"

    def __init__(self):
        self.known = {P: 10, Q: 20}
        self.ends = Bounds(5, 90)
        self.commits = []
        self.reading = {}
        self.refuses = 0
        self.is_away = False

    def committed(self, partitions):
        if self.is_away:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return {p: self.known[p] for p in partitions}

    def bounds(self, partitions):
        return dict.fromkeys(partitions, self.ends)

    def commit_start(self, positions):
        self.commits.append(positions)

    def commit_now(self, positions):
        self.commits.append(positions)
        if self.refuses:
            self.refuses -= 1
            raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION))
        return positions

    def read_from(self, positions):
        self.reading |= positions

    def stop_reading(self, partitions):
        for p in partitions:
            self.reading.pop(p, None)


class Dispatcher:
    pending = False

    def __init__(self):
        self.dropped = []

    def drop(self, openings):
        self.dropped += [opening.partition for opening in openings]
        return 0

    def beat(self):
        pass


class Channel:
    """What the coordinator says comes from `inbox`, one list a wait."""

    closed = False

    def __init__(self):
        self.said = []
        self.inbox = deque()

    def tell(self, message):
        self.said.append(message)

    def wait(self, timeout_s):
        if self.inbox:
            return self.inbox.popleft()
        self.closed = True  # nobody answers: do not wait in real time
        return []

    def heard(self, kind):
        return [message for message in self.said if isinstance(message, kind)]


@pytest.fixture
def parts():
    conf = KqConf(brokers=["b"], group="g", topic="t", offset="first", drain_timeout="1ms")
    channel, dispatcher, member = Channel(), Dispatcher(), Member()
    made = Assignment(conf, channel, dispatcher)
    made.member = member
    return made, channel, member


def opened(made, partition=P, epoch=7, position=10):
    made.assigned([partition])
    grant = made._channel.heard(control.Claims)[-1].grant
    made.open(control.Opens(grant, [(partition, epoch, position)]))
    return grant


def test_a_claim_tells_the_committed_position_and_its_opening_is_read(parts):
    made, channel, member = parts
    grant = opened(made, position=12)
    assert channel.heard(control.Claims) == [control.Claims(grant, [(P, 10)])]
    assert member.reading == {P: 12}
    # What was finished before and is not committed counts as under way.
    assert made.openings[P].committed_position == 10


def test_a_start_is_chosen_and_committed_where_the_group_has_none(parts):
    made, channel, member = parts
    member.known[P] = None
    made.assigned([P])
    assert member.commits == [{P: 5}]
    assert channel.heard(control.Claims) == [control.Claims(1, [(P, 5)], reset=True)]


def test_claims_wait_until_the_brokers_answer(parts):
    made, channel, member = parts
    member.is_away = True
    made.assigned([P])
    assert not channel.heard(control.Claims)
    member.is_away = False
    made.claim()
    assert channel.heard(control.Claims) == [control.Claims(1, [(P, 10)])]


def test_an_answer_to_an_earlier_grant_opens_nothing(parts):
    made, _, member = parts
    made.assigned([P])
    made.open(control.Opens(0, [(P, 7, 10)]))
    made.open(control.Opens(1, [(Q, 8, 20)]))
    assert not made.openings
    assert not member.reading


def test_a_revoke_commits_the_final_positions_and_confirms_them(parts):
    made, channel, member = parts
    grant = opened(made)
    channel.inbox.append([control.Closes(grant, [(P, 7, 30)])])
    made.revoked([P])
    assert channel.heard(control.Released) == [control.Released(grant, [P], answered=True)]
    assert member.commits == [{P: 30}]
    assert channel.heard(control.Committed) == [control.Committed([(P, 7, 30)])]


def test_a_final_commit_is_no_news_while_another_is_unanswered(parts):
    """librdkafka may send the other one again, after it: then the position is set back."""
    made, channel, member = parts
    grant = opened(made)
    made.unanswered = {P: (7, 25)}
    channel.inbox.append([control.Closes(grant, [(P, 7, 30)])])
    made.revoked([P])
    assert member.commits == [{P: 30}]
    assert not channel.heard(control.Committed)


def test_a_late_answer_to_an_earlier_revoke_is_not_committed(parts):
    """The coordinator was slow: P was given up without a word, another member has it by now."""
    made, channel, member = parts
    opened(made, P)
    grant = opened(made, Q, epoch=8, position=20)
    made.revoked([P])
    channel.closed = False
    channel.inbox += [
        [control.Closes(grant, [(P, 7, 30)])],
        [control.Closes(grant, [(Q, 8, 40)])],
    ]
    made.revoked([Q])
    assert member.commits == [{Q: 40}]


def test_where_there_is_nothing_to_commit_nothing_is_committed(parts):
    made, channel, member = parts
    grant = opened(made)
    channel.inbox.append([control.Closes(grant, [(P, 7, -1)])])
    made.revoked([P])
    assert member.commits == []


def test_what_is_lost_is_released_and_not_committed(parts):
    made, channel, member = parts
    grant = opened(made)
    made.lost([P])
    assert channel.heard(control.Released) == [
        control.Released(grant, [P], answered=False, lost=True)
    ]
    assert not made.openings
    assert member.commits == []


def test_out_of_range_chooses_a_new_start(parts):
    made, channel, member = parts
    grant = opened(made)
    made.out_of_range(P, 10)
    assert member.reading == {}
    assert member.commits == [{P: 5}]
    assert channel.heard(control.Claims)[-1] == control.Claims(grant, [(P, 5)], reset=True)


def test_what_a_rebalance_took_in_the_same_fetch_is_not_chosen_anew(parts):
    made, channel, member = parts
    opened(made)
    made.lost([P])
    made.out_of_range(P, 10)
    assert member.commits == []
    assert len(channel.heard(control.Claims)) == 1


def test_no_start_is_chosen_while_a_commit_of_the_old_position_is_unanswered(parts):
    """The broker could take that one last, above messages that nobody has read."""
    made, _, member = parts
    opened(made)
    made.unanswered = {P: (7, 30)}
    made.out_of_range(P, 10)
    assert member.commits == []
    made.unanswered = {}
    made.claim()
    assert member.commits == [{P: 5}]


def test_no_position_is_read_while_a_commit_is_unanswered(parts):
    """The broker could take it after that: the position would look like one set back."""
    made, channel, _ = parts
    opened(made)
    made.unanswered = {P: (7, 25)}
    made.lost([P])
    made.assigned([P, Q])
    assert channel.heard(control.Claims)[1:] == [control.Claims(2, [(Q, 20)])]
    made.unanswered = {}
    made.claim()
    assert channel.heard(control.Claims)[-1] == control.Claims(2, [(P, 10)])


def test_a_revoke_waits_for_what_was_out_of_range(parts):
    """Lanes may still hold messages of it."""
    made, channel, _ = parts
    grant = opened(made)
    made.unanswered = {P: (7, 30)}
    made.out_of_range(P, 10)
    channel.inbox.append([control.Closes(grant, [(P, 7, -1)])])
    made.revoked([P])
    assert channel.heard(control.Released)[-1] == control.Released(grant, [P], answered=True)
    assert not made.unclaimed


def test_while_the_engine_stops_nothing_is_claimed_nor_read(parts):
    made, channel, member = parts
    made.assigned([P])
    made.stopping = True
    made.assigned([Q])
    assert channel.heard(control.Claims) == [control.Claims(1, [(P, 10)])]
    made.open(control.Opens(1, [(P, 7, 15)]))
    assert member.reading == {}
    # It may have to be committed, though.
    assert made.openings[P].epoch == 7
