"""What `perf/engine` is made of: broker and topics, engines, measuring, rows, report."""
