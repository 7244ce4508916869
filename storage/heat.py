"""How busy a partition is, and where in its range.

Rates are exponentially weighted averages over beats. Hashes of requests are kept in a reservoir
that favours recent ones: once full, each sampled request replaces a random place, so the chance of
an older one to be there still decays exponentially (Aggarwal, "On Biased Reservoir Sampling in the
Presence of Stream Evolution", VLDB 2006).
"""

from __future__ import annotations

from typing import Final

from wire.ports import Rng

# Share of the newest beat in the average: about five beats to follow a change.
SMOOTHING: Final = 0.3

# A power of two, as is the share of requests sampled once full. Together they make the memory about
# 512 × 8 requests long.
RESERVOIR_SIZE: Final = 512
_SAMPLE_ONE_IN: Final = 8

_SLOT_BITS: Final = RESERVOIR_SIZE.bit_length() - 1
_CHANCE_BITS: Final = _SAMPLE_ONE_IN.bit_length() - 1
_CHANCE_MASK: Final = _SAMPLE_ONE_IN - 1


class Heat:
    """Requests of one partition."""

    __slots__ = ("_reads", "_rng", "_writes", "reads_per_s", "samples", "writes_per_s")

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._reads = 0
        self._writes = 0
        self.reads_per_s = 0.0
        self.writes_per_s = 0.0
        # Key hashes of recent requests.
        self.samples: list[int] = []

    def read(self, key_hash: int) -> None:
        self._reads += 1
        self._sample(key_hash)

    def write(self, key_hash: int) -> None:
        self._writes += 1
        self._sample(key_hash)

    def beat(self, elapsed_s: float) -> None:
        """Ends a beat of `elapsed_s` seconds."""
        self.reads_per_s += SMOOTHING * (self._reads / elapsed_s - self.reads_per_s)
        self.writes_per_s += SMOOTHING * (self._writes / elapsed_s - self.writes_per_s)
        self._reads = self._writes = 0

    def inherit(self, parent: Heat, start: int, end: int) -> None:
        """Starts a child of a split with its part of the parent's samples, and their share of its
        rates.
        """
        own = [sample for sample in parent.samples if start <= sample < end]
        self.samples += own[: RESERVOIR_SIZE - len(self.samples)]
        share = len(own) / len(parent.samples) if parent.samples else 0.5
        self.reads_per_s += share * parent.reads_per_s
        self.writes_per_s += share * parent.writes_per_s

    def _sample(self, key_hash: int) -> None:
        samples = self.samples
        if len(samples) < RESERVOIR_SIZE:
            samples.append(key_hash)
            return
        bits = self._rng.getrandbits(_SLOT_BITS + _CHANCE_BITS)
        if not bits & _CHANCE_MASK:
            samples[bits >> _CHANCE_BITS] = key_hash
