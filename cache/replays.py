"""Whether a signed call has been seen before, in memory that does not grow with the calls.

A signer numbers its calls. Of each signer the calls of the latest few thousand numbers are known,
one bit each, and what is further behind is refused: the window of RFC 6479 ("IPsec Anti-Replay
Algorithm without Bit Shifting"). A signer is forgotten once all its calls are too old to be taken
for their time of signing.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

# Calls by which one may be overtaken by others of its signer: one that waits for a window of flow
# control while small calls pass, at tens of thousands of calls a second.
WINDOW_CALLS: Final = 4_096

_WORD_BITS: Final = 32
_WORDS: Final = WINDOW_CALLS // _WORD_BITS


class Window:
    """Of one signer. latest_ms: when the latest of its calls was signed, since 1970."""

    __slots__ = ("_top", "_words", "latest_ms")

    def __init__(self) -> None:
        self._top: i64 = 0
        self._words = [0] * _WORDS
        self.latest_ms = 0

    def admit(self, sequence: int, signed_at_ms: int) -> bool:
        """False if it was admitted before, or is further behind than is remembered."""
        index: i64 = sequence >> 5
        top: i64 = self._top
        words = self._words
        if index > top:
            if index - top >= _WORDS:
                self._words = words = [0] * _WORDS
            else:
                for each in range(top + 1, index + 1):
                    words[each % _WORDS] = 0
            self._top = index
        elif top - index >= _WORDS:
            return False
        bit = 1 << (sequence & 31)
        slot: i64 = index % _WORDS
        word = words[slot]
        if word & bit:
            return False
        words[slot] = word | bit
        if signed_at_ms > self.latest_ms:
            self.latest_ms = signed_at_ms
        return True
