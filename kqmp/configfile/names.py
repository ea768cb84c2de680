"""Which key a user may have meant. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from kqmp.config.keys import KEYS, Key

#: A foreign key this near to one of ours is taken for a misspelling.
NEAR = 2


def edit_distance(left: str, right: str) -> int:
    """How many single letters must be put in, left out or changed (Levenshtein)."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        above_left, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            above = row[j]
            row[j] = min(above + 1, row[j - 1] + 1, above_left + (a != b))
            above_left = above
    return row[-1]


def misspelt(name: str, keys: Iterable[Key] = KEYS) -> Key | None:
    """The nearest key at most `NEAR` edits away, upper and lower case alike; None if there is none.

    A name of one or two letters is never taken for a misspelling: anything is near to it.
    """
    folded = name.lower()
    if not NEAR < len(folded) < 40:
        return None
    near = [(edit_distance(folded, key.kq.lower()), key) for key in keys]
    distance, key = min(near, key=lambda pair: pair[0])
    return key if distance <= NEAR else None


def unknown(name: object, keys: Iterable[Key] = KEYS) -> str:
    """The text of an error for a key that is none of `keys`, to stand after its name."""
    text = name if isinstance(name, str) else ""
    keys = tuple(keys)
    key = misspelt(text, keys)
    guess = key.kq if key else next(iter(_alike(text, keys)), None)
    if guess:
        return f"unknown key; did you mean {guess}?"
    return f"unknown key; use one of {', '.join(key.kq for key in keys)}"


def _alike(text: str, keys: Iterable[Key]) -> list[str]:
    by_kq = {key.kq.lower(): key.kq for key in keys}
    # Snake case is how Python spells these keys; underscores alone are no reason to find nothing.
    folded = text[:40].lower().replace("_", "")
    return [by_kq[name] for name in difflib.get_close_matches(folded, by_kq, n=1, cutoff=0.7)]
