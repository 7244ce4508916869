"""Routers that read roots and pages beat by beat after a storm of splits, each request drawn."""

from __future__ import annotations

import numpy as np
from numba import njit

from fleet.cohort.splits import Storm
from fleet.exact.random import below, exponential, seeded, uniform
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError, Reason


@njit(cache=True)
def _run(  # type: ignore[no-untyped-def]
    seed,
    routers,
    all_tables,
    published_s,  # [table that was split]
    pages,  # new ones of each of these tables
    splits,
    beat_s,
    root_slots,
    pages_per_beat,
    rate_per_s,
    interval_s,
    intervals,
):
    state = seeded(seed)
    split_tables = published_s.size
    out = np.zeros(intervals)
    turn = max(1, int(np.ceil(all_tables / root_slots)))
    # Where in the turn the root of each table is.
    place = np.empty(split_tables, np.int64)
    mapped = np.empty(split_tables)
    for _ in range(routers):
        phase = uniform(state) * beat_s
        ahead = below(state, turn)
        for t in range(split_tables):
            place[t] = below(state, turn)
            mapped[t] = -1.0
        unread, beat = split_tables, 0
        # Pages come in the order in which their roots were read.
        waiting = np.empty(split_tables, np.int64)
        first, last = 0, 0
        while unread > 0:
            now = phase + beat * beat_s
            for t in range(split_tables):
                read = (ahead + beat) % turn == place[t]
                if read and mapped[t] < 0.0 and published_s[t] <= now:
                    waiting[last] = t
                    last += 1
                    mapped[t] = 0.0
            room = float(pages_per_beat)
            while first < last and pages <= room:
                mapped[waiting[first]] = now
                room -= pages
                first += 1
                unread -= 1
            beat += 1
        for t in range(split_tables):
            for _ in range(splits):
                asked = exponential(state, 1.0 / rate_per_s)
                if asked < mapped[t]:
                    at = int(asked / interval_s)
                    if at < intervals:
                        out[at] += 1.0
    return out


def run_exact_storm(storm: Storm, seed: int, interval_s: float, duration_s: float) -> Array:
    """Redirects of all routers in each interval. Routers remember all that they were told, so a
    storm must fit what they remember. Raises INVALID_ARGUMENT if the pages of one table are more
    than a router reads in a beat."""
    if storm.pages > storm.beats.pages_per_beat:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{storm.pages:g} new pages of a table; the exact layer takes"
            f" {storm.beats.pages_per_beat} at most",
        )
    counted: Array = _run(
        np.uint64(seed),
        int(sum(storm.beats.routers)),
        int(storm.beats.tables),
        storm.published_s(),
        storm.pages,
        storm.splits,
        storm.beats.reader.beat_s,
        storm.beats.reader.root_slots,
        storm.beats.pages_per_beat,
        storm.rate_per_s,
        interval_s,
        round(duration_s / interval_s),
    )
    return counted
