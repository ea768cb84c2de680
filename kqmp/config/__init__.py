"""The configuration of an engine: `KqConf`, its table of keys, its units.

May know the standard library, msgspec and `kqmp.errors`; reading files is `kqmp.configfile`.
"""

from kqmp.config.conf import Duration, KqConf, Size
from kqmp.config.cores import usable_cores
from kqmp.config.keys import KEYS, Key
from kqmp.config.properties import KafkaProperties
from kqmp.config.secret import Secret

__all__ = [
    "KEYS",
    "Duration",
    "KafkaProperties",
    "Key",
    "KqConf",
    "Secret",
    "Size",
    "usable_cores",
]
