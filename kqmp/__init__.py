"""kqmp: a Kafka consumer engine whose handlers run on every core."""

__version__ = "0.1.0"
