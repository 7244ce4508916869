"""Models of fleets of request routers, MemDS and Metadata Stores, of any size.

Three ways to an answer, and each figure says which one it came by (`fleet.outcome.Layer`):

    closed   a formula of queueing theory or of plain arithmetic
    exact    every request simulated, one by one, by a compiled event loop
    cohort   requests represented by rates and masses, in steps of time

Percentiles come from the first two alone. Traffic of the third is never called simulated.
"""
