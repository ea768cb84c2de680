"""Posts go-zero's report of each minute to `MetricsUrl`, from a thread that may wait."""

import http.client
import json
import logging
import os
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from typing import Final

from kqmp.obs.metrics import Metrics, report
from kqmp.obs.threads import leave_signals_to_main

#: As in go-zero: connecting and each wait for an answer take no longer.
POST_S: Final = 5.0

log = logging.getLogger("kqmp.metrics_url")


class Poster:
    """Posts reports one after another; what comes while one is on its way waits, at most one.

    A failed post is logged and not tried again: the next report comes in a minute.
    """

    def __init__(self, url: str) -> None:
        """Post to an http or https URL; starts its thread."""
        self._url = url
        self._waiting: queue.Queue[Metrics] = queue.Queue(maxsize=1)
        threading.Thread(target=self._run, name="kqmp-metrics-url", daemon=True).start()

    def put(self, metrics: Metrics) -> None:
        """Have a minute posted; never waits. Left out if the one before it is not posted yet."""
        try:
            self._waiting.put_nowait(metrics)
        except queue.Full:
            log.warning("MetricsUrl: no answer for a minute, so this minute is left out")

    def _run(self) -> None:
        leave_signals_to_main()
        while True:
            error = post(self._url, self._waiting.get())
            if error:
                # Of its path and query no more: they may hold a token.
                place = urllib.parse.urlsplit(self._url)
                log.warning("MetricsUrl %s://%s: %s", place.scheme, place.netloc, error)


def post(url: str, metrics: Metrics) -> str:
    """Post one report; return why it failed, "" if it was taken. Waits up to `POST_S` twice."""
    now_s = int(datetime.now(tz=UTC).timestamp())
    body = json.dumps(report(metrics, now_s, os.getpid())).encode()
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "kqmp"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - checked: http or https
    try:
        with urllib.request.urlopen(request, timeout=POST_S):  # noqa: S310 - the same
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"answered {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
