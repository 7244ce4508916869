"""Counters, gauges and histograms, and the bound on their series."""

from __future__ import annotations

import pytest

from wire.metrics import SERIES_MAX, Metrics


def test_asking_again_gives_the_same_counter() -> None:
    metrics = Metrics()
    metrics.counter("errors", "Errors.", "reason").inc("A")
    metrics.counter("errors", "Errors.", "reason").inc("A", 2)
    metrics.counter("errors", "Errors.", "reason").inc("B")
    errors = metrics.counter("errors", "Errors.", "reason")
    assert (errors.value("A"), errors.value("B"), errors.value("C")) == (3, 1, 0)
    assert errors.total() == 4
    assert list(metrics) == [errors]


def test_labels_past_the_bound_are_counted_together() -> None:
    counter = Metrics().counter("requests", "Requests.", "peer")
    for index in range(SERIES_MAX + 50):
        counter.inc(str(index))
    counter.inc("0")
    assert len(counter.values) == SERIES_MAX + 1
    assert (counter.value("other"), counter.value("0")) == (50, 2)


def test_a_gauge_is_read_when_somebody_looks_and_may_change_its_source() -> None:
    metrics = Metrics()
    level = [1.0]
    gauge = metrics.gauge("depth", "Depth.", lambda: level[0])
    level[0] = 5.0
    assert gauge.read() == 5.0
    metrics.gauge("depth", "Depth.", lambda: 7.0)
    assert [metric.read() for metric in metrics] == [7.0]


def test_an_observation_counts_in_the_bucket_whose_bound_it_reaches() -> None:
    histogram = Metrics().histogram("latency", "Latency.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 1.0, 3.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.sum == pytest.approx(4.65)


def test_a_name_means_one_thing() -> None:
    metrics = Metrics()
    metrics.counter("a", "A.", "reason")
    metrics.histogram("h", "H.")
    metrics.gauge("g", "G.", lambda: 0.0)
    for ask in (
        lambda: metrics.counter("a", "A.", "other_label"),
        lambda: metrics.gauge("a", "A.", lambda: 0.0),
        lambda: metrics.histogram("a", "A."),
        lambda: metrics.histogram("h", "H.", (1.0,)),
        lambda: metrics.counter("g", "G."),
    ):
        with pytest.raises(ValueError, match="already"):
            ask()
