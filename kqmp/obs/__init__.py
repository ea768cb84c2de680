"""What the engine tells people: log records, counters, the stat line."""
