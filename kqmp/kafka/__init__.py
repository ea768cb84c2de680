"""The only importers of confluent_kafka: properties, the group member, checks, the mock cluster.

Loaded by fetchers, `kqmp check` and `kqmp demo`; never by the coordinator or a processor.
"""
