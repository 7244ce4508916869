"""A fleet of routers that hold the whole map and read MemDS on a fixed beat: constant work.

On each beat every router sends MemDS the same number of requests, whatever happens, and gets the
roots and a fixed number of pages. A router without a map loads it so; until a page is there,
requests for its keys take a detour (a storage node is asked what it serves), as many as a router
may have under way, and fail past that. What has been loaded stays, however long MemDS is gone. The
publisher writes the same number of values on its own beat, and so fills MemDS again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cache.config import PublisherConfig, ReaderConfig
from cache.reader import NODES_PER_BEAT
from fleet.cohort import _beat_kernel as kernel
from fleet.cohort.lookups import Flush, check_steps
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError, Reason

READER = ReaderConfig(cluster="")
PUBLISHER = PublisherConfig(cluster="")

# A visit asks for roots, then for pages.
REQUESTS_PER_BEAT = 2 * NODES_PER_BEAT


@dataclass(frozen=True, slots=True)
class Beats:
    """routers: of each cohort. rate_per_s: requests at one router at load 1. tables, pages: of
    the map.
    capacity_per_s: requests that MemDS answers at health 1; bound: that may wait there.
    memds_nodes: which the publisher writes to, each as much. detours_per_s: at most, of a router.
    covered: share of the map that each cohort holds at the start. aligned: whether routers all beat
    at the same moment, as after a restart of all of them, and not evenly spread. emptied_at_s: when
    MemDS loses everything; losses: when routers lose their map, with the share of it.
    """

    routers: Sequence[float]
    rate_per_s: float
    tables: float
    pages: float
    capacity_per_s: float
    bound: float
    memds_nodes: int
    detours_per_s: float
    covered: Sequence[float]
    reader: ReaderConfig = READER
    publisher: PublisherConfig = PUBLISHER
    aligned: bool = False
    memds_full: float = 1.0
    emptied_at_s: Sequence[float] = field(default=())
    losses: Sequence[Flush] = field(default=())

    @property
    def memds_per_s(self) -> float:
        """Requests to MemDS, by arithmetic."""
        return sum(self.routers) * REQUESTS_PER_BEAT / self.reader.beat_s

    @property
    def pages_per_beat(self) -> int:
        """Of a router, whose two nodes are asked for different pages."""
        return self.reader.page_slots * NODES_PER_BEAT

    @property
    def writes_per_s(self) -> float:
        """Values that the publisher writes, by arithmetic."""
        slots = self.publisher.value_slots + self.publisher.page_slots
        return slots * self.memds_nodes / self.publisher.beat_s

    @property
    def load_beats(self) -> float:
        """Beats in which a router has loaded the map: every root and page once."""
        return max(self.pages / self.pages_per_beat, self.tables / self.reader.root_slots)

    @property
    def load_s(self) -> float:
        return math.ceil(self.load_beats) * self.reader.beat_s

    @property
    def fill_beats(self) -> float:
        """Beats of the publisher in which an empty MemDS is full."""
        slots = self.publisher
        return max(self.pages / slots.page_slots, self.tables / slots.value_slots)

    @property
    def fill_s(self) -> float:
        return math.ceil(self.fill_beats) * self.publisher.beat_s

    @property
    def root_beats(self) -> int:
        """Beats in which a router reads every root once."""
        return max(1, math.ceil(self.tables / self.reader.root_slots))

    @property
    def age_s_max(self) -> float:
        """How old what a router knows gets, while publishers keep up with changes."""
        return self.publisher.beat_s + self.root_beats * self.reader.beat_s


@dataclass(frozen=True, slots=True)
class BeatRun:
    """Of each step; masses, not rates. arrived = served + detoured + failed.

    asked, answered, lost: requests to MemDS. writes: values that the publisher writes. coverage:
    share of the map that routers hold. age_s, age_max_s: how long ago the state was current that
    routers know, on average and of the cohort and phase with the oldest. memds_full: share of the
    map in MemDS.
    """

    step_s: float
    time_s: Array
    arrived: Array
    served: Array
    detoured: Array
    failed: Array
    asked: Array
    answered: Array
    lost: Array
    writes: Array
    coverage: Array
    age_s: Array
    age_max_s: Array
    memds_full: Array

    def rate(self, masses: Array) -> Array:
        """Per second."""
        return masses / self.step_s

    @property
    def availability(self) -> Array:
        """Share of requests that did not fail; 1 where there were none."""
        some = self.arrived > 0
        return np.where(some, 1 - self.failed / np.where(some, self.arrived, 1.0), 1.0)


def run_beats(fleet: Beats, step_s: float, load: Array, memds: Array, control: Array) -> BeatRun:
    """load, memds, control: of each step: factors on the rate of requests and on what MemDS can do,
    and whether the publisher works (above 0). Raises INVALID_ARGUMENT on a step above 10 ms or one
    that does not divide the beats."""
    beat_s, publish_s = fleet.reader.beat_s, fleet.publisher.beat_s
    beat_steps, publish_steps = round(beat_s / step_s), round(publish_s / step_s)
    whole = math.isclose(beat_steps * step_s, beat_s) and math.isclose(
        publish_steps * step_s, publish_s
    )
    check_steps(step_s, len(load))
    if not whole:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"beats of {beat_s:g} s and {publish_s:g} s; give such of whole steps of {step_s:g} s",
        )
    losses = sorted(fleet.losses, key=lambda each: each.at_s)
    cohorts = len(fleet.routers)
    out = kernel.run(
        step_s,
        np.asarray(fleet.routers, dtype=np.float64),
        fleet.rate_per_s,
        np.asarray(load, dtype=np.float64),
        np.asarray(memds, dtype=np.float64) * fleet.capacity_per_s,
        np.asarray(control, dtype=np.float64),
        fleet.bound,
        beat_steps,
        float(REQUESTS_PER_BEAT),
        1 / max(fleet.load_beats, 1.0),
        fleet.root_beats,
        publish_steps,
        1 / max(fleet.fill_beats, 1.0),
        fleet.writes_per_s * publish_s,
        fleet.detours_per_s,
        np.asarray(fleet.covered, dtype=np.float64),
        fleet.aligned,
        fleet.memds_full,
        _steps(sorted(fleet.emptied_at_s), step_s),
        _steps([each.at_s for each in losses], step_s),
        np.array([each.shares for each in losses], dtype=np.float64).reshape(-1, cohorts),
    )
    columns = np.ascontiguousarray(out.T)
    return BeatRun(step_s, np.arange(len(load), dtype=np.float64) * np.float64(step_s), *columns)


def _steps(times_s: Sequence[float], step_s: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([math.ceil(each / step_s - 1e-9) for each in times_s], dtype=np.int64)
