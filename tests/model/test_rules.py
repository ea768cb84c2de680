"""Each rule of the protocol switched off: the model must notice.

The seeds in the table were found once. A change of the code moves the schedules, so that they may
have nothing to show any more: then others are tried, and if many are needed the table wants new
ones (`python -m tests.model 0:2000 --profile P --off "part of the rule's name"`).
"""

from itertools import chain

import pytest

from tests.model.rules import RULES
from tests.model.schedule import run

#: So many schedules are tried before a rule counts as unguarded.
SEEDS = 3000


@pytest.mark.parametrize("name", RULES)
def test_the_model_fails_without(name):
    rule = RULES[name]
    for seed in chain(rule.seeds, range(SEEDS)):
        if run(seed, profile=rule.profile, broken=rule.off).failure is not None:
            # The rule made the difference.
            assert run(seed, profile=rule.profile).failure is None
            return
    pytest.fail(f"{SEEDS} schedules of profile {rule.profile!r} pass without the rule: {name}")


def test_every_invariant_of_the_protocol_has_rules():
    """7 (nothing is left behind) and 8 (no half-visible state) are tested on real processes and
    on the ring."""
    assert {rule.invariant for rule in RULES.values()} == {1, 2, 3, 4, 5, 6}
