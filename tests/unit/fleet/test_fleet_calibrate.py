"""Fits on figures whose origin is known, and what a calibration makes of measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest
from known_tandem import TRUTH, calibration, fitted, level, measurements, run_of, windows

from fleet.calibrate import memds_rate
from fleet.exact.tandem import Tandem
from fleet.live_load import GET, KINDS
from fleet.live_measure import PREDICTED, Count, median_window
from fleet.measured import MEASURED, NAMES
from fleet.tandem_fit import fit_tandem, predict
from fleet.validate import TARGET, compared
from keyplane.model.errors import KeyplaneError


def test_a_fit_finds_the_tandem_that_the_figures_are_from() -> None:
    fit = fitted()
    assert fit.error < 0.02
    for found, true in (
        (fit.tandem.generator, TRUTH.generator),
        (fit.tandem.router, TRUTH.router),
        (fit.tandem.storage, TRUTH.storage),
    ):
        assert found.each_ms == pytest.approx(true.each_ms, rel=0.15)
    # Only its sum over the way of a request shows from outside.
    assert _wakes(fit.tandem) == pytest.approx(_wakes(TRUTH), rel=0.1)
    assert fit.tandem.spread == pytest.approx(TRUTH.spread, rel=0.2)


@pytest.mark.parametrize(("routers", "outstanding"), PREDICTED)
def test_a_fit_predicts_sizes_that_it_has_not_seen(routers: int, outstanding: int) -> None:
    predicted = predict(fitted().tandem, outstanding, routers, seed=5)
    true = run_of(routers, outstanding)
    assert predicted.per_second == pytest.approx(true.per_second, rel=0.05)
    assert predicted.p50_ms == pytest.approx(true.p50_ms, rel=0.05)
    assert predicted.p99_ms == pytest.approx(true.p99_ms, rel=0.1)


def test_one_size_is_not_enough_for_a_fit() -> None:
    with pytest.raises(KeyplaneError, match="two sizes"):
        fit_tandem([level(1, 4), level(1, 4)], cores=2, push=32, look_ms=0.2, seed=1)


def test_what_routers_ask_memds_for_is_told_from_what_others_do() -> None:
    values = memds_rate({1: Count(950, 10.0), 3: Count(2_050, 10.0)})
    assert values["memds_gets_per_router_per_s"] == pytest.approx(55.0)
    assert values["memds_gets_background_per_s"] == pytest.approx(40.0)
    assert values["memds_gets_per_router_beat"] == pytest.approx(55.0 / 4)
    assert values["router_beat_ms"] == 250


def test_a_calibration_has_every_value_of_the_table_and_no_other() -> None:
    found = calibration().calibration
    assert set(found.values) == NAMES
    assert len(NAMES) == len(MEASURED)
    assert found.values["memds_get_ms"] == 0.002
    assert found.values["fresh_connection_ms"] == pytest.approx(1.5)
    # What one processor does in a second.
    assert found.values["route_lookups_per_s"] == pytest.approx(20_000)
    assert found.values["memds_requests_per_s"] == pytest.approx(10_000)
    assert found.values["durable_ms"] == 2.0
    assert found.values["get_idle_ms"] == pytest.approx(run_of(1, 1).p50_ms)
    assert found.values["router_put_ms"] == pytest.approx(run_of(1, 128).cpu_ms[1])
    assert found.quality["get_fit_error"] < 0.02
    assert found.quality["get_between_rounds"] == pytest.approx(2 / 3)


def test_a_validation_says_how_far_off_it_is() -> None:
    found = measurements()
    by = calibration()
    right = compared(found, by)
    assert right.within == len(right.rows) == len(KINDS) * len(PREDICTED) * 3 + 3
    assert right.requests_simulated > 0
    assert "39 of 39 predictions" in right.sentence

    found.counted_to_predict[3].gets *= 2
    wrong = compared(found, by)
    assert wrong.within == len(wrong.rows) - 1
    assert "the largest 50.0% (MemDS gets, 3 routers)" in wrong.sentence
    assert [row.check().holds for row in wrong.rows] == [row.error <= TARGET for row in wrong.rows]


def test_a_validation_on_a_machine_that_others_use_says_that_it_says_little() -> None:
    found = measurements()
    for windows_of in (found.fitted, found.predicted):
        for size, each in windows_of.items():
            windows_of[size] = [replace(window, others=0.8) for window in each]
    assert not compared(measurements(), calibration()).disturbed
    disturbed = compared(found, calibration())
    assert disturbed.disturbed
    assert "Others used 0.80 processors meanwhile" in disturbed.sentence


def test_the_median_of_windows_is_that_of_each_figure() -> None:
    found = median_window(windows(GET, 1, 8))
    assert found.p99_ms == run_of(1, 8).p99_ms
    assert found.per_second == run_of(1, 8).per_second


def _wakes(tandem: Tandem) -> float:
    return (
        tandem.generator.wake_ms
        + 2 * tandem.router.wake_ms
        + tandem.storage.wake_ms
        + 4 * tandem.hop_ms
    )
