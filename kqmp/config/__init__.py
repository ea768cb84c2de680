"""The configuration of an engine: `KqConf`, its table of keys, its units.

May know the standard library, msgspec and `kqmp.errors`; reading files is `kqmp.configfile`.
"""

from kqmp.config.conf import Duration, KqConf, Size
from kqmp.config.cores import usable_cores
from kqmp.config.keys import KEYS, Key
from kqmp.config.properties import KafkaProperties
from kqmp.config.pusher_conf import PusherConf
from kqmp.config.pusher_keys import PUSHER_KEYS
from kqmp.config.secret import Secret
from kqmp.config.service import DevServer, Log, Prometheus

__all__ = [
    "KEYS",
    "PUSHER_KEYS",
    "DevServer",
    "Duration",
    "KafkaProperties",
    "Key",
    "KqConf",
    "Log",
    "Prometheus",
    "PusherConf",
    "Secret",
    "Size",
    "usable_cores",
]
