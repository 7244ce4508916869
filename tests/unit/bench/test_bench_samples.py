"""The arithmetic of the data-plane benchmark."""

from __future__ import annotations

from array import array
from typing import NamedTuple

import pytest

from bench._compare import Comparison, headline, rows
from bench._curves import stolen_share
from bench._plan import Plan, kind_named, turns
from bench._samples import Latencies, Sample, latencies, percentile, ratio, summarize

NOTHING = Latencies(0, 0.0, 0.0, 0.0, 0.0)


def sample(count: int, p99_us: float = 1.0, seconds: float = 2.0, **cpu_s: float) -> Sample:
    every = Latencies(count, 1.0, p99_us, p99_us, p99_us)
    return Sample(seconds, every, every, NOTHING, cpu_s=cpu_s)


def test_percentiles_are_of_the_nearest_rank() -> None:
    ordered = [float(number) for number in range(1, 1001)]
    assert percentile(ordered, 50) == 500
    assert percentile(ordered, 99) == 990
    assert percentile(ordered, 99.9) == 999
    assert percentile([7.0], 0.1) == percentile([7.0], 99.9) == 7.0


def test_latencies_of_several_arrays_are_taken_together_in_microseconds() -> None:
    found = latencies([array("d", [0.003, 0.001]), array("d", [0.002])])
    assert found == Latencies(3, 2000.0, 3000.0, 3000.0, 3000.0)
    assert latencies([array("d")]) == NOTHING


def test_a_summary_is_of_medians_and_adds_failures_up() -> None:
    samples = [sample(count, p99_us) for count, p99_us in ((100, 9.0), (300, 5.0), (200, 7.0))]
    failing = Sample(2.0, NOTHING, NOTHING, NOTHING, failures={"LOST": 2, "WRONG_ITEM": 1})
    summary = summarize([*samples, failing, failing])
    assert summary.per_second == 50
    assert summary.p99_us == 5.0
    assert summary.failures == {"LOST": 4, "WRONG_ITEM": 2}


def test_processor_time_is_told_apart_by_process() -> None:
    summary = summarize([sample(1000, router=0.006, storage=0.003, generator=0.003)])
    assert summary.cpu_us == {"router": 6.0, "storage": 3.0, "generator": 3.0}
    assert summary.generator_share == 0.25
    assert summary.busy_cores == 0.006


def test_a_ratio_compares_windows_of_one_round() -> None:
    """The second round met a machine half as fast; each ratio is of equals all the same."""
    ours, theirs = [sample(400), sample(200)], [sample(100), sample(50)]
    assert ratio(ours, theirs) == 4.0
    assert ratio(ours, []) is None
    assert ratio(ours, [Sample(2.0, NOTHING, NOTHING, NOTHING)] * 2) is None


def test_the_headline_names_what_was_not_measured() -> None:
    comparison = Comparison(
        {
            ("keyplane", "get", 1): [sample(20)],
            ("keyplane", "get", 128): [sample(800, router=0.008)],
            ("keyplane-grpcio", "get", 128): [sample(80)],
        }
    )
    found = headline(comparison)
    assert found["get_rps"] == 400
    assert found["ratio_get_vs_grpcio"] == 10.0
    assert found["p50_us_at_1"] == 1.0
    assert found["cpu_us_per_request"] == 10.0
    assert found["headline_outstanding"] == 128
    for missing in ("put_rps", "get_p99_ms_at_32", "ratio_put_vs_grpcio", "ratio_get_vs_dynalite"):
        assert found[missing] is None
    assert {row["outstanding"] for row in rows(comparison)} == {1, 128}
    assert set(headline(Comparison({})).values()) == {None}


def test_every_system_has_every_turn_and_each_goes_first_in_some_round() -> None:
    plan = Plan(1.0, 3, [1, 8], [kind_named("get"), kind_named("90/10")])
    planned = list(turns(plan, ["a", "b", "echo"], echo="echo"))
    assert len(planned) == 3 * 2 * (2 + 2 + 1)
    assert len(set(planned)) == len(planned)
    firsts = [next(turn.system for turn in planned if turn.round == number) for number in range(3)]
    assert firsts == ["a", "b", "echo"]


@pytest.mark.parametrize(("name", "share"), [("get", 0.0), ("put", 1.0), ("95/5", 0.05)])
def test_kinds_of_load(name: str, share: float) -> None:
    assert kind_named(name).write_share == share


@pytest.mark.parametrize("name", ["", "scan", "90", "90/20", "-10/110"])
def test_what_is_no_kind_of_load_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no kind of load"):
        kind_named(name)


class Linux(NamedTuple):
    user: float
    idle: float
    steal: float
    guest: float


class Mac(NamedTuple):
    user: float
    idle: float


def test_time_that_the_host_took_is_a_share_of_all_processors() -> None:
    assert stolen_share(Linux(10, 50, 1, 8), Linux(13, 51, 7, 11)) == pytest.approx(0.6)
    assert stolen_share(Linux(10, 50, 1, 8), Linux(10, 50, 1, 8)) == 0.0
    assert stolen_share(Mac(10, 50), Mac(13, 51)) == 0.0
