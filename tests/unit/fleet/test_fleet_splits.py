"""Storms of splits: each split stays somewhere, and drawing each request comes to the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.config import PublisherConfig, ReaderConfig
from fleet.cohort.beats import Beats
from fleet.cohort.splits import LEARNED_MAX, Storm, run_storm
from fleet.exact.splits import run_exact_storm
from fleet.map_sizes import page_sizes, rewritten_pages
from keyplane.model.errors import KeyplaneError


def storm(
    *,
    tables: int = 200,
    splits: int = 5,
    pages: float = 1.5,
    rate_per_s: float = 0.4,
    page_slots: int = 32,
    publish_roots: int = 16,
    all_tables: float = 2_000.0,
) -> Storm:
    beats = Beats(
        routers=[100.0],
        rate_per_s=1_000.0,
        tables=all_tables,
        pages=all_tables * 1.5,
        capacity_per_s=1e5,
        bound=1_000.0,
        memds_nodes=3,
        detours_per_s=1e9,
        covered=[1.0],
        reader=ReaderConfig(cluster="", page_slots=page_slots),
        publisher=PublisherConfig(cluster="", value_slots=publish_roots),
    )
    return Storm(beats, tables, splits, pages, rate_per_s)


@settings(max_examples=40, deadline=None)
@given(
    tables=st.integers(1, 300),
    splits=st.integers(1, 5_000),
    pages=st.floats(1, 50),
    rate=st.floats(0, 50),
    page_slots=st.integers(1, 64),
    publish_roots=st.integers(1, 64),
)
def test_each_split_is_unknown_learned_or_in_the_map(
    tables: int, splits: int, pages: float, rate: float, page_slots: int, publish_roots: int
) -> None:
    of = storm(
        tables=tables,
        splits=splits,
        pages=pages,
        rate_per_s=rate,
        page_slots=page_slots,
        publish_roots=publish_roots,
    )
    run = run_storm(of, 0.01, 20)
    whole = 100 * tables * splits
    assert run.unknown + run.learned + run.mapped == pytest.approx(whole)
    assert min(run.unknown.min(), run.learned.min(), run.redirects.min()) >= -1e-9 * whole
    assert np.all(np.diff(run.mapped) >= -1e-9 * whole)
    assert run.learned.max() <= 100 * tables * LEARNED_MAX * (1 + 1e-9)
    # Nothing is in the map before the publisher's first beat.
    assert run.mapped[: round(0.5 / 0.01) - 1].max() <= 1e-9 * whole
    if of.known_s < 20:
        assert run.mapped[-1] == pytest.approx(whole)


@pytest.mark.parametrize(
    "of",
    [
        storm(),
        storm(rate_per_s=5.0),
        storm(rate_per_s=0.02, splits=20),
        storm(all_tables=10_000.0),
        # Routers read pages more slowly than roots.
        storm(page_slots=12, publish_roots=200),
    ],
)
def test_each_request_drawn_comes_to_the_same(of: Storm) -> None:
    seconds = int(of.known_s) + 2
    exact = run_exact_storm(of, 17, 1.0, seconds)
    run = run_storm(of, 0.01, seconds)
    assert run.redirects.sum() == pytest.approx(exact.sum(), rel=0.02)
    by_second = run.redirects.reshape(-1, 100).sum(axis=1)
    assert by_second == pytest.approx(exact, rel=0.05, abs=0.01 * exact.sum())
    if of.pages_fit:
        assert run.redirects.sum() == pytest.approx(of.redirects(), rel=0.01)
    else:
        assert run.redirects.sum() > of.redirects()


def test_roots_wait_for_the_publisher_and_pages_for_roots() -> None:
    published = storm(tables=40).published_s()
    assert list(np.unique(published, return_counts=True)[1]) == [16, 16, 8]
    assert published[0] == 0.5
    # 200 pages of each table and 256 in a beat: one table a beat, or two.
    heavy = storm(tables=4, pages=200.0).published_s()
    assert list(heavy) == [0.5, 1.0, 1.5, 2.0]


def test_exact_storms_of_too_many_pages_are_refused() -> None:
    with pytest.raises(KeyplaneError, match="at most"):
        run_exact_storm(replace(storm(), pages=65.0), 1, 1.0, 10)


def test_pages_are_those_of_real_maps() -> None:
    """1,000,000 partitions in 9,593 pages, and 1.02 new ones for a split: docs/performance.md."""
    large = page_sizes(1_000_000)
    assert large.pages == pytest.approx(9_593, rel=0.15)
    assert large.pages * large.partitions == pytest.approx(1_000_000)
    assert 1.0 <= rewritten_pages(10_000, 1) <= 1.2
    assert rewritten_pages(1_000_000, 10) == pytest.approx(10, rel=0.2)
    assert rewritten_pages(100, 100) >= page_sizes(100).pages


def test_more_splits_than_partitions_have_no_pages() -> None:
    with pytest.raises(KeyplaneError, match="give no more splits"):
        rewritten_pages(10, 11)
