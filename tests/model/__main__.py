"""Replay: `python -m tests.model SEED` tells the story of one schedule.

python -m tests.model 1234                   what happens under seed 1234
python -m tests.model 0:5000                 which of these seeds fail
python -m tests.model 1234 --profile late    with what its profile is rich in
python -m tests.model 0:100 --off skip       with the rules off whose name holds this text
"""

import argparse
import sys
import time
import traceback
from contextlib import ExitStack, contextmanager

from tests.model.profiles import PROFILES
from tests.model.rules import RULES
from tests.model.schedule import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.model")
    parser.add_argument("seeds", help="SEED or FIRST:LAST")
    parser.add_argument("--profile", default="", choices=("", *PROFILES))
    parser.add_argument("--off", default="", help="part of the names of rules to switch off")
    options = parser.parse_args()

    @contextmanager
    def broken():
        with ExitStack() as stack:
            for name, rule in RULES.items():
                if options.off and options.off in name:
                    stack.enter_context(rule.off())
            yield

    if ":" in options.seeds:
        first, last = map(int, options.seeds.split(":"))
        failed = 0
        started = time.monotonic()
        for seed in range(first, last):
            outcome = run(seed, profile=options.profile, broken=broken)
            if outcome.failure is not None:
                failed += 1
                print(outcome.failure, flush=True)
        print(f"{last - first} schedules, {failed} failed, {time.monotonic() - started:.1f} s")
        return int(failed > 0)
    outcome = run(int(options.seeds), profile=options.profile, keep_story=True, broken=broken)
    print("\n".join(outcome.story))
    print(f"{outcome.turns} turns, {dict(outcome.counts)}")
    if outcome.failure is not None:
        traceback.print_exception(outcome.failure.error)
        print(outcome.failure)
    return int(outcome.failure is not None)


if __name__ == "__main__":
    sys.exit(main())
