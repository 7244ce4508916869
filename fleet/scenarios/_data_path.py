"""What `why-not-scale-metadata` is asked with, and what it computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fleet.bisection import bisect
from fleet.closed.caches import exponential_order_mean, order_statistic_quantile
from fleet.cohort.beats import run_beats
from fleet.cohort.lookups import run_lookups
from fleet.cohort.series import share_of
from fleet.exact.fanin import run_commits
from fleet.fleetwide import CONSTANT_WORK, CONVENTIONAL, DATA_PATH, FleetParameters
from fleet.outcome import Array
from fleet.parameters import parameter
from fleet.scenario import Context

_ETCD = "etcd documentation, Understanding performance"

# When the leader is lost, and how long to look.
ELECTION_AT_S = 5.0
LOOK_S = 20.0

BATCHES = 60_000
BATCHES_WELL = 20_000
COMMITS = 4_000

# Servers are bought to run at this share of what they can do.
UTILISATION = 0.5


@dataclass(frozen=True, slots=True)
class Parameters(FleetParameters):
    replicas: int = parameter(
        1_000,
        "",
        "Metadata Store replicas, each with the whole map in memory",
        low=3,
        high=100_000,
        source="chosen: the question",
    )
    voters: int = parameter(
        5,
        "",
        "of these, members of the quorum; the others follow",
        low=1,
        high=100_000,
        source="chosen: survives the loss of two",
    )
    replica_per_s: float = parameter(
        200_000.0,
        "1/s",
        "lookups that one replica can answer from its memory",
        low=100.0,
        high=1e8,
        source="Scaling memcached at Facebook (2008): 200,000 requests a second of one server",
        measured="route_lookups_per_s",
    )
    lookup_ms: float = parameter(
        0.173,
        "ms",
        "mean time of a lookup at a replica",
        low=0.001,
        high=1_000.0,
        source="Scaling memcached at Facebook (2008): 173 microseconds at that rate",
        measured="route_lookup_ms",
    )
    slow_ms: float = parameter(
        100.0,
        "ms",
        "how much longer a lookup takes at the slow replica",
        low=0.0,
        high=60_000.0,
        source="chosen: a pause of a garbage collector or a bad disk",
    )
    batch: int = parameter(
        100,
        "",
        "lookups that a batch makes, to replicas drawn at random",
        low=1,
        high=10_000,
        source="Amazon DynamoDB API reference, BatchGetItem: up to 100 items",
    )
    updates_per_s: float = parameter(
        20.0,
        "1/s",
        "changes of the map: splits, moves, tables made and changed",
        low=0.0,
        high=1e6,
        source="chosen: each of a million partitions changes every 14 hours",
    )
    sync_ms: float = parameter(
        1.0,
        "ms",
        "mean time to make an update durable",
        low=0.001,
        high=1_000.0,
        source=f"{_ETCD}: an SSD's fdatasync often takes less than 1 ms",
        measured="durable_ms",
    )
    rtt_ms: float = parameter(
        0.5,
        "ms",
        "round trip between members",
        low=0.0,
        high=1_000.0,
        source=f"{_ETCD}: several hundred microseconds within a data centre",
        measured="memds_round_trip_ms",
    )
    election_s: float = parameter(
        1.0,
        "s",
        "without a leader until another one is elected",
        low=0.05,
        high=10.0,
        source="etcd documentation, Tuning: election timeout of 1,000 ms by default",
    )


@dataclass(frozen=True, slots=True)
class Events:
    """Availability around the election by design, in tenths of a second, and what it cost.

    failed: beyond what fails without it, where the load is more than can be answered.
    """

    time_s: Array
    available: dict[str, Array]
    failed: dict[str, float]
    late: dict[str, float]
    wanted: float
    represented: float


def run_election(asked: Parameters) -> Events:
    steps = round(LOOK_S / asked.step_s)
    ones: Array = np.ones(steps)
    health = ones.copy()
    dark = slice(
        round(ELECTION_AT_S / asked.step_s),
        round((ELECTION_AT_S + asked.election_s) / asked.step_s),
    )
    health[dark] = 0.0
    tenth = max(1, round(0.1 / asked.step_s))
    capacity = asked.replicas * asked.replica_per_s
    runs = {
        DATA_PATH: run_lookups(asked.uncached(capacity), asked.step_s, ones, health),
        CONVENTIONAL: run_lookups(asked.conventional(), asked.step_s, ones, health),
    }
    # MemDS does not take part in elections; only the publisher waits.
    beats = run_beats(asked.constant_work(), asked.step_s, ones, ones, health)
    available = {
        name: 100 * share_of(run.hits + run.answered, run.hits + run.answered + run.failed, tenth)
        for name, run in runs.items()
    }
    available[CONSTANT_WORK] = 100 * share_of(beats.arrived - beats.failed, beats.arrived, tenth)
    represented = sum(run.arrived.sum() for run in runs.values()) + beats.arrived.sum()
    return Events(
        np.arange(len(available[CONSTANT_WORK]), dtype=np.float64) * tenth * asked.step_s,
        available,
        {
            **{name: _beyond(run.failed, dark.start) for name, run in runs.items()},
            CONSTANT_WORK: _beyond(beats.failed, dark.start),
        },
        # Those whose first try came while nobody could answer.
        {
            **{name: float(run.wanted[dark].sum()) for name, run in runs.items()},
            CONSTANT_WORK: 0.0,
        },
        float(runs[CONVENTIONAL].wanted[dark].sum()),
        float(represented),
    )


def _beyond(failed: Array, start: int) -> float:
    """What fails by step beyond what failed before the election began."""
    before = float(failed[start // 2 : start].mean())
    return max(0.0, float(failed.sum()) - before * len(failed))


def batch_quantile(asked: Parameters, p: float) -> float:
    """Of a batch with one slow replica, in seconds: the maximum of independent lookups."""
    mean, late = asked.lookup_ms / 1_000, asked.slow_ms / 1_000
    slow = 1 / asked.replicas

    def reached(x: float) -> bool:
        soon = -math.expm1(-x / mean)
        after = -math.expm1(-(x - late) / mean) if x > late else 0.0
        return bool(((1 - slow) * soon + slow * after) ** asked.batch >= p)

    return bisect(reached, 0.0, late + 100 * mean * (1 + math.log(asked.batch)))[1]


@dataclass(frozen=True, slots=True)
class Commits:
    """Seconds until so many followers have an update: exact samples, closed mean and p99."""

    what: str
    needed: int
    followers: int
    samples: Array
    mean_s: float
    p99_s: float


def run_updates(asked: Parameters, context: Context) -> list[Commits]:
    sync, wire = asked.sync_ms / 1_000, asked.rtt_ms / 1_000
    voters = min(asked.voters, asked.replicas)
    # The leader is one of the majority.
    kinds = (
        (f"quorum of {voters} voters", voters // 2, voters - 1),
        (f"quorum of all {asked.replicas} replicas", asked.replicas // 2, asked.replicas - 1),
        (f"known to all {asked.replicas} replicas", asked.replicas - 1, asked.replicas - 1),
    )
    found = []
    for what, needed, followers in kinds:
        if needed == 0:
            continue
        seed = context.stream(f"why-not-scale-metadata/{what}")
        samples = run_commits(seed, COMMITS, followers, needed, wire, sync)
        mean = wire + exponential_order_mean(sync, needed, followers)
        p99 = wire - sync * math.log1p(-order_statistic_quantile(0.99, needed, followers))
        found.append(Commits(what, needed, followers, samples, mean, p99))
    return found


def servers(asked: Parameters, lookups_per_s: float) -> int:
    """Enough for so many lookups, and no fewer than vote."""
    enough = math.ceil(lookups_per_s / asked.replica_per_s / UTILISATION)
    return max(enough, min(asked.voters, asked.replicas))
