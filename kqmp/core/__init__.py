"""Pure decisions: no I/O, no clock, no process, no librdkafka. Time comes in as an argument.

`bays` and `slots` and `depth` decide in the fetcher what goes where; `inflight` and `life` decide
in the coordinator what may be committed and who owns a partition; `supervision` and `backoff`
decide what follows a death.
"""
