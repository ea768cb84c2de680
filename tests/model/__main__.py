"""Replay: `python -m tests.model SEED [RULE]` tells the story of one schedule.

    python -m tests.model 1234                what happens under seed 1234
    python -m tests.model 1234 no-skip-list   the same with a rule switched off
    python -m tests.model 0:5000              which of these seeds fail
"""

import sys
import time
import traceback

from tests.model.schedule import run


def main(argv: list[str]) -> int:
    if ":" in argv[0]:
        first, last = map(int, argv[0].split(":"))
        failed = 0
        started = time.monotonic()
        for seed in range(first, last):
            outcome = run(seed)
            if outcome.failure is not None:
                failed += 1
                print(outcome.failure, flush=True)
        print(f"{last - first} schedules, {failed} failed, {time.monotonic() - started:.1f} s")
        return bool(failed)
    outcome = run(int(argv[0]), keep_story=True)
    print("\n".join(outcome.story))
    print(f"{outcome.turns} turns, {dict(outcome.counts)}")
    if outcome.failure is not None:
        traceback.print_exception(outcome.failure.error)
        print(outcome.failure)
    return outcome.failure is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
