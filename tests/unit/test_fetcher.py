"""What a fetcher does with commits that come while one is unanswered."""

from types import SimpleNamespace

from kqmp.core.batch import Opening
from kqmp.roles.fetcher import Fetcher


def test_commits_cut_into_several_messages_all_go_out() -> None:
    sent: list[dict[int, int]] = []
    fetcher = Fetcher.__new__(Fetcher)
    fetcher._next_commit = {}
    openings = {p: Opening(p + 1, p, 0) for p in range(3)}
    fetcher._assignment = SimpleNamespace(openings=openings, unanswered={})  # type: ignore[assignment]
    fetcher._channel = SimpleNamespace(tell=lambda _: None)  # type: ignore[assignment]
    fetcher._member = SimpleNamespace(commit_later=sent.append)  # type: ignore[assignment]
    for partition in range(3):
        fetcher._commit([(partition, partition + 1, 10)])
    assert sent == [{0: 10}]
    fetcher._committed(None, [(0, 10)])
    assert sent == [{0: 10}, {1: 10, 2: 10}]
