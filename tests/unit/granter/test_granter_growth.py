"""How much an on-demand table may use, by what it did before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granter.config import GranterConfig
from granter.growth import Growth, Peaks

CONFIG = GranterConfig()
DOUBLING_S = CONFIG.doubling_s
WINDOW_S = CONFIG.peak_s
# After the end of a window, for what routers have yet to give account of.
LATE_S = CONFIG.valid_s


def used(peaks: Peaks, rate: float, since: int, until: int) -> None:
    """A steady rate, of which an account is given every second."""
    for second in range(since, until):
        peaks.add(rate, second, second + 1)
        peaks.settle(second + 1)


def growth(warm: float = 4_000, ceiling: float = 40_000) -> Growth:
    return Growth(CONFIG, warm, ceiling)


def test_a_new_table_has_what_is_warm() -> None:
    of = growth()
    assert of.limit(0.0) == 4_000
    used(of.peaks, 1_500, 0, 600)
    assert of.limit(600 + DOUBLING_S) == 4_000


def test_a_peak_may_be_doubled_half_an_hour_later() -> None:
    of = growth()
    used(of.peaks, 3_000, 0, 120)
    # The first of its windows ended after a minute.
    assert of.limit(WINDOW_S + DOUBLING_S - 1) == 4_000
    assert of.limit(WINDOW_S + DOUBLING_S) == 6_000


def test_what_it_did_once_it_may_do_again_however_long_ago() -> None:
    of = growth()
    used(of.peaks, 10_000, 0, 120)
    assert of.limit(1e6) == 20_000


def test_within_half_an_hour_it_may_not_double_twice() -> None:
    """It uses all it may: 4,000 a second, after half an hour 8,000, after an hour 16,000."""
    of = growth()
    found = {}
    now = 0.0
    while now < 2 * DOUBLING_S + 600:
        rate = of.limit(now)
        found[now] = rate
        of.peaks.add(rate * 10, now, now + 10)
        now += 10
    assert found[DOUBLING_S - 10] == 4_000
    late = DOUBLING_S + WINDOW_S + 10
    assert found[late] == pytest.approx(8_000)
    assert found[2 * DOUBLING_S] == pytest.approx(8_000)
    assert found[2 * DOUBLING_S + 500] == pytest.approx(16_000)


def test_the_ceiling_is_above_all() -> None:
    assert growth(warm=4_000, ceiling=100).limit(0.0) == 100
    of = growth(ceiling=5_000)
    used(of.peaks, 4_000, 0, 120)
    assert of.limit(1e6) == 5_000


def test_a_short_burst_is_no_peak() -> None:
    """Of a minute's average it is what counts."""
    of = growth()
    used(of.peaks, 12_000, 0, 6)
    used(of.peaks, 10, 6, 120)
    assert of.limit(1e6) == 4_000


def test_an_account_that_spans_two_windows_counts_in_both() -> None:
    peaks = Peaks(CONFIG)
    peaks.add(120.0, WINDOW_S - 1, WINDOW_S + 1)
    peaks.settle(2 * WINDOW_S + LATE_S + DOUBLING_S)
    assert peaks.previous == pytest.approx(1.0)


def test_what_it_hears_of_counts_at_once_and_less_does_not() -> None:
    of = growth()
    of.peaks.hear(5_000)
    assert of.limit(0.0) == 10_000
    of.peaks.hear(100)
    assert of.limit(0.0) == 10_000


def test_it_is_empty_as_long_as_nothing_was_used() -> None:
    peaks = Peaks(CONFIG)
    peaks.add(0.0, 0, 1)
    assert peaks.is_empty
    peaks.add(1.0, 0, 1)
    assert not peaks.is_empty
    peaks.settle(1e6)
    assert peaks.previous > 0
    assert not peaks.is_empty


def test_it_is_scaled_with_the_time_to_double() -> None:
    assert GranterConfig(doubling_s=300).peak_s == 10
    # Routers give account of a second at a time.
    assert GranterConfig(doubling_s=5).peak_s == 1


@given(
    rates=st.lists(st.floats(0, 20_000), min_size=1, max_size=60),
    warm=st.floats(1, 10_000),
)
def test_the_limit_is_twice_the_highest_minute_that_ended_half_an_hour_ago(
    rates: list[float], warm: float
) -> None:
    """Against all minutes kept, where it keeps few; and it never falls."""
    of = Growth(CONFIG, warm, 40_000)
    before = 0.0
    for minute, rate in enumerate([*rates, *([0.0] * 35)]):
        for part in range(6):
            now = minute * 60 + part * 10
            of.peaks.add(rate * 10, now, now + 10)
        limit = of.limit((minute + 1) * 60 + LATE_S)
        earlier = rates[: max(0, minute + 1 - 30)]
        assert limit == pytest.approx(min(40_000, max(warm, 2 * max(earlier, default=0.0))))
        assert limit >= before
        before = limit
        assert len(of.peaks._recent) <= 31
        assert len(of.peaks._open) <= 2
