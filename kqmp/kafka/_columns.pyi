from typing import TypeAlias

import confluent_kafka as ck

from kqmp.kafka.payload import Headers

#: runs (partition, count); offsets, keys, values, timestamps, their types, headers; bytes of all
#: values; errors (partition, offset, code, text)
Taken: TypeAlias = tuple[
    list[tuple[int, int]],
    list[int],
    list[bytes | None],
    list[bytes | None],
    list[int] | None,
    bytes | None,
    list[Headers] | None,
    int,
    list[tuple[int, int, int, str]],
]

VERSION: int

def find_library(path: str) -> bool: ...

class Reader:
    def __init__(self, consumer: ck.Consumer, timestamps: bool, headers: bool) -> None: ...
    def forward(self, topic: str, partition: int) -> None: ...
    def read(self, count: int, timeout_ms: int) -> Taken | None: ...
    def close(self) -> None: ...
