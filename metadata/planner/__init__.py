"""What is done about hot, large and cold partitions without being asked.

`watch` remembers what storage nodes report, `rules` say what follows from it, `planner` does it, at
a bounded rate.
"""
