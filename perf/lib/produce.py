"""The measured producers in Python: `python -m perf.lib.produce KIND ...`, a process of its own.

Both push the lines of a file, under the same keys, with a librdkafka producer opened in the same
way. The last line of the output is JSON: how many, how many failed, the seconds from
before the first push until all was acknowledged, and the CPU time of all threads meanwhile.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from pathlib import Path

from kqmp import Pusher, PusherConf
from kqmp.kafka.producer import open_producer

FLUSH_S = 120.0

Pairs = Iterable[tuple[bytes, bytes]]
#: Pushes all and returns how many were lost.
Run = Callable[[Pairs], int]


def kqmp(conf: PusherConf) -> Run:
    """Use `kqmp.Pusher` as a program does."""
    lost = 0

    def on_error(_message: object, _error: object) -> None:
        nonlocal lost
        lost += 1

    pusher = Pusher.from_config(conf, on_error=on_error)

    def run(pairs: Pairs) -> int:
        for key, value in pairs:
            pusher.push(value, key)
        return pusher.flush(FLUSH_S) + lost

    return run


def loop(conf: PusherConf) -> Run:
    """Run the loop of confluent-kafka's own examples."""
    lost = 0

    def on_delivery(error: object, _message: object) -> None:
        nonlocal lost
        if error is not None:
            lost += 1

    producer = open_producer(conf, "all", on_delivery).producer
    topic, produce, poll = conf.topic, producer.produce, producer.poll

    def run(pairs: Pairs) -> int:
        for key, value in pairs:
            while True:
                try:
                    produce(topic, value, key, on_delivery=on_delivery)
                    break
                except BufferError:
                    poll(0.1)
            poll(0)
        return producer.flush(FLUSH_S) + lost

    return run


KINDS: dict[str, Callable[[PusherConf], Run]] = {"kqmp": kqmp, "loop": loop}


def main() -> None:
    """Push the lines and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--file", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--keys", type=int, required=True)
    options = parser.parse_args()
    conf = PusherConf(brokers=options.brokers, topic=options.topic)
    with Path(options.file).open("rb") as file:
        lines = [line.rstrip(b"\n") for line in islice(file, options.count)]
    keys = cycle([b"key-%05d" % number for number in range(options.keys)])
    run = KINDS[options.kind](conf)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    lost = run(zip(keys, lines, strict=False))
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    print(json.dumps({"count": len(lines), "lost": lost, "seconds": seconds, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
