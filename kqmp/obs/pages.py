"""The pages of `Prometheus` and `DevServer`: which there are, and what they say.

One process serves them for all its engines: the coordinator of one, or the parent of several. It
puts down the latest snapshot of each; the web server's threads only read. Pages of several sections
at one address are one page, on which the label `section` tells them apart.
"""

import errno
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from kqmp.config import KqConf
from kqmp.errors import ConfigError, WorkerStartError
from kqmp.obs import exposition
from kqmp.obs.route import Reply, Route
from kqmp.obs.snapshot import Snapshot, health

if TYPE_CHECKING:
    from kqmp.obs.webserver import WebServer

_NOT_INSTALLED: Final = 501


class Page(NamedTuple):
    """One page that a section asks for."""

    #: The key that asks: "Prometheus" or "DevServer".
    key: str
    section: str
    host: str
    port: int
    path: str
    is_health: bool = False
    #: What the page of health says while all is well.
    well: str = "OK"


def pages_of(section: str, conf: KqConf) -> list[Page]:
    """Return the pages that a section asks for."""
    pages = []
    own, dev = conf.prometheus, conf.dev_server
    if own is not None and own.host:
        pages.append(Page("Prometheus", section, own.host, own.port, own.path))
    if dev is not None and dev.enabled:
        at = partial(Page, "DevServer", section, dev.host, dev.port)
        pages.append(at(dev.health_path, is_health=True, well=dev.health_response))
        if dev.enable_metrics:
            pages.append(at(dev.metrics_path))
    return pages


def problem(conf: KqConf, is_installed: Callable[[], bool] = exposition.is_installed) -> str:
    """Say what keeps a configuration's pages from being served; "" if nothing does."""
    own = conf.prometheus
    if own is not None and own.host and not is_installed():
        return f"Prometheus: needs the package prometheus-client: {exposition.INSTALL}"
    return ""


def notes(conf: KqConf, is_installed: Callable[[], bool] = exposition.is_installed) -> list[str]:
    """Return what may surprise about a configuration's pages."""
    dev = conf.dev_server
    if dev is None or not (dev.enabled and dev.enable_metrics) or is_installed():
        return []
    return [
        f"DevServer: no {dev.metrics_path}, which needs prometheus-client: {exposition.INSTALL}"
    ]


class Pages:
    """The pages of some sections, served."""

    def __init__(self, confs: Mapping[str, KqConf]) -> None:
        """Take the ports; nothing is answered before `start`.

        Args:
            confs: section's key ("" without one) -> its configuration.

        Raises:
            ConfigError: prometheus-client is missing, two pages contradict, or a host is none of
                this machine.
            WorkerStartError: a port is in use, or not for us. No fault of the file: the same start
                succeeds when the port is free.
        """
        self._snapshots: dict[str, Snapshot] = {}
        self._servers: list[WebServer] = []
        problems = [text for text in map(problem, confs.values()) if text]
        if problems:
            raise ConfigError(*dict.fromkeys(problems))
        pages = [page for section, conf in confs.items() for page in pages_of(section, conf)]
        try:
            for address, routes in self._routes(pages).items():
                self._servers.append(_listening(address, routes, pages))
        except BaseException:
            self.close()
            raise

    @property
    def wanted(self) -> bool:
        """Whether there is any page."""
        return bool(self._servers)

    @property
    def ports(self) -> list[int]:
        """The ports that are listened on."""
        return [server.port for server in self._servers]

    def put(self, snapshot: Snapshot) -> None:
        """Show this from now on. Any thread; never waits."""
        self._snapshots[snapshot.section] = snapshot

    def start(self) -> None:
        """Answer from now on."""
        if self._servers:
            # Now, not while the first scrape waits.
            exposition.prepare()
        for server in self._servers:
            server.start()

    def close(self) -> None:
        """Give the ports back."""
        for server in self._servers:
            server.close()
        self._servers = []

    def _routes(self, pages: list[Page]) -> dict[tuple[str, int], dict[str, Route]]:
        groups: defaultdict[tuple[str, int], defaultdict[str, list[Page]]]
        groups = defaultdict(lambda: defaultdict(list))
        for page in pages:
            groups[page.host, page.port][page.path].append(page)
        found: dict[tuple[str, int], dict[str, Route]] = {}
        for address, paths in groups.items():
            routes = found.setdefault(address, {})
            for path, some in paths.items():
                if len({page.is_health for page in some}) > 1:
                    msg = f"{path} of port {address[1]} is to show health and metrics: change one"
                    raise ConfigError(f"{some[0].key}: {msg}")
                show = self._health if some[0].is_health else self._metrics
                routes[path] = partial(show, some)
        return found

    def _metrics(self, pages: list[Page], accept: str) -> Reply:
        if not exposition.is_installed():
            return Reply(_NOT_INSTALLED, f"metrics need {exposition.INSTALL}\n".encode())
        # Prometheus and DevServer of one section may have their page at the same place.
        sections = dict.fromkeys(page.section for page in pages)
        snapshots = [self._snapshots.get(section) for section in sections]
        body, kind = exposition.render([s for s in snapshots if s is not None], accept)
        return Reply(200, body, kind)

    def _health(self, pages: list[Page], _accept: str) -> Reply:
        now_s = time.monotonic()
        told = {page.section: health(self._snapshots.get(page.section), now_s) for page in pages}
        unwell = [f"{name}: {why}" if name else why for name, why in told.items() if why]
        if unwell:
            return Reply(503, "".join(f"{line}\n" for line in unwell).encode())
        return Reply(200, pages[0].well.encode())


def _listening(
    address: tuple[str, int], routes: Mapping[str, Route], pages: list[Page]
) -> "WebServer":
    """Take one port, or say whose key it is and why it cannot be had."""
    from kqmp.obs.webserver import WebServer  # some MB, which most engines do not need

    host, port = address
    try:
        return WebServer(host, port, routes)
    except (OSError, UnicodeError) as error:  # a name too long or with an empty part is the latter
        page = next(page for page in pages if (page.host, page.port) == address)
        key = f"{page.section}.{page.key}" if page.section else page.key
        shown = f"{host or '*'}:{port}"
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            msg = f"{key}: Port: {shown} is in use by another process; choose another Port"
            raise WorkerStartError(msg) from None
        if number == errno.EACCES:
            msg = f"{key}: Port: {shown} is not for this user; choose a Port above 1023"
            raise WorkerStartError(msg) from None
        reason = getattr(error, "strerror", None) or error
        msg = f"{key}: Host: {host!r} is no address of this machine ({reason})"
        raise ConfigError(f"{msg}; use 127.0.0.1, 0.0.0.0 or one that `ip address` shows") from None
