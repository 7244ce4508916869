"""`keyplane fleet validate`: what the models predict against what this machine's cluster does.

Calibration and validation are measured in the same rounds, at different sizes: the prediction is
made from the one and compared with the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fleet.calibrate import SEED, Advance, Calibrated, calibrated
from fleet.live_load import KINDS, OTHERS_MAX, Say
from fleet.live_measure import (
    PREDICTED,
    Count,
    Measurements,
    Plan,
    measure,
    median_window,
)
from fleet.outcome import Check, relative
from fleet.tandem_fit import Fit, predict

TARGET = 0.15


@dataclass(frozen=True, slots=True)
class Row:
    """One figure at one size. between_rounds: range of what was measured over its median, with one
    round 0: what the machine itself leaves open.
    """

    what: str
    size: str
    unit: str
    predicted: float
    measured: float
    between_rounds: float

    @property
    def error(self) -> float:
        return abs(self.predicted - self.measured) / self.measured

    def check(self) -> Check:
        return relative(
            *(f"{self.what}, {self.size}", self.predicted, self.measured, TARGET),
            "measured on the live cluster of this machine",
        )


@dataclass(frozen=True, slots=True)
class Validation:
    """requests_simulated: for all predictions. others: processors that others used meanwhile, the
    median of windows."""

    calibrated: Calibrated
    rows: Sequence[Row]
    requests_simulated: int
    others: float

    @property
    def within(self) -> int:
        return sum(row.error <= TARGET for row in self.rows)

    @property
    def disturbed(self) -> bool:
        """Whether others used so much of the machine that nothing follows from what was measured:
        the model knows of nobody but cluster and generator."""
        return self.others > OTHERS_MAX

    @property
    def sentence(self) -> str:
        worst = max(self.rows, key=lambda row: row.error)
        middle = median(row.error for row in self.rows)
        found = (
            f"{self.within} of {len(self.rows)} predictions are within {TARGET:.0%} of what was "
            f"measured, the median error is {middle:.1%}, and the largest {worst.error:.1%} "
            f"({worst.what}, {worst.size})."
        )
        if not self.disturbed:
            return found
        return (
            f"{found} Others used {self.others:.2f} processors meanwhile, so this says little: run"
            " it again when the machine is left alone."
        )


def validate(plan: Plan, say: Say, advance: Advance) -> Validation:
    """As `calibrate`, with further windows that the fit does not see."""
    found = measure(plan, True, say, advance)
    return compared(found, calibrated(found, plan))


def compared(found: Measurements, by: Calibrated) -> Validation:
    rows: list[Row] = []
    simulated = 0
    for kind in KINDS:
        for size in PREDICTED:
            simulated += _tandem_rows(found, by.fits[kind], kind, size, rows)
    rows += memds_rows(found.counted_to_predict, by.calibration.values)
    windows = [each for some in (found.fitted, found.predicted) for each in some.values()]
    others = median(window.others for each in windows for window in each)
    return Validation(by, rows, simulated, others)


def _tandem_rows(
    found: Measurements, fit: Fit, kind: str, size: tuple[int, int], rows: list[Row]
) -> int:
    routers, outstanding = size
    windows = found.predicted[kind, routers, outstanding]
    seen = median_window(windows)
    run = predict(fit.tandem, outstanding, routers, SEED)
    told = f"{_routers(routers)}, {outstanding} under way"
    for what, unit, predicted, measured, each in (
        ("per second", "1/s", run.per_second, seen.per_second, [w.per_second for w in windows]),
        ("p50", "ms", run.p50_ms, seen.p50_ms, [w.p50_ms for w in windows]),
        ("p99", "ms", run.p99_ms, seen.p99_ms, [w.p99_ms for w in windows]),
    ):
        between = (max(each) - min(each)) / measured
        rows.append(Row(f"{kind} {what}", told, unit, predicted, measured, between))
    return run.requests


def memds_rows(counts: Mapping[int, Count], values: Mapping[str, float]) -> list[Row]:
    """Constant work: so much for each router, and what others ask for."""
    rows = []
    for routers in sorted(counts):
        predicted = (
            values["memds_gets_background_per_s"] + routers * values["memds_gets_per_router_per_s"]
        )
        measured = counts[routers].per_second
        rows.append(Row("MemDS gets", _routers(routers), "1/s", predicted, measured, 0.0))
    return rows


def _routers(count: int) -> str:
    return f"{count} routers" if count > 1 else "1 router"
