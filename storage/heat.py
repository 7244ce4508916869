"""How busy a partition is, and where in its range.

Rates are exponentially weighted averages over beats. Hashes of requests, of many requests only
some, a random number of others between two of them, are kept in two ways, both bounded however many
keys there are:

* A reservoir that favours recent ones: once full, each replaces a random place, so the chance of an
  older one to be there still decays exponentially (Aggarwal, "On Biased Reservoir Sampling in the
  Presence of Stream Evolution", VLDB 2006). It says where the load is.
* Windows: a few of each of the last beats, apart. They say whether it stays there.
"""

from __future__ import annotations

from typing import Final

from wire.ports import Rng

# Share of the newest beat in the average: about five beats to follow a change.
SMOOTHING: Final = 0.3

# Powers of two. Of many requests, those that are passed over between two samples are fewer than
# _GAPS, on average half of that; so the memory is then about 512 × 8 requests long.
RESERVOIR_SIZE: Final = 512
_GAPS: Final = 16

_SLOT_BITS: Final = RESERVOIR_SIZE.bit_length() - 1
_GAP_BITS: Final = _GAPS.bit_length() - 1
_GAP_MASK: Final = _GAPS - 1

# Samples of a window, a power of two, and as many are enough of a beat; those with which one ends
# at the next beat; windows kept.
WINDOW_SIZE: Final = 64
WINDOW_SAMPLES_MIN: Final = 16
WINDOWS_MAX: Final = 6
_WINDOW_MASK: Final = WINDOW_SIZE - 1


class Heat:
    """Requests of one partition."""

    __slots__ = (
        "_gap",
        "_gap_mask",
        "_reads",
        "_rng",
        "_window",
        "_writes",
        "reads_per_s",
        "samples",
        "windows",
        "writes_per_s",
    )

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        # Requests until the next sample.
        self._gap = 0
        # One less than a power of two that the gaps are below.
        self._gap_mask = 0
        self._reads = 0
        self._writes = 0
        self.reads_per_s = 0.0
        self.writes_per_s = 0.0
        # Key hashes of some recent requests.
        self.samples: list[int] = []
        # The same of each of the last beats, the oldest first, and of the present one.
        self.windows: list[list[int]] = []
        self._window: list[int] = []

    def read(self, key_hash: int) -> None:
        self._reads += 1
        self._sample(key_hash)

    def write(self, key_hash: int) -> None:
        self._writes += 1
        self._sample(key_hash)

    def beat(self, elapsed_s: float) -> None:
        """Ends a beat of `elapsed_s` seconds."""
        self.reads_per_s = smoothed(self.reads_per_s, self._reads, elapsed_s)
        self.writes_per_s = smoothed(self.writes_per_s, self._writes, elapsed_s)
        self._gap_mask = _gap_mask(self._reads + self._writes)
        self._reads = self._writes = 0
        if len(self._window) >= WINDOW_SAMPLES_MIN:
            self.windows.append(self._window)
            self._window = []
            if len(self.windows) > WINDOWS_MAX:
                del self.windows[0]

    def inherit(self, parent: Heat, start: int, end: int, otherwise: float) -> float:
        """Starts a child of a split, or what a merge makes, with the parent's samples in its range
        and their share of the parent's rates. Returns that share.

        otherwise: the share if there are no samples.
        """
        own = [sample for sample in parent.samples if start <= sample < end]
        self.samples += own[: RESERVOIR_SIZE - len(self.samples)]
        share = len(own) / len(parent.samples) if parent.samples else otherwise
        self.reads_per_s += share * parent.reads_per_s
        self.writes_per_s += share * parent.writes_per_s
        return share

    def histogram(self, start: int, end: int, bins: int) -> list[int]:
        """Samples in each of as many equal parts of a range that holds them all."""
        counts = [0] * bins
        for sample in self.samples:
            counts[(sample - start) * bins // (end - start)] += 1
        return counts

    def _sample(self, key_hash: int) -> None:
        if self._gap:
            self._gap -= 1
            return
        bits = self._rng.getrandbits(_SLOT_BITS + _GAP_BITS)
        self._gap = bits & self._gap_mask
        samples, window = self.samples, self._window
        slot = bits >> _GAP_BITS
        if len(samples) < RESERVOIR_SIZE:
            samples.append(key_hash)
        else:
            samples[slot] = key_hash
        if len(window) < WINDOW_SIZE:
            window.append(key_hash)
        else:
            window[slot & _WINDOW_MASK] = key_hash


def _gap_mask(requests: int) -> int:
    """With which about WINDOW_SIZE of so many are sampled, or more."""
    mask = _GAP_MASK
    while mask and requests < WINDOW_SIZE * (mask + 1) // 2:
        mask >>= 1
    return mask


def smoothed(average: float, count: float, elapsed_s: float) -> float:
    """The average of a rate after a beat of `elapsed_s` seconds with so many."""
    return average + SMOOTHING * (count / elapsed_s - average)
