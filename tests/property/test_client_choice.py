"""Properties of retrying and of choosing a router, whatever happens in whatever order."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from keyplane.client.config import ClientConfig
from keyplane.client.pool import Outcome, RouterPool, RouterState
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.retry import BACKOFFS, DEFAULT_BACKOFF, Backoff, RetryBudget, backoff_s

ROWS = [*BACKOFFS.values(), DEFAULT_BACKOFF]


@given(st.sampled_from(ROWS), st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_back_off_is_bounded_and_full(row: Backoff, retry: int, uniform: float) -> None:
    """Every delay lies in [0, min(cap, base * 2**retry)), and grows with the random number only."""
    delay_s = row.delay_s(retry, uniform)
    assert 0 <= delay_s <= row.cap_s
    assert delay_s <= row.base_s * 2.0 ** min(retry, 60)
    assert row.delay_s(retry + 1, uniform) >= delay_s


@given(st.sampled_from(list(Reason)), st.floats(0, 10), st.integers(0, 50), st.floats(0, 0.999))
def test_what_a_server_asks_for_is_the_least(
    reason: Reason, wanted_s: float, retry: int, uniform: float
) -> None:
    error = KeyplaneError(reason, "", retry_after_s=wanted_s)
    assert backoff_s(error, retry, uniform) >= wanted_s


@given(
    ratio=st.floats(0, 1),
    floor=st.floats(0, 100),
    burst=st.floats(0, 100),
    steps=st.lists(st.one_of(st.none(), st.floats(0, 5)), max_size=200),
)
def test_retries_never_exceed_what_requests_and_time_have_earned(
    ratio: float, floor: float, burst: float, steps: list[float | None]
) -> None:
    """None is a request; a number is a retry wanted so many seconds later."""
    budget = RetryBudget(ratio, floor, burst, 0.0)
    now, requests, spent = 0.0, 0, 0
    for step in steps:
        if step is None:
            requests += 1
            budget.earn()
        else:
            now += step
            spent += budget.spend(now)
        assert spent <= burst + ratio * requests + floor * now + 1e-6


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "answer", "time out", "fail", "probe ok", "probe bad"]),
        st.integers(0, 1000),
        st.floats(0, 1),
    ),
    max_size=150,
)


@given(count=st.integers(1, 5), events=EVENTS, seed=st.integers(0, 1000))
def test_the_choice_is_always_the_least_loaded_of_the_best(
    count: int, events: list[tuple[str, int, float]], seed: int
) -> None:
    """Up before ejected, then fewest outstanding. Counts stay right; somebody is chosen."""
    config = ClientConfig(slow_samples=3)
    pool = RouterPool([f"router-{n}" for n in range(count)], config, random.Random(seed))
    held = []
    probing: list[str] = []
    now = 0.0
    for what, pick, elapsed_s in events:
        now += elapsed_s
        probing += pool.probes_due(now)
        if what == "acquire":
            up = [each for each in pool.routers if each.state is RouterState.UP] or pool.routers
            fewest = min(each.outstanding for each in up)
            chosen = pool.acquire()
            assert chosen in up
            assert chosen.outstanding == fewest + 1
            held.append(chosen)
        elif what.startswith("probe") and probing:
            pool.probed(probing.pop(pick % len(probing)), what == "probe ok", now)
        elif held and what in ("answer", "time out", "fail"):
            outcome = {
                "answer": Outcome.ANSWERED,
                "time out": Outcome.TIMED_OUT,
                "fail": Outcome.FAILED,
            }[what]
            pool.release(held.pop(pick % len(held)), now, elapsed_s, outcome)
        for each in pool.routers:
            assert each.outstanding == held.count(each)
