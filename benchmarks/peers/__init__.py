"""The contestants of `benchmarks.throughput`: each a process that does segments of work on request.

A peer runs in an environment of its own, so these modules import nothing of ours but each other;
`ours` and `reference` are the exceptions.
"""
