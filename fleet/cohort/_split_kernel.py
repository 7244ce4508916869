"""The compiled time steps of `fleet.cohort.splits`, which says what they mean."""

from __future__ import annotations

import numpy as np
from numba import njit

# Columns of the result, one row per step.
REDIRECTS, UNKNOWN, LEARNED, MAPPED, FORGOTTEN = 0, 1, 2, 3, 4
COLUMNS = 5


@njit(cache=True)
def run(  # type: ignore[no-untyped-def]
    step_s,
    steps,
    splits,  # [group]: splits of the tables whose roots are published together
    tables,  # [group]
    published_s,  # [group]: when
    turn_s,  # of a router through all roots
    pages,  # new ones of each table
    pages_per_s,  # that a router reads
    rate_per_s,  # requests at one router for one partition that was split
    learned_max,  # splits of one table that a router remembers beside its map
):
    out = np.zeros((steps, COLUMNS))
    groups = splits.size
    # Splits of one router: not known yet, told by a storage node, in the map.
    unknown = splits.copy()
    learned = np.zeros(groups)
    # Of the tables, those whose root has not been read, and those that wait for their pages.
    unread = np.ones(groups)
    waiting = np.zeros(groups)
    asks = -np.expm1(-rate_per_s * step_s)
    for n in range(steps):
        row = out[n]
        now = n * step_s
        for g in range(groups):
            if unknown[g] + learned[g] <= 0.0:
                continue
            # Each that is asked for is redirected once: the answer says how it is now.
            told = unknown[g] * asks
            unknown[g] -= told
            learned[g] += told
            row[REDIRECTS] += told
            over = learned[g] - learned_max * tables[g]
            if over > 0.0:
                learned[g] -= over
                unknown[g] += over
                row[FORGOTTEN] += over
            # Roots are read evenly over a turn from their publication on.
            since = min(step_s, now + step_s - published_s[g])
            if since > 0.0:
                left = published_s[g] + turn_s - (now + step_s - since)
                read = unread[g] * (1.0 if left <= since else since / left)
                unread[g] -= read
                waiting[g] += read
        wanted = 0.0
        for g in range(groups):
            wanted += waiting[g] * tables[g] * pages
        # Those that wait share what a router reads.
        share = 1.0 if wanted <= pages_per_s * step_s else pages_per_s * step_s / wanted
        for g in range(groups):
            before = unread[g] + waiting[g]
            if before > 0.0:
                waiting[g] -= waiting[g] * share
                remains = (unread[g] + waiting[g]) / before
                unknown[g] *= remains
                learned[g] *= remains
        row[UNKNOWN] = unknown.sum()
        row[LEARNED] = learned.sum()
        row[MAPPED] = splits.sum() - row[UNKNOWN] - row[LEARNED]
    return out
