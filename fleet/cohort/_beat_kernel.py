"""The compiled time steps of `fleet.cohort.beats`, which says what they mean."""

from __future__ import annotations

import numpy as np
from numba import njit

# Columns of the result, one row per step.
ARRIVED, SERVED, DETOURED, FAILED = 0, 1, 2, 3
ASKED, ANSWERED, LOST, WRITES, COVERAGE, AGE, AGE_MAX, FULL = 4, 5, 6, 7, 8, 9, 10, 11
COLUMNS = 12


@njit(cache=True)
def run(  # type: ignore[no-untyped-def]
    step_s,
    routers,  # [cohort]
    rate_per_s,  # requests at one router, at load 1
    load,  # [step]
    capacity,  # [step]: MemDS requests per second
    control,  # [step]: whether the publisher works
    bound,  # MemDS requests that may wait
    beat_steps,
    requests_per_beat,
    pages,
    pages_per_beat,
    publish_steps,
    pages_per_publish,
    writes_per_publish,
    detours_per_s,  # of one router
    covered,  # [cohort]: share of the map held at the start
    aligned,  # whether all routers of a cohort beat at once
    full,  # share of the map that MemDS holds at the start
    empty_steps,  # [event]: when MemDS is emptied
    lost_steps,  # [event], rising: when routers lose their map
    lost_shares,  # [event, cohort]: of the routers
):
    steps, cohorts = load.size, routers.size
    out = np.zeros((steps, COLUMNS))
    # Of each cohort and phase of the beat: share of the map held, and until when it was true.
    held = np.empty((cohorts, beat_steps))
    true_until = np.zeros((cohorts, beat_steps))
    weight = np.zeros((cohorts, beat_steps))
    for k in range(cohorts):
        for phase in range(beat_steps):
            held[k, phase] = covered[k]
            weight[k, phase] = routers[k] / beat_steps
        if aligned:
            weight[k, :] = 0.0
            weight[k, 0] = routers[k]
    published = 0.0
    queued = 0.0
    everyone = routers.sum()
    # Kept up as they change, so that a step costs as much as the routers that beat in it.
    total_held = (weight * held).sum()
    total_true = 0.0
    lost_event, empty_event = 0, 0
    for n in range(steps):
        row = out[n]
        now = n * step_s
        while empty_event < empty_steps.size and empty_steps[empty_event] <= n:
            full = 0.0
            empty_event += 1
        if control[n] > 0.0 and n % publish_steps == 0:
            published = now
            full = min(1.0, full + pages_per_publish / pages)
            row[WRITES] = writes_per_publish
        while lost_event < lost_steps.size and lost_steps[lost_event] <= n:
            for k in range(cohorts):
                held[k, :] *= 1 - lost_shares[lost_event, k]
            total_held = (weight * held).sum()
            lost_event += 1
        # The routers whose beat it is ask; nothing else makes them, and nothing stops them.
        phase = n % beat_steps
        asked = 0.0
        for k in range(cohorts):
            asked += weight[k, phase] * requests_per_beat
        able = capacity[n] * step_s
        room = max(0.0, bound + able - queued)
        share = 1.0 if asked <= room else room / asked
        queued = max(0.0, queued + asked * share - able)
        if capacity[n] <= 0.0:
            # Nobody answers: what waits is lost when its caller gives up, within the beat.
            share, queued = 0.0, 0.0
        row[ASKED], row[ANSWERED], row[LOST] = asked, asked * share, asked * (1 - share)
        # Either of a beat's two visits brings the roots; each brings half of the pages.
        news = 1 - (1 - share) ** 2
        for k in range(cohorts):
            w = weight[k, phase]
            if w == 0.0:
                continue
            gained = min(1 - held[k, phase], share * pages_per_beat / pages * full)
            held[k, phase] += gained
            total_held += w * gained
            newer = (published - true_until[k, phase]) * news
            true_until[k, phase] += newer
            total_true += w * newer
        covered_now = min(1.0, max(0.0, total_held / everyone))
        arrived = everyone * rate_per_s * load[n] * step_s
        unknown = arrived * (1 - covered_now)
        detoured = min(unknown, everyone * detours_per_s * step_s)
        row[ARRIVED], row[SERVED] = arrived, arrived - unknown
        row[DETOURED], row[FAILED] = detoured, unknown - detoured
        row[COVERAGE], row[FULL] = covered_now, full
        row[AGE] = now - total_true / everyone
        # The oldest are those that beat next.
        oldest = now
        for k in range(cohorts):
            ahead = (phase + 1) % beat_steps if not aligned else 0
            oldest = min(oldest, true_until[k, ahead])
        row[AGE_MAX] = now - oldest
    return out
