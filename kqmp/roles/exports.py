"""What an engine tells the outside: pages, posts, and what a program or a parent is sent.

The coordinator calls it after each pass. It takes a snapshot a second, or an interval, and only if
somebody wants one; whatever may wait does so on threads, which get that snapshot and nothing else.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from kqmp.config import KqConf
from kqmp.obs import pages
from kqmp.obs.logs import RateLimited
from kqmp.obs.metrics import Metrics, between
from kqmp.obs.snapshot import Snapshot, pack, unpack
from kqmp.roles import control
from kqmp.roles.channel import Channel
from kqmp.roles.coordinator import Coordinator, Stage
from kqmp.roles.parent import Watcher
from kqmp.roles.snapshots import EVERY_S, Snapshots

if TYPE_CHECKING:
    from kqmp.obs.poster import Poster

#: The interval of `MetricsUrl`, as in go-zero.
MINUTE_S: Final = 60.0
#: What of an interval at the engine's end is told all the same.
REST_S: Final = 0.001

log = logging.getLogger("kqmp.coordinator")


class Interval:
    """The metrics of one interval after another."""

    def __init__(self, seconds: float) -> None:
        """Begin with the first snapshot."""
        self.seconds = seconds
        self._from: Snapshot | None = None

    def next(self, snapshot: Snapshot, *, at_least_s: float) -> Metrics | None:
        """Return the metrics up to a snapshot if so much time has passed; else None."""
        if self._from is None:
            self._from = snapshot
        if snapshot.at_s - self._from.at_s < at_least_s:
            return None
        metrics, self._from = between(self._from, snapshot), snapshot
        return metrics


class Exports:
    """The exports of one engine; where another process serves its pages, snapshots go there."""

    def __init__(
        self,
        conf: KqConf,
        parent: Channel | None = None,
        metrics_interval_ms: int = 0,
        *,
        relays: bool = False,
    ) -> None:
        """Take the ports, start the threads.

        Args:
            conf: says which pages and posts there are.
            parent: of this coordinator: a program, or the parent of several sections.
            metrics_interval_ms: how often the program is sent metrics; 0 = never.
            relays: whether that one serves the pages.

        Raises:
            ConfigError: a package is missing, or a host is none of this machine.
            WorkerStartError: a port is in use.
        """
        self._parent = parent
        self._relays = relays and bool(pages.pages_of("", conf))
        self._pages = pages.Pages({} if relays else {"": conf})
        self._poster = _poster(conf.metrics_url) if conf.metrics_url else None
        self._minute = Interval(MINUTE_S)
        self._told = Interval(metrics_interval_ms / 1000)
        is_wanted = self._relays or self._pages.wanted or self._poster or metrics_interval_ms
        #: 0 = nobody wants anything. A second, since two intervals may be no multiples of another.
        self._every_s = EVERY_S if is_wanted else 0.0
        self._taken_s = float("-inf")
        self._stage = Stage.RUNNING
        self._limit = RateLimited(log, limit=1)
        self._snapshots = Snapshots()
        self._pages.start()

    def __call__(self, coordinator: Coordinator, now_s: float) -> None:
        """Look at the engine after a pass, and once more at its end. Raises nothing."""
        try:
            self._look(coordinator, now_s)
        except Exception:
            # Nobody's messages wait for a number on a page.
            if self._limit.admit("exports failed"):
                log.exception("metrics: a bug in kqmp, please report it")

    def _look(self, coordinator: Coordinator, now_s: float) -> None:
        # A stop shows on the page of health at once.
        is_news = coordinator.stage is not self._stage
        if not self._every_s or (now_s - self._taken_s < self._every_s and not is_news):
            return
        self._taken_s, self._stage = now_s, coordinator.stage
        is_end = coordinator.stage is Stage.DONE
        snapshot = self._snapshots.take(coordinator, now_s)
        self._pages.put(snapshot)
        if self._relays:
            self._offer(control.Observed(pack(snapshot)))
        if self._poster is not None:
            minute = self._minute.next(snapshot, at_least_s=MINUTE_S)
            if minute is not None:
                self._poster.put(minute)
        if self._told.seconds:
            least_s = REST_S if is_end else self._told.seconds
            metrics = self._told.next(snapshot, at_least_s=least_s)
            if metrics is not None:
                self._offer(control.Metered(msgspec.msgpack.encode(metrics)))

    def close(self) -> None:
        """Give the ports back."""
        self._pages.close()

    def _offer(self, message: control.Message) -> None:
        """Send what the other end may as well miss, if it reads nothing."""
        if self._parent is not None:
            self._parent.offer(message)


def _poster(url: str) -> "Poster":
    from kqmp.obs.poster import Poster  # some MB, which most engines do not need

    return Poster(url)


class SharedPages:
    """The pages of queues of one program that have an address in common: the program serves them.

    A coordinator of its own each, none of them could: the first would take the port.
    """

    def __init__(self, confs: Mapping[str, KqConf]) -> None:
        """Take the ports that two or more share.

        Args:
            confs: of the queues, each under a name of its own.

        Raises:
            ConfigError: a package is missing, or a host is none of this machine.
            WorkerStartError: a port is in use.
        """
        addresses = {
            name: {(page.host, page.port) for page in pages.pages_of(name, conf)}
            for name, conf in confs.items()
        }
        counts = Counter(address for some in addresses.values() for address in some)
        shared = {address for address, count in counts.items() if count > 1}
        #: The queues whose pages are served here, all of them.
        self.names = {name for name, some in addresses.items() if some & shared}
        self._pages = pages.Pages({name: confs[name] for name in confs if name in self.names})
        self._pages.start()

    def show(self, name: str, packed: bytes) -> None:
        """Show a snapshot that the coordinator of a queue has sent."""
        self._pages.put(msgspec.structs.replace(unpack(packed), section=name))

    def close(self) -> None:
        """Give the ports back."""
        self._pages.close()


class PagesWatcher(Watcher):
    """Serves the pages of all sections in their parent."""

    def __init__(self, confs: dict[str, KqConf]) -> None:
        """Take the ports.

        Args:
            confs: by label.

        Raises:
            ConfigError: a package is missing, or a host is none of this machine.
            WorkerStartError: a port is in use.
        """
        self._pages = pages.Pages(confs)
        self._pages.start()

    def hear(self, section: str, message: control.Message) -> None:  # noqa: ARG002 - it says so
        """Show a snapshot that a coordinator has sent."""
        if isinstance(message, control.Observed):
            self._pages.put(unpack(message.snapshot))

    def close(self) -> None:
        """Give the ports back."""
        self._pages.close()
