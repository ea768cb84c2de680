"""A bay: messages bound for a lane that is full, in order, still in the fetcher.

A full lane holds back only itself (but see `drain`): its messages wait here while other lanes go
on, also with later offsets of the same partition. All messages of a lane pass its bay first-in
first-out, so that the offsets of one partition ascend on each lane. Bounds are the business of the
fetcher, which stops fetching when all bays together hold too much.
"""

from collections import deque
from collections.abc import Iterable

from kqmp.core.batch import Chunk, Opening


class Bay:
    """The bay of one lane."""

    __slots__ = ("_chunks", "_firsts", "byte_count", "count")

    def __init__(self) -> None:
        """Start empty."""
        self._chunks: deque[Chunk] = deque()
        #: Opening -> first offset of each of its parts held here, oldest first. Gives the lowest
        #: held offset without looking at messages.
        self._firsts: dict[Opening, deque[int]] = {}
        self.count = 0
        self.byte_count = 0

    def append(self, chunk: Chunk) -> None:
        """Put a chunk behind all others."""
        self._chunks.append(chunk)
        self._index(chunk, self._firsts)
        self.count += chunk.count
        self.byte_count += chunk.count * chunk.bytes_each

    def peek(self) -> Chunk | None:
        """Return the oldest chunk, left in place."""
        return self._chunks[0] if self._chunks else None

    def take(self, limit: int) -> Chunk | None:
        """Remove and return the oldest messages: at most one chunk and at most `limit` >= 1."""
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        if chunk.count > limit:
            chunk, rest = chunk.split(limit)
            self._chunks.appendleft(rest)
            self._unindex(chunk, rest)
        else:
            self._unindex(chunk, None)
        self.count -= chunk.count
        self.byte_count -= chunk.count * chunk.bytes_each
        return chunk

    def put_back(self, chunk: Chunk) -> None:
        """Return what `take` gave, to the front, since it did not fit after all."""
        self._chunks.appendleft(chunk)
        start = 0
        seen: dict[Opening, list[int]] = {}
        for opening, count in chunk.parts:
            seen.setdefault(opening, []).append(chunk.columns.offsets[start])
            start += count
        for opening, firsts in seen.items():
            self._firsts.setdefault(opening, deque()).extendleft(reversed(firsts))
        self.count += chunk.count
        self.byte_count += chunk.count * chunk.bytes_each

    def held_low(self, opening: Opening) -> int | None:
        """Return the lowest offset of `opening` held here, or None."""
        firsts = self._firsts.get(opening)
        return firsts[0] if firsts else None

    def openings(self) -> Iterable[Opening]:
        """Return the openings with messages here."""
        return self._firsts.keys()

    def drop(self, openings: set[Opening]) -> int:
        """Remove all messages of `openings` and return how many they were."""
        if openings.isdisjoint(self._firsts):
            return 0
        before = self.count
        kept = [chunk.without(openings) for chunk in self._chunks]
        self._chunks.clear()
        self._firsts.clear()
        self.count = self.byte_count = 0
        for chunk in kept:
            if chunk.count:
                self.append(chunk)
        return before - self.count

    @staticmethod
    def _index(chunk: Chunk, firsts: dict[Opening, deque[int]]) -> None:
        start = 0
        for opening, count in chunk.parts:
            firsts.setdefault(opening, deque()).append(chunk.columns.offsets[start])
            start += count

    def _unindex(self, taken: Chunk, rest: Chunk | None) -> None:
        """Take the parts of `taken`, the oldest here, off the index; `rest` follows them."""
        for opening, _ in taken.parts:
            firsts = self._firsts[opening]
            firsts.popleft()
            if not firsts:
                del self._firsts[opening]
        if rest is None:
            return
        # Where the split went through a part, its remainder is not in the index: all that is there
        # lies above it, since the offsets of an opening ascend.
        opening, first = rest.parts[0].opening, rest.columns.offsets[0]
        if self.held_low(opening) != first:
            self._firsts.setdefault(opening, deque()).appendleft(first)
