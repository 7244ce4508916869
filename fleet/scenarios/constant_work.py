"""What MemDS and the Metadata Store have to do on a quiet day and on a bad one, by design."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleet.bisection import bisect
from fleet.closed.caches import hit_ratio
from fleet.cohort.beats import REQUESTS_PER_BEAT, BeatRun, run_beats
from fleet.cohort.lookups import Flush, LookupRun, run_lookups
from fleet.cohort.series import binned
from fleet.fleetwide import CONSTANT_WORK, CONVENTIONAL, PAPER, FleetParameters
from fleet.outcome import (
    Array,
    Axis,
    Band,
    Bars,
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
from fleet.parameters import parameter
from fleet.scenario import Context, Scenario

PER_REQUEST = "refresh per request"
_COALESCED = "refresh per request, once a beat"

# What a day is made of, in this order, each as long as the parameter says.
_PHASES = ("warm", "cold", "idle", "busy again", "outage", "back")
_WARM, _COLD, _IDLE, _BUSY, _OUTAGE, _BACK = range(len(_PHASES))

# Beats of each router that starts at random.
_BEATS_DRAWN = 48


@dataclass(frozen=True, slots=True)
class Parameters(FleetParameters):
    phase_s: float = parameter(
        120.0,
        "s",
        "how long each state of the day lasts",
        low=10.0,
        high=3_600.0,
        source="chosen: longer than the life of an entry at the defaults",
    )
    metadata_per_s: float = parameter(
        30_000.0,
        "1/s",
        "lookups that one Metadata Store node answers",
        low=100.0,
        high=1e7,
        source="etcd documentation, Understanding performance: more than 30,000 requests a second"
        " (there of a cluster of three)",
        measured="metadata_lookups_per_s",
    )


def _phase(asked: Parameters, number: int) -> slice:
    steps = round(asked.phase_s / asked.step_s)
    return slice(number * steps, (number + 1) * steps)


def _beats_drawn(asked: Parameters, context: Context) -> tuple[float, int]:
    """Routers that start at random: the fullest 10 ms over the average, and requests counted."""
    random = np.random.default_rng(context.stream("constant-work/phases"))
    beat_s = asked.beat_ms / 1_000
    beats = _BEATS_DRAWN
    phases = random.uniform(0, beat_s, asked.routers)
    times = (phases[:, None] + np.arange(beats)[None, :] * beat_s).ravel()
    counts, _ = np.histogram(times, bins=round((beats + 1) * beat_s / 0.01))
    # The first and last beat are not whole for all.
    whole = round(beat_s / 0.01)
    inside = counts[whole:-whole]
    return float(inside.max() / inside.mean()), int(counts.sum()) * REQUESTS_PER_BEAT


def _run(asked: Parameters, context: Context) -> Outcome:
    steps = round(asked.phase_s / asked.step_s) * len(_PHASES)
    load: Array = np.ones(steps)
    load[_phase(asked, _IDLE)] = 0.0
    health: Array = np.ones(steps)
    health[_phase(asked, _OUTAGE)] = 0.0
    lost = [Flush(asked.phase_s, [1.0])]
    context.progress(0.1, CONVENTIONAL)
    run = run_lookups(asked.conventional(lost), asked.step_s, load, health)
    context.progress(0.5, CONSTANT_WORK)
    beats = asked.constant_work(lost)
    beat_run = run_beats(beats, asked.step_s, load, health, health)
    context.progress(0.9, "beats of routers that start at random")
    crowding, counted = _beats_drawn(asked, context)

    beat_s = beats.reader.beat_s
    lookups, memds = run.rate(run.attempts), beat_run.rate(beat_run.asked)
    # A refresh for every request, whether it hit or not; once a beat and router, if there was any.
    refresh = run.rate(run.arrived)
    coalesced = beats.memds_per_s * (1 - np.exp(-asked.rate_per_router * load * beat_s))
    designs = (
        (CONVENTIONAL, lookups, asked.metadata_per_s),
        (PER_REQUEST, refresh, asked.memds_per_s),
        (_COALESCED, coalesced, asked.memds_per_s),
        (CONSTANT_WORK, memds, asked.memds_per_s),
    )
    sizes = asked.page_sizes
    memds_bytes = asked.routers * beats.pages_per_beat / beat_s * sizes.value_bytes
    warm = float(run.rate(run.wanted)[_phase(asked, _WARM)].mean())
    cold = float(run.rate(run.wanted)[_phase(asked, _COLD)].max())
    spread = float(memds.max() / memds.min())
    nodes = {
        name: float(np.ceil(rates.max() / per_node - 1e-9)) for name, rates, per_node in designs
    }
    return Outcome(
        figures=[
            Figure(
                "MemDS requests with constant work, always", beats.memds_per_s, "1/s", Layer.CLOSED
            ),
            Figure("highest over lowest of them", spread, "x", Layer.COHORT),
            Figure("fullest 10 ms over the average, random starts", crowding, "x", Layer.EXACT),
            Figure("values the publisher writes, always", beats.writes_per_s, "1/s", Layer.CLOSED),
            Figure(
                "pages read with constant work, all routers", memds_bytes, "bytes/s", Layer.CLOSED
            ),
            Figure("a page", sizes.value_bytes, "bytes", Layer.CLOSED),
            Figure("lookups of warm TTL caches", warm, "1/s", Layer.COHORT),
            Figure("lookups of cold TTL caches, peak", cold, "1/s", Layer.COHORT),
            Figure(
                "lookups after an idle stretch, peak",
                float(run.rate(run.wanted)[_phase(asked, _BUSY)].max()),
                "1/s",
                Layer.COHORT,
            ),
            Figure("refreshes, one for each request", float(refresh.max()), "1/s", Layer.COHORT),
            *(
                Figure(
                    "requests a second at which TTL caches ask as often as constant work",
                    each,
                    "1/s",
                    Layer.CLOSED,
                )
                for each in [_break_even(asked, beats.memds_per_s)]
                if math.isfinite(each)
            ),
        ],
        checks=_checks(asked, beats.memds_per_s, run, beat_run, spread),
        tables=[
            Table(
                "Requests per second to MemDS or the Metadata Store, average (peak)",
                ("design", *_PHASES, "nodes for the peak"),
                tuple((name, *_cells(asked, rates), nodes[name]) for name, rates, _ in designs),
            ),
            Table(
                "Requests that fail (% of each state's)",
                ("design", *_PHASES),
                (
                    (CONVENTIONAL, *_failed(asked, run.failed, run.arrived)),
                    (CONSTANT_WORK, *_failed(asked, beat_run.failed, beat_run.arrived)),
                ),
            ),
        ],
        plots=_plots(asked, designs, run, beats.memds_per_s, nodes),
        conclusion=(
            f"Constant work asks MemDS {beats.memds_per_s:,.0f} times a second, idle or cold,"
            f" warm or down, {warm / beats.memds_per_s:.1f} times less than warm TTL caches ask at"
            f" {asked.requests_per_s:,.0f} requests a second and {cold / beats.memds_per_s:,.0f}"
            f" times less than cold ones; the quiet day pays for it with"
            f" {beats.memds_per_s * 86_400 / 1e9:.1f} billion requests and"
            f" {memds_bytes * 86_400 / 1e12:.0f} TB of pages that nobody needed."
        ),
        requests_simulated=counted,
        requests_represented=float(run.arrived.sum() + beat_run.arrived.sum()),
        notes=[
            "The refresh for every request is DynamoDB's own (each hit also asks MemDS in the"
            " background); once a beat is what Keyplane does with refresh=per_request. Both are"
            " arithmetic on the requests that arrive.",
            "In the outage MemDS and the Metadata Store are both gone.",
        ],
    )


def _cells(asked: Parameters, rates: Array) -> Sequence[str]:
    parts = [rates[_phase(asked, number)] for number in range(len(_PHASES))]
    return [f"{part.mean():,.0f} ({part.max():,.0f})" for part in parts]


def _failed(asked: Parameters, failed: Array, arrived: Array) -> Sequence[float]:
    shares = []
    for number in range(len(_PHASES)):
        at = _phase(asked, number)
        came = float(arrived[at].sum())
        shares.append(100 * float(failed[at].sum()) / came if came else 0.0)
    return shares


def _ttl_lookups(asked: Parameters, ttl_s: float, requests_per_s: float) -> float:
    """Of warm caches at another load, with the life of entries as it is."""
    hits = hit_ratio(asked.classes(), requests_per_s / asked.routers, ttl_s, asked.step_s)
    return requests_per_s * (1 - hits)


def _break_even(asked: Parameters, per_s: float) -> float:
    """The load above which warm TTL caches ask more often than `per_s`; infinite if none."""
    ttl_s, most = asked.ttl_s(), 1e12

    def as_often(requests_per_s: float) -> bool:
        return _ttl_lookups(asked, ttl_s, requests_per_s) >= per_s

    return bisect(as_often, 0.0, most)[1] if as_often(most) else math.inf


def _checks(
    asked: Parameters, memds_per_s: float, run: LookupRun, beat_run: BeatRun, spread: float
) -> list[Check]:
    wanted, warm = run.rate(run.wanted), _phase(asked, _WARM)
    hits = asked.hit_ratio
    checks = [
        relative(
            "MemDS requests, highest over lowest of warm, cold, idle and outage",
            spread,
            1.0,
            0.001,
            "a fixed number of requests per beat",
        ),
        relative(
            "MemDS requests per second",
            float(beat_run.rate(beat_run.asked).mean()),
            memds_per_s,
            0.001,
            f"routers x {REQUESTS_PER_BEAT} requests / {asked.beat_ms} ms",
        ),
        relative(
            "lookups of warm TTL caches",
            float(wanted[warm].mean()),
            asked.requests_per_s * (1 - hits),
            0.03,
            f"requests x (1 - hit ratio), the hit ratio from {PAPER}",
        ),
        relative(
            "peak of lookups of cold TTL caches",
            float(wanted[_phase(asked, _COLD)].max()),
            asked.requests_per_s,
            0.01,
            f"a lookup for every request: {PAPER}",
        ),
    ]
    if asked.phase_s > asked.ttl_s():
        checks.append(
            relative(
                "lookups right after the idle stretch",
                float(wanted[_phase(asked, _BUSY)][0]),
                asked.requests_per_s,
                0.01,
                "all entries have ended in a stretch longer than they live",
            )
        )
    return checks


def _plots(
    asked: Parameters,
    designs: Sequence[tuple[str, Array, float]],
    run: LookupRun,
    memds_per_s: float,
    nodes: dict[str, float],
) -> list[Plot]:
    bin_steps = max(1, round(0.5 / asked.step_s))
    time_s = binned(run.time_s, bin_steps)
    bands = tuple(
        Band(name, number * asked.phase_s, (number + 1) * asked.phase_s)
        for number, name in enumerate(_PHASES)
        if number in (_COLD, _IDLE, _OUTAGE)
    )
    ttl_s = asked.ttl_s()
    loads = np.geomspace(max(asked.requests_per_s / 1e4, 1.0), asked.requests_per_s * 10, 60)
    ask = np.array([_ttl_lookups(asked, ttl_s, float(each)) for each in loads])
    return [
        Plot(
            "day",
            "What MemDS and the Metadata Store are asked, state by state",
            "Caches are lost as the second state begins; less than one a second is drawn as one.",
            Axis("time", "s"),
            Axis("requests", "1/s", log=True),
            (
                *(
                    Line(name, time_s, np.maximum(binned(rates, bin_steps), 1.0), "step")
                    for name, rates, _ in designs
                    if name != _COALESCED
                ),
                *bands,
            ),
        ),
        Plot(
            "nodes",
            "Nodes that carry the highest load of the day",
            "What is bought for the worst state stands there in every other.",
            Axis("design", ticks=tuple(name for name, _, _ in designs)),
            Axis("nodes", log=True),
            (Bars("nodes for the peak", np.array([nodes[name] for name, _, _ in designs])),),
        ),
        Plot(
            "by-load",
            "Requests of warm caches, by load",
            "Entries live as long as they do at the load asked about; below the crossing constant"
            " work costs more than a cache.",
            Axis("requests to all routers", "1/s", log=True),
            Axis("requests to MemDS or Metadata Store", "1/s", log=True),
            (
                Line(CONVENTIONAL, loads, ask),
                Line(PER_REQUEST, loads, loads.copy()),
                Line(CONSTANT_WORK, loads, np.full_like(loads, memds_per_s)),
                Rule("the load asked about", asked.requests_per_s, "x"),
            ),
        ),
    ]


SCENARIO = Scenario(
    name="constant-work",
    title="Constant work",
    question="What does constant work cost on a quiet day, and what does it save on a bad one?",
    explanation=(
        "One fleet goes through six states: warm, all caches lost, idle, busy again, MemDS and"
        " Metadata Store gone, back. The cohort layer says what is asked of them by routers with"
        " TTL caches, and by routers that read on a fixed beat; a refresh for every request is"
        " arithmetic. Page sizes are those of real pages, made for the purpose. Left out: what"
        " roots, storage nodes' reports and the directory add to each beat in bytes."
    ),
    parameters=Parameters,
    run=_run,
)
