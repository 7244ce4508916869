"""A thousand Metadata Store replicas that answer every lookup, beside the two other designs."""

from __future__ import annotations

import math

import numpy as np

from fleet.closed.caches import any_of, fresh_share
from fleet.cohort.beats import Beats
from fleet.exact.fanin import Batches, run_batches
from fleet.fleetwide import CONSTANT_WORK, CONVENTIONAL, DATA_PATH
from fleet.outcome import (
    Axis,
    Band,
    Check,
    Figure,
    Layer,
    Line,
    Outcome,
    Plot,
    Rule,
    Table,
    relative,
)
from fleet.scenario import Context, Scenario
from fleet.scenarios._data_path import (
    BATCHES,
    BATCHES_WELL,
    COMMITS,
    ELECTION_AT_S,
    UTILISATION,
    Commits,
    Events,
    Parameters,
    batch_quantile,
    run_election,
    run_updates,
    servers,
)


def _run(asked: Parameters, context: Context) -> Outcome:
    context.progress(0.1, "a leader's election")
    events = run_election(asked)
    context.progress(0.5, "one slow replica")
    mean, late = asked.lookup_ms / 1_000, asked.slow_ms / 1_000
    seed = context.stream("why-not-scale-metadata/batches")
    slow = run_batches(seed, BATCHES, asked.batch, asked.replicas, 1, mean, late)
    well = run_batches(seed, BATCHES_WELL, asked.batch, asked.replicas, 0, mean, late)
    context.progress(0.8, "commits")
    commits = run_updates(asked, context)

    per_replica = asked.requests_per_s / asked.replicas
    beats = asked.constant_work()
    voters = min(asked.voters, asked.replicas)
    slowed = any_of(1 / asked.replicas, asked.batch)
    needed = servers(asked, asked.requests_per_s)
    p99 = float(np.quantile(slow.latency_s, 0.99))
    figures = [
        Figure("lookups at each replica", per_replica, "1/s", Layer.CLOSED),
        Figure("use of each replica", per_replica / asked.replica_per_s, "fraction", Layer.CLOSED),
        Figure(
            "connections, all routers to all replicas",
            float(asked.routers * asked.replicas),
            "",
            Layer.CLOSED,
        ),
        Figure("batches that meet the slow replica", slowed, "fraction", Layer.CLOSED),
        Figure("p99 of a batch's lookups, one replica slow", 1e3 * p99, "ms", Layer.EXACT),
        Figure(
            "p99 of a batch's lookups, none slow",
            1e3 * float(np.quantile(well.latency_s, 0.99)),
            "ms",
            Layer.EXACT,
        ),
        *(
            Figure(f"mean time of an update: {each.what}", 1e3 * each.mean_s, "ms", Layer.CLOSED)
            for each in commits
        ),
        Figure("messages of the leader for updates", _messages(asked), "1/s", Layer.CLOSED),
        Figure(
            "durable writes of the fleet for updates",
            asked.updates_per_s * asked.replicas,
            "1/s",
            Layer.CLOSED,
        ),
        Figure(
            "requests that an election makes wait, metadata on the data path",
            events.late[DATA_PATH],
            "",
            Layer.COHORT,
        ),
        Figure("of these failed", events.failed[DATA_PATH], "", Layer.COHORT),
        Figure("the same with TTL caches", events.late[CONVENTIONAL], "", Layer.COHORT),
        Figure("of those failed", events.failed[CONVENTIONAL], "", Layer.COHORT),
        Figure("failed with MemDS", events.failed[CONSTANT_WORK], "", Layer.COHORT),
        Figure("servers for lookups, metadata on the data path", float(needed), "", Layer.CLOSED),
        Figure(
            "roots that publishers write to a node", _published_per_s(beats), "1/s", Layer.CLOSED
        ),
        Figure("MemDS nodes and voters", float(asked.memds_nodes + voters), "", Layer.CLOSED),
    ]
    return Outcome(
        figures=figures,
        checks=_checks(asked, events, slow, commits),
        tables=[_table(asked, events, commits, slowed, beats), _commit_table(commits)],
        plots=_plots(asked, events, slow, well),
        conclusion=(
            f"{_load(asked, per_replica, events)} {needed:,} servers do for requests what"
            f" {asked.memds_nodes} MemDS nodes and"
            f" {voters} voters do beside them; one slow replica is in {slowed:.1%} of batches"
            f" of {asked.batch} (p99 {1e3 * p99:.0f} ms), an election of {asked.election_s:g} s"
            f" makes {events.late[DATA_PATH] / 1e6:,.0f} million requests wait and fails"
            f" {events.failed[DATA_PATH] / 1e6:,.0f} million, where TTL caches fail"
            f" {events.failed[CONVENTIONAL] / 1e6:.1f} million and MemDS"
            f" {events.failed[CONSTANT_WORK]:.0f}, and each update is {asked.replicas:,} durable"
            f" writes instead of {voters}."
        ),
        requests_simulated=(BATCHES + BATCHES_WELL) * asked.batch
        + COMMITS * sum(each.followers for each in commits),
        requests_represented=events.represented,
        notes=[
            "In the election, replicas do not answer: they promise answers that are not stale. If"
            " stale ones will do, they go on from their local caches and nothing fails; the hop,"
            " the servers, the slow and the dead replica stay in the way of each request, for a"
            " cache that a router can hold itself.",
            "A request looks up once; that it then goes on to a storage node is the same in all"
            " designs and left out.",
            "requests_simulated counts lookups of batches, and followers of commits.",
        ],
    )


def _load(asked: Parameters, per_replica: float, events: Events) -> str:
    """How the conclusion begins: whether the load by itself is what forbids it."""
    each = f"{per_replica:,.0f} lookups a second each"
    if per_replica < asked.replica_per_s:
        return f"{asked.replicas:,} replicas take {each} without trouble, but"
    last = (events.time_s >= ELECTION_AT_S - 1) & (events.time_s < ELECTION_AT_S)
    quiet = events.available[DATA_PATH][last]
    return (
        f"{asked.replicas:,} replicas are asked for {each}, can answer {asked.replica_per_s:,.0f},"
        f" and fail {1 - quiet.mean() / 100:.0%} of requests on a quiet day;"
    )


def _messages(asked: Parameters) -> float:
    """To each other replica and back, for each update, without putting several into one."""
    return 2.0 * asked.updates_per_s * (asked.replicas - 1)


def _checks(
    asked: Parameters, events: Events, slow: Batches, commits: list[Commits]
) -> list[Check]:
    slowed = any_of(1 / asked.replicas, asked.batch)
    until = np.linspace(0, asked.election_s, 201)
    fresh = fresh_share(asked.classes(), asked.rate_per_router, asked.ttl_s(), asked.step_s, until)
    missing = float(np.trapezoid(1 - fresh, until)) * asked.requests_per_s
    return [
        relative(
            "share of batches that meet the slow replica, each lookup simulated",
            float(slow.touched.mean()),
            slowed,
            # Four standard deviations of what is counted, or 3 %.
            max(0.03, 4 * math.sqrt((1 - slowed) / slowed / len(slow.touched))),
            "1 - (1 - 1 / replicas)^batch",
        ),
        relative(
            "median of a batch's lookups with one slow replica, each simulated",
            float(np.quantile(slow.latency_s, 0.50)),
            batch_quantile(asked, 0.50),
            0.05,
            "the maximum of independent lookups",
        ),
        relative(
            "p99 of a batch's lookups with one slow replica, each simulated",
            float(np.quantile(slow.latency_s, 0.99)),
            batch_quantile(asked, 0.99),
            0.05,
            "the maximum of independent lookups",
        ),
        *(
            relative(
                f"mean of commits, each simulated: {each.what}",
                float(each.samples.mean()),
                each.mean_s,
                0.05,
                "Rényi, On the theory of order statistics (1953)",
            )
            for each in commits
        ),
        *(
            relative(
                f"p99 of commits, each simulated: {each.what}",
                float(np.quantile(each.samples, 0.99)),
                each.p99_s,
                0.10,
                "quantile of an order statistic",
            )
            for each in commits
        ),
        relative(
            "requests that an election makes wait with metadata on the data path",
            events.late[DATA_PATH],
            asked.requests_per_s * asked.election_s,
            0.03,
            "requests per second x length of the election",
        ),
        relative(
            "requests that an election makes wait with TTL caches",
            events.wanted,
            missing,
            0.10,
            "lives of entries that end evenly over the time to live",
        ),
    ]


def _table(
    asked: Parameters,
    events: Events,
    commits: list[Commits],
    slowed: float,
    beats: Beats,
) -> Table:
    voters = min(asked.voters, asked.replicas)
    full = servers(asked, asked.requests_per_s)
    behind = servers(asked, asked.warm_lookups_per_s)
    memds = asked.memds_nodes + voters
    misses = 1 - asked.hit_ratio
    sizes = asked.page_sizes
    # A split: two partitions in the place of one.
    update = asked.updates_per_s * 2 * sizes.value_bytes / sizes.partitions / 1e6

    def row(what: str, *values: float) -> tuple[float | str, ...]:
        return what, *map(float, values)

    def millions(what: str, of: dict[str, float]) -> tuple[float | str, ...]:
        return row(what, *(of[name] / 1e6 for name in (DATA_PATH, CONVENTIONAL, CONSTANT_WORK)))

    use = f"at {UTILISATION:.0%} use"
    return Table(
        "Three designs side by side",
        ("", DATA_PATH, CONVENTIONAL, CONSTANT_WORK),
        (
            row(
                "asked of metadata or MemDS, warm (1/s)",
                asked.requests_per_s,
                asked.warm_lookups_per_s,
                beats.memds_per_s,
            ),
            row(
                "the same after all caches are lost (1/s)",
                asked.requests_per_s,
                asked.requests_per_s,
                beats.memds_per_s,
            ),
            row(f"servers for the warm load {use}", full, behind, memds),
            row(f"servers that caches may be lost with {use}", full, full, memds),
            row(
                "connections kept open",
                asked.routers * asked.replicas,
                asked.routers * behind,
                asked.routers * asked.memds_nodes,
            ),
            row("durable writes per update", asked.replicas, behind, voters),
            row(
                "sent on for updates (MB/s)",
                update * asked.replicas,
                update * behind,
                update * voters + beats.writes_per_s * sizes.value_bytes / 1e6,
            ),
            row("waited for before the storage node (ms)", asked.lookup_ms, 0, 0),
            row(
                "requests that one slow replica delays (%)",
                100 / asked.replicas,
                100 * misses / behind,
                0,
            ),
            row(
                f"batches of {asked.batch} that it delays (%)",
                100 * slowed,
                100 * any_of(misses / behind, asked.batch),
                0,
            ),
            millions(
                f"requests that come in an election of {asked.election_s:g} s and wait (million)",
                events.late,
            ),
            millions("requests that fail in it (million)", events.failed),
            row(
                f"requests that wait {asked.timeout_s:g} s for a dead replica, before it is left"
                " out (1/s)",
                asked.requests_per_s / asked.replicas,
                asked.warm_lookups_per_s / behind,
                0,
            ),
            row(
                "how old a route may be (s)",
                commits[-1].p99_s,
                asked.ttl_s(),
                _age_s(asked, beats),
            ),
        ),
    )


def _age_s(asked: Parameters, beats: Beats) -> float:
    """How old a router's route gets: that of a reader's turn, and of the publisher's where changes
    of different tables are more than it writes roots."""
    turn = beats.root_beats * beats.reader.beat_s
    if asked.updates_per_s <= _published_per_s(beats):
        return turn + beats.publisher.beat_s
    return turn + math.ceil(beats.tables / beats.publisher.value_slots) * beats.publisher.beat_s


def _published_per_s(beats: Beats) -> float:
    """Roots that publishers write to each MemDS node."""
    return beats.publisher.value_slots / beats.publisher.beat_s


def _commit_table(commits: list[Commits]) -> Table:
    return Table(
        "How long an update takes, by who has to have it",
        ("who", "followers waited for", "of", "mean (ms)", "p99 (ms)", "p99, simulated (ms)"),
        tuple(
            (
                each.what,
                float(each.needed),
                float(each.followers),
                1e3 * each.mean_s,
                1e3 * each.p99_s,
                1e3 * float(np.quantile(each.samples, 0.99)),
            )
            for each in commits
        ),
    )


def _plots(asked: Parameters, events: Events, slow: Batches, well: Batches) -> list[Plot]:
    counts = np.geomspace(3, max(10_000, asked.replicas), 50)
    shares = np.concatenate([np.linspace(0.01, 0.9, 60), np.linspace(0.9, 0.999, 60)[1:]])
    closed = np.array([batch_quantile(asked, float(share)) for share in shares])
    return [
        Plot(
            "election",
            f"An election of {asked.election_s:g} s",
            "Requests that end well, in tenths of a second.",
            Axis("time", "s"),
            Axis("available", "%", low=0, high=105),
            (
                *(
                    Line(name, events.time_s, each, "step")
                    for name, each in events.available.items()
                ),
                Band("no leader", ELECTION_AT_S, ELECTION_AT_S + asked.election_s),
            ),
        ),
        Plot(
            "slow-replica",
            f"Batches of {asked.batch} lookups over {asked.replicas:,} replicas",
            "One replica in so many is slow; the dashed line is the closed form.",
            Axis("share of batches", "%"),
            Axis("slowest lookup", "ms", log=True),
            (
                Line("none slow", 100 * shares, 1e3 * np.quantile(well.latency_s, shares)),
                Line("one slow", 100 * shares, 1e3 * np.quantile(slow.latency_s, shares)),
                Line("one slow, closed form", 100 * shares, 1e3 * closed, dashed=True),
            ),
        ),
        Plot(
            "more-replicas",
            "What more replicas take off, and what they add",
            "Lookups of each fall; durable writes and messages for updates rise as much.",
            Axis("replicas", log=True),
            Axis("per second", "1/s", log=True),
            (
                Line("lookups at each replica", counts, asked.requests_per_s / counts),
                Line(
                    "durable writes of all replicas",
                    counts,
                    np.maximum(asked.updates_per_s * counts, 1.0),
                ),
                Line(
                    "messages of the leader",
                    counts,
                    np.maximum(2 * asked.updates_per_s * (counts - 1), 1.0),
                ),
                Rule("lookups that one replica can answer", asked.replica_per_s),
            ),
        ),
    ]


SCENARIO = Scenario(
    name="why-not-scale-metadata",
    title="Why not just scale the Metadata Store?",
    question="Why not let a thousand Metadata Store replicas answer every lookup?",
    explanation=(
        "Three designs for the same fleet: every request asks a replica of the Metadata Store,"
        " which has the map in memory; routers have TTL caches before it; routers hold the map and"
        " read MemDS on a beat. The cohort layer follows requests through an election. Batches that"
        " meet a slow replica, and commits, are simulated one by one beside their closed forms."
        " Left out: queueing at healthy replicas, several updates in one message, and followers"
        " that pass updates on, which spares the leader but not the writes."
    ),
    parameters=Parameters,
    run=_run,
)
