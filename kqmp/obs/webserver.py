"""A small HTTP server on a thread: answers a few paths from what others have left in memory.

For the coordinator, which must never wait: requests are answered on threads of their own, which
read and never write. The listening socket is close-on-exec, as all of Python's are, so that no
child inherits it. No TLS, no authentication: bind it to an address that only the right ones reach.
"""

import contextlib
import logging
import os
import select
import socket
import socketserver
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from kqmp.obs.route import Reply, Route
from kqmp.obs.threads import leave_signals_to_main

#: A client that sends or takes nothing for so long is hung up on.
CLIENT_S: Final = 5.0
#: Requests that are answered at the same time; who comes beyond is hung up on. Each takes a thread
#: and a descriptor of the process, which it needs for its own children.
CLIENTS_MAX: Final = 32
#: A pause after a client could not be taken, as when there is no descriptor left.
RETRY_S: Final = 0.1

log = logging.getLogger("kqmp.http")


class WebServer:
    """Answers GET and HEAD of some paths; `/` lists them."""

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        """Take the port; nothing is answered before `start`.

        Args:
            host: name or address of this machine; "" = all of them.
            port: 0 = any free one, which `port` then tells.
            routes: path -> what answers it.

        Raises:
            OSError: the address is in use, or is none of this machine's.
        """
        self._server = _Server(host, port, dict(routes))
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        _servers.add(self)
        self._thread = threading.Thread(target=self._serve, name="kqmp-http", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on, until `close` or the end of the process."""
        self._thread.start()

    def close(self) -> None:
        """Give the port back."""
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        self._server.server_close()
        os.close(self._wake)

    def _serve(self) -> None:
        leave_signals_to_main()
        poller = select.poll()
        poller.register(self._server, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while self._wake not in (fd for fd, _ in poller.poll()):
            self._server.handle_request()

    def forget_in_fork(self) -> None:
        """In a forked child of the program: a port that it held would stay in use."""
        self._server.socket.close()


_servers: "weakref.WeakSet[WebServer]" = weakref.WeakSet()


def _after_fork() -> None:
    for server in list(_servers):
        server.forget_in_fork()


os.register_at_fork(after_in_child=_after_fork)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: `handle_request` is called when somebody has knocked.
    timeout: float | None = 0.0

    def __init__(self, host: str, port: int, routes: dict[str, Route]) -> None:
        self.routes = routes
        self._free = threading.BoundedSemaphore(CLIENTS_MAX)
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self._is_dual = not host and socket.has_dualstack_ipv6()
        wanted = socket.AF_INET6 if self._is_dual else found[0][0]
        address = next((item[4] for item in found if item[0] == wanted), ("::", port))
        self.address_family = wanted
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type] # (host, port)

    def server_bind(self) -> None:
        """Bind without asking a name server for our name, as the base class does."""
        if self._is_dual:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "kqmp", int(self.server_address[1])

    def get_request(self) -> Any:
        """Take a client; a failure does not come again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(RETRY_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread, if there are not too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer; runs on that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Make little of clients that hang up; what a route raises is told where it is called."""
        log.debug("a request of %s ended early: %s", client_address, sys.exception())


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_S  # type: ignore[mutable-override] # never None here
    server_version = "kqmp"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        reply = self._reply(self.path.partition("?")[0])
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            with contextlib.suppress(ConnectionError, TimeoutError):
                self.wfile.write(reply.body)

    def _reply(self, path: str) -> Reply:
        assert isinstance(self.server, _Server)
        routes = self.server.routes
        route = routes.get(path)
        listed = "".join(f"{known}\n" for known in sorted(routes)).encode()
        if route is None:
            return Reply(200, listed) if path == "/" else Reply(404, b"not found; try\n" + listed)
        try:
            return route(self.headers.get("Accept", ""))
        except Exception:
            log.exception("%s failed: a bug in kqmp, please report it", path)
            return Reply(500, b"failed; the log of the engine says why\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Log no requests."""
