"""Tells the user what the engine does: banner, notes, stat lines, live status, exit summary.

The coordinator calls it after each pass. It reads the processors' shared counters and never
writes; what it costs is a few hundred words of shared memory a second, or a minute.
"""

import logging
import os
from typing import Final

from kqmp.obs import stats
from kqmp.obs.status import LiveLine
from kqmp.roles import banner, control
from kqmp.roles.channel import Channel
from kqmp.roles.coordinator import Coordinator, Stage
from kqmp.roles.snapshots import is_up, lane_counts
from kqmp.roles.tree import Plan, Tree

LIVE_S: Final = 1.0
MINUTE_S: Final = 60.0
#: Claims come partition by partition: their sum is told when none came for so long.
QUIET_S: Final = 1.0

log = logging.getLogger("kqmp.coordinator")


class Reporter:
    """The `report` of one coordinator."""

    def __init__(self, plan: Plan, live: LiveLine, parent: Channel | None) -> None:
        """Report on what `plan` runs; `parent` is told when the engine has started."""
        self._plan = plan
        self._live = live
        self._parent = parent
        self._first: stats.Sample | None = None
        self._minute = self._second = stats.Sample(0.0)
        self._told_partitions = self._told_start = False
        self._unread = 0
        self._unread_s = 0.0

    def __call__(self, coordinator: Coordinator, now_s: float) -> None:
        """Look at the engine after a pass."""
        tree = coordinator.tree
        if self._first is None:
            self._first = self._minute = self._second = sample(tree, now_s)
        if coordinator.stage is Stage.DONE:
            self._end(coordinator, now_s)
            return
        self._note(coordinator, now_s)
        if self._plan.conf.log.stat and now_s - self._minute.at_s >= MINUTE_S:
            self._minute = self._tell(tree, now_s)
        if self._live.is_possible and now_s - self._second.at_s >= LIVE_S:
            now = sample(tree, now_s)
            interval = stats.between(self._second, now)
            self._live.show(stats.live_line(self._plan.name, interval, now, gauges(tree)))
            self._second = now

    def _tell(self, tree: Tree, now_s: float) -> stats.Sample:
        now = sample(tree, now_s)
        interval = stats.between(self._minute, now)
        log.info("%s", stats.minute_line(self._plan.name, interval, now, gauges(tree)))
        return now

    def _note(self, coordinator: Coordinator, now_s: float) -> None:
        """Tell what became known since the last pass."""
        tree = coordinator.tree
        if tree.topic_partitions and not self._told_partitions:
            self._told_partitions = True
            log.info("%s", banner.partitions_note(self._plan.conf, tree.topic_partitions))
            log.info("%s", banner.path_note(tree.slow_because))
        if not self._told_start and all(fetcher.started for fetcher in tree.fetchers):
            self._told_start = True
            if self._parent is not None:
                self._parent.send(control.Started())
        if coordinator.positions.unread != self._unread:
            self._unread, self._unread_s = coordinator.positions.unread, now_s
        elif self._unread_s and now_s - self._unread_s >= QUIET_S:
            self._unread_s = 0.0
            log.warning("note: %s", banner.unread_note(self._unread))

    def _end(self, coordinator: Coordinator, now_s: float) -> None:
        self._live.hide()
        if self._first is None or not self._told_start:
            return
        now = sample(coordinator.tree, now_s)
        whole = stats.between(self._first, now)
        left = coordinator.positions.uncommitted()
        line = stats.exit_line(self._plan.name, whole, now, gauges(coordinator.tree), left)
        log.info("%s", line)


def sample(tree: Tree, at_s: float) -> stats.Sample:
    """Read all lanes' counters."""
    slots = [slot for fetcher in tree.fetchers for slot in fetcher.lanes]
    return stats.total(at_s, [lane_counts(slot) for slot in slots])


def gauges(tree: Tree) -> stats.Gauges:
    """Read what is so now."""
    return stats.Gauges(
        lag=sum(fetcher.lag for fetcher in tree.fetchers),
        running=sum(is_up(slot) for fetcher in tree.fetchers for slot in fetcher.lanes),
        restarts=sum(slot.restarts for slot in tree.slots()),
    )


def live_line(*, wanted: bool) -> LiveLine:
    """Return the status line on stderr; one that shows nothing unless `wanted`."""
    return LiveLine(2 if wanted else -1, os.environ)
