"""Fill a topic with exactly n messages: `python -m perf.lib.load TOPIC ...`, a process of its own.

Values are JSON of 100 bytes whose fields are random, from a store of 50,000 (5 MB, far more than
the 64 KiB in which lz4 finds repeats): payloads that compress to nothing would make fetching
unrealistically cheap. Keys are drawn evenly; the seed is fixed, so that every load is the same.
"""

import argparse
import random
import sys
from itertools import islice

from confluent_kafka import Producer

from perf.handlers import SLEEPER

VALUE_BYTES = 100
VALUES = 50_000
#: Messages between two calls that serve librdkafka's delivery reports.
STRIDE = 1000


def json_like(rng: random.Random) -> bytes:
    """Return one value of `VALUE_BYTES`."""
    head = (
        f'{{"id":{rng.randrange(10**9):09d},"user":"{rng.randrange(16**8):08x}",'
        f'"amount":{rng.randrange(10**6) / 100:08.2f},"note":"'
    )
    fill = VALUE_BYTES - len(head) - 2
    text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=fill))
    return f'{head}{text}"}}'.encode()


def load(options: argparse.Namespace) -> None:
    """Produce the messages; exits with 1 if one was not delivered."""
    rng = random.Random(options.seed)
    values = [json_like(rng) for _ in range(min(VALUES, options.count))]
    keys = [f"key-{number:05d}".encode() for number in range(options.keys)]
    producer = Producer(
        {
            "bootstrap.servers": options.brokers,
            "enable.idempotence": True,  # a produce that is tried again adds nothing twice
            "compression.type": "lz4",
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
        }
    )
    sleeper = SLEEPER + b"," + rng.choice(values)[1:]
    made = zip(
        rng.choices(keys, k=options.count), rng.choices(values, k=options.count), strict=True
    )
    for begin in range(0, options.count, STRIDE):
        for number, (key, value) in enumerate(islice(made, STRIDE), begin):
            marked = number == options.sleeper_at
            producer.produce(options.topic, sleeper if marked else value, key)
        producer.poll(0)
        while len(producer) > 800_000:
            producer.poll(0.1)
    sys.exit(1 if producer.flush(120) else 0)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("topic")
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--sleeper-at", type=int, default=-1, help="number of the marked message")
    parser.add_argument("--seed", type=int, default=20_261_101)
    load(parser.parse_args())


if __name__ == "__main__":
    main()
