"""A digest of a set of entries that can be kept up to date one entry at a time.

The digest of a set is the sum modulo 2**128 of the xxh3-128 of its entries (an additive multiset
hash): it does not depend on order, and replacing an entry is one subtraction and one addition. It
guards against faults, not against forgers.
"""

from __future__ import annotations

import xxhash

DIGEST_BYTES = 16
_MODULUS = 1 << 128


class Digest:
    """Of entries by engine key; `count` of them, with `data_bytes` in keys and values."""

    __slots__ = ("_sum", "count", "data_bytes")

    def __init__(self) -> None:
        self._sum = 0
        self.count = 0
        self.data_bytes = 0

    def add(self, key: bytes, value: bytes) -> None:
        self._sum = (self._sum + _hash(key, value)) % _MODULUS
        self.count += 1
        self.data_bytes += len(key) + len(value)

    def remove(self, key: bytes, value: bytes) -> None:
        self._sum = (self._sum - _hash(key, value)) % _MODULUS
        self.count -= 1
        self.data_bytes -= len(key) + len(value)

    def replace(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """None: no entry."""
        if old is not None:
            self.remove(key, old)
        if new is not None:
            self.add(key, new)

    def copy(self) -> Digest:
        twin = Digest()
        twin._sum, twin.count, twin.data_bytes = self._sum, self.count, self.data_bytes
        return twin

    def to_bytes(self) -> bytes:
        """16 bytes, big-endian."""
        return self._sum.to_bytes(DIGEST_BYTES, "big")


def _hash(key: bytes, value: bytes) -> int:
    # The length keeps (key, value) apart from any other cut of the same bytes.
    return xxhash.xxh3_128_intdigest(len(key).to_bytes(4, "big") + key + value)
