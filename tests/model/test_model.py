"""Thousands of drawn schedules of the whole protocol; none may break a rule.

A failure names its seed. `python -m tests.model SEED` tells what happened under it;
`KQMP_MODEL_SEEDS=100000` runs more of them.
"""

import os

import pytest

from tests.model.profiles import PROFILES
from tests.model.schedule import run

SEEDS = int(os.environ.get("KQMP_MODEL_SEEDS", "1600"))
#: Schedules of one test.
CHUNK = max(100, SEEDS // 40)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_schedule_breaks_a_rule(first):
    outcomes = [run(seed) for seed in range(first, min(first + CHUNK, SEEDS))]
    failures = [str(outcome.failure) for outcome in outcomes if outcome.failure is not None]
    assert not failures, "\n".join([*failures, "replay with: python -m tests.model SEED"])


@pytest.mark.parametrize("profile", PROFILES)
def test_schedules_meet_what_their_profile_is_rich_in(profile):
    """A model in which nothing happens proves nothing."""
    outcomes = [run(seed, profile=profile) for seed in range(40)]
    assert not [str(outcome.failure) for outcome in outcomes if outcome.failure is not None]
    counts = sum((outcome.counts for outcome in outcomes), start=outcomes[0].counts)
    assert all(counts[fault] for fault in PROFILES[profile].faults)
    assert counts["repeats"]


def test_a_seed_says_everything():
    one, other = (run(7, keep_story=True) for _ in range(2))
    assert one.story == other.story
    assert len(one.story) > 50
