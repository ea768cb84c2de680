"""What a page answers; apart from the web server, which only processes that have pages import."""

from collections.abc import Callable
from typing import NamedTuple


class Reply(NamedTuple):
    """What is answered."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


#: Called with the header Accept, on any of the server's threads.
Route = Callable[[str], Reply]
