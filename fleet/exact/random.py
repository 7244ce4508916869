"""Random numbers inside compiled event loops, from one 64-bit seed.

The generator is xoshiro256++ seeded by splitmix64 (D. Blackman and S. Vigna, "Scrambled linear
pseudorandom number generators", 2021). Its state is an array of four words that a kernel passes on;
streams with other seeds are independent of each other.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, uint64
from numpy.typing import NDArray

Words = NDArray[np.uint64]


@njit(cache=True)
def seeded(seed: np.uint64) -> Words:
    """The state of a stream. seed: as `np.uint64`, since numba takes an int for 63 bits."""
    state = np.empty(4, np.uint64)
    word = uint64(seed)
    for index in range(4):
        word += uint64(0x9E3779B97F4A7C15)
        mixed = word
        mixed = (mixed ^ (mixed >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> uint64(27))) * uint64(0x94D049BB133111EB)
        state[index] = mixed ^ (mixed >> uint64(31))
    return state


@njit(cache=True)
def uniform(state: Words) -> float:
    """From 0 to 1, with 1 left out."""
    total = state[0] + state[3]
    bits = ((total << uint64(23)) | (total >> uint64(41))) + state[0]
    shifted = state[1] << uint64(17)
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= shifted
    state[3] = (state[3] << uint64(45)) | (state[3] >> uint64(19))
    return float(bits >> uint64(11)) * 2.0**-53


@njit(cache=True)
def below(state: Words, bound: int) -> int:
    """One of 0 to bound - 1. The bias is bound / 2**53, which no run can notice."""
    return int(uniform(state) * bound)


@njit(cache=True)
def exponential(state: Words, mean: float) -> float:
    return -mean * math.log(1.0 - uniform(state))


@njit(cache=True)
def normal(state: Words) -> float:
    """Standard normal, by the polar method of Marsaglia (1964)."""
    while True:
        x = 2.0 * uniform(state) - 1.0
        y = 2.0 * uniform(state) - 1.0
        square = x * x + y * y
        if 0.0 < square < 1.0:
            return x * math.sqrt(-2.0 * math.log(square) / square)


@njit(cache=True)
def lognormal(state: Words, mean: float, sigma: float) -> float:
    """With that mean; sigma: of the logarithm."""
    return mean * math.exp(sigma * normal(state) - 0.5 * sigma * sigma)


@njit(cache=True)
def gamma(state: Words, shape: float) -> float:
    """With scale 1, by G. Marsaglia and W. W. Tsang, "A simple method for generating gamma
    variables", 2000."""
    # Shapes below 1 from one more, as they say.
    scale = 1.0
    if shape < 1.0:
        scale = (1.0 - uniform(state)) ** (1.0 / shape)
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x = normal(state)
        v = (1.0 + c * x) ** 3
        if v > 0.0 and math.log(1.0 - uniform(state)) < 0.5 * x * x + d * (1.0 - v + math.log(v)):
            return d * v * scale
