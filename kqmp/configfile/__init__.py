"""Read the configuration of a consumer or a pusher from YAML, JSON or TOML and from flags.

Every problem is found at once and says where it is: `file:line:column`, or for TOML, which keeps no
lines, the key's path. No password ever stands in an error or a note.
"""

from kqmp.configfile.endpoint import Endpoint, load_endpoint
from kqmp.configfile.load import Flags, Loaded, load, load_from_flags
from kqmp.configfile.pusher import LoadedPusher, load_pusher, load_pusher_from_flags
from kqmp.configfile.sections import SERVICE_KEYS, TOP_LEVEL
from kqmp.configfile.several import Consumer, load_all, load_each

__all__ = [
    "SERVICE_KEYS",
    "TOP_LEVEL",
    "Consumer",
    "Endpoint",
    "Flags",
    "Loaded",
    "LoadedPusher",
    "load",
    "load_all",
    "load_each",
    "load_endpoint",
    "load_from_flags",
    "load_pusher",
    "load_pusher_from_flags",
]
