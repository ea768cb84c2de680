"""The only importers of confluent_kafka: properties, the group member, checks, the mock cluster.

Loaded by fetchers and by the commands that talk to brokers themselves (`check`, `tail`, `lag`,
`topic`, `demo`); never by the coordinator or a processor.
"""
