"""Which key comes next."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

from keyplane.workload.config import Distribution, WorkloadConfig
from wire.ports import Rng

KeyChooser = Callable[[Rng], int]


def chooser(config: WorkloadConfig) -> KeyChooser:
    """Draws key numbers in [0, config.keys)."""
    count = config.keys
    match config.distribution:
        case Distribution.UNIFORM:
            return lambda rng: rng.randrange(count)
        case Distribution.HOT_KEY:
            share = config.hot_share
            return lambda rng: 0 if rng.random() < share else rng.randrange(count)
        case Distribution.ZIPF:
            return _zipf(count, config.zipf_exponent)


def key_name(number: int) -> str:
    return f"key-{number:08d}"


def _zipf(count: int, exponent: float) -> KeyChooser:
    """Key n is drawn with a probability proportional to 1 / (n + 1) ** exponent.

    By inversion of the distribution function: 8 bytes a key, one bisect a draw.
    """
    weights = list(accumulate((n + 1) ** -exponent for n in range(count)))
    total = weights[-1]
    return lambda rng: bisect_left(weights, rng.random() * total, hi=count - 1)
