"""The compiled time steps of `fleet.cohort.lookups`, which says what they mean."""

from __future__ import annotations

import numpy as np
from numba import njit

# Columns of the result, one row per step.
ARRIVED, HITS, ANSWERED, FAILED, WAITING = 0, 1, 2, 3, 4
WANTED, ATTEMPTS, REFUSED, USEFUL, WASTED, QUEUED, FRESH = 5, 6, 7, 8, 9, 10, 11
COLUMNS = 12


@njit(cache=True)
def run(  # type: ignore[no-untyped-def]
    step_s,
    routers,  # [cohort]
    counts,  # [class]
    rates,  # [class]: requests per second for one key at one router, at load 1
    load,  # [step]
    capacity,  # [step]: lookups per second
    bound,  # lookups that may wait
    timeout_steps,
    retries,
    backoff_s,
    ttl_steps,
    fresh,  # [cohort, class]: share of keys held at the start, of uniform age
    flush_steps,  # [event], rising
    flush_shares,  # [event, cohort]: of entries lost
    budget,  # retries for each first try; infinite: as many as there are
    burst,  # retries that may be saved up
):
    steps, cohorts, classes, tries = load.size, routers.size, counts.size, retries + 1
    out = np.zeros((steps, COLUMNS))
    # Keys absent, of one router; and how much of those absent at step 0 answers have filled since,
    # as -log of what is left: a lookup asked at `filled` d finds its key absent with e^-(now - d).
    absent = np.empty((cohorts, classes))
    filled = np.zeros((cohorts, classes))
    # When entries expire. Slots may be several steps wide; a slot then empties over as many.
    width = ttl_steps // 8192 + 1
    slots = ttl_steps // width + 2
    expiring = np.zeros((slots, cohorts, classes))
    for k in range(cohorts):
        for c in range(classes):
            held = counts[c] * fresh[k, c]
            absent[k, c] = counts[c] - held
            for slot in range(ttl_steps // width):
                expiring[slot, k, c] = held / (ttl_steps // width)
    # The queue: lookups by the step they came in; those whose caller has given up are in front.
    ring = timeout_steps + 1
    batch = np.zeros((ring, cohorts, classes, tries))
    asked_at = np.zeros((ring, cohorts, classes))
    batch_size = np.zeros(ring)
    oldest = 0
    given_up = 0.0
    queued = 0.0
    # Waiting to try again: all, and those whose key is still absent.
    pool = np.zeros((cohorts, classes, tries))
    pool_absent = np.zeros((cohorts, classes, tries))
    released = np.zeros(tries)
    for a in range(retries):
        released[a] = -np.expm1(-step_s / (backoff_s * 2.0**a))
    filling = np.zeros((cohorts, classes))
    tokens = burst
    event = 0
    for n in range(steps):
        row = out[n]
        # Entries expire.
        slot = (n // width) % slots
        part = 1.0 / (width - n % width)
        for k in range(cohorts):
            for c in range(classes):
                gone = expiring[slot, k, c] * part
                expiring[slot, k, c] -= gone
                # Sums of many small parts may end a bit above the whole.
                absent[k, c] = min(absent[k, c] + gone, counts[c])
        # Caches are lost.
        while event < flush_steps.size and flush_steps[event] <= n:
            for k in range(cohorts):
                lost = flush_shares[event, k]
                if lost > 0:
                    for c in range(classes):
                        absent[k, c] += (counts[c] - absent[k, c]) * lost
                        for s in range(slots):
                            expiring[s, k, c] *= 1 - lost
            event += 1
        # What the budget leaves of retries: as much as first tries earn in this step, and savings.
        allowed = 1.0
        if budget < np.inf:
            for k in range(cohorts):
                for c in range(classes):
                    tokens += budget * routers[k] * rates[c] * load[n] * step_s * absent[k, c]
            wanting = 0.0
            for a in range(retries):
                wanting += pool_absent[:, :, a].sum() * released[a]
            if wanting > tokens:
                allowed = tokens / wanting
            tokens = min(burst, tokens - wanting * allowed)
        # Requests arrive; those that miss, and those that try again, become lookups.
        here = n % ring
        offered = 0.0
        for k in range(cohorts):
            for c in range(classes):
                asking = routers[k] * rates[c] * load[n] * step_s
                missing = asking * absent[k, c]
                row[ARRIVED] += asking * counts[c]
                row[HITS] += asking * (counts[c] - absent[k, c])
                row[WANTED] += missing
                batch[here, k, c, 0] = missing
                asked_at[here, k, c] = filled[k, c]
                for a in range(retries):
                    again = pool_absent[k, c, a] * released[a]
                    known = (pool[k, c, a] - pool_absent[k, c, a]) * released[a]
                    pool[k, c, a] -= again + known
                    pool_absent[k, c, a] -= again
                    row[ANSWERED] += known
                    row[FAILED] += again * (1 - allowed)
                    again *= allowed
                    batch[here, k, c, a + 1] = again
                    missing += again
                offered += missing
        row[ATTEMPTS] = offered
        # The queue takes what fits, counting what is served in this step.
        able = capacity[n] * step_s
        room = max(0.0, bound + able - queued)
        taken = 1.0 if offered <= room else room / offered
        if taken < 1.0:
            row[REFUSED] = offered * (1 - taken)
            for k in range(cohorts):
                for c in range(classes):
                    for a in range(tries):
                        mass = batch[here, k, c, a]
                        batch[here, k, c, a] = mass * taken
                        mass *= 1 - taken
                        if a < retries:
                            pool[k, c, a] += mass
                            pool_absent[k, c, a] += mass
                        else:
                            row[FAILED] += mass
        batch_size[here] = offered * taken
        queued += batch_size[here]
        # Lookups are carried out, first come, first served.
        able = min(able, queued)
        done = min(able, given_up)
        given_up -= done
        able -= done
        queued -= done
        row[WASTED] = done
        filling[:] = 0.0
        while able > 0.0 and oldest <= n:
            b = oldest % ring
            if batch_size[b] <= able:
                done = batch_size[b]
                share = 1.0
                oldest += 1
            else:
                done = able
                share = able / batch_size[b]
            able -= done
            queued -= done
            batch_size[b] -= done
            row[USEFUL] += done
            if share == 1.0:
                batch_size[b] = 0.0
            for k in range(cohorts):
                for c in range(classes):
                    sum_ = 0.0
                    for a in range(tries):
                        mass = batch[b, k, c, a] * share
                        batch[b, k, c, a] -= mass
                        sum_ += mass
                    row[ANSWERED] += sum_
                    filling[k, c] += sum_ * np.exp(asked_at[b, k, c] - filled[k, c])
        # Answers fill caches. Of several for one key the first does.
        into = ((n + ttl_steps) // width) % slots
        for k in range(cohorts):
            for c in range(classes):
                if filling[k, c] > 0.0 and absent[k, c] > 0.0:
                    share = filling[k, c] / (routers[k] * absent[k, c])
                    left = np.exp(-share)
                    gained = absent[k, c] * (1 - left)
                    absent[k, c] -= gained
                    expiring[into, k, c] += gained
                    filled[k, c] += share
                    for a in range(retries):
                        pool_absent[k, c, a] *= left
        # Callers give up on the oldest.
        late = n - timeout_steps + 1
        if late >= 0 and oldest <= late:
            b = late % ring
            for k in range(cohorts):
                for c in range(classes):
                    still = np.exp(asked_at[b, k, c] - filled[k, c])
                    for a in range(tries):
                        mass = batch[b, k, c, a]
                        batch[b, k, c, a] = 0.0
                        if a < retries:
                            pool[k, c, a] += mass
                            pool_absent[k, c, a] += mass * still
                        else:
                            row[FAILED] += mass
            given_up += batch_size[b]
            batch_size[b] = 0.0
            oldest = late + 1
        row[QUEUED] = queued
        row[WAITING] = max(0.0, queued - given_up) + pool.sum()
        held = 0.0
        keys = 0.0
        for k in range(cohorts):
            for c in range(classes):
                held += routers[k] * (counts[c] - absent[k, c])
                keys += routers[k] * counts[c]
        row[FRESH] = held / keys
    return out
