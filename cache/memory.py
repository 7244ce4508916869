"""A memcached node in memory, with the faults that real ones have.

Given the same calls it does the same things in the same order; time moves only with the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from wire.ports import Clock, MemdsGet, MemdsOutcome, MemdsStore

_T = TypeVar("_T")

# memcached refuses items that do not fit a 1 MiB slab page with their header and key.
VALUE_BYTES_MAX = (1 << 20) - 512

StoreResult: TypeAlias = tuple[MemdsStore, MemdsOutcome]


class MemoryMemcached:
    """What a memcached process holds and how it answers, without the time that takes.

    Faults, each switched on by setting it:
        down: connections are refused.
        broken: every request is answered with an error.
        delay_s: added to every answer.
        damage: what becomes of a value on its way to a reader.
    and two that are done rather than set: `flush`, and `freeze` with `thaw`.

    flushes: how often it was emptied.
    """

    def __init__(self, name: str, marker: str) -> None:
        """marker: the key without which a node's misses mean nothing."""
        self.values: dict[str, bytes] = {}
        self.down = False
        self.broken = False
        self.delay_s = 0.0
        self.flushes = 0
        self.damage: Callable[[str, bytes], bytes] | None = None
        self._name = name
        self._marker = marker
        self._frozen: dict[str, bytes] | None = None
        self._tokens: dict[str, int] = {}
        self._last_token = 0

    @property
    def name(self) -> str:
        return self._name

    def flush(self) -> None:
        """As `flush_all`, or a restart: everything is gone, the marker too."""
        self.values.clear()
        self.flushes += 1

    def freeze(self) -> None:
        """From now on readers see what is here now, whatever is stored: a stale node."""
        self._frozen = dict(self.values)

    def thaw(self) -> None:
        self._frozen = None

    def read(self, keys: Sequence[str]) -> MemdsGet:
        held = self._frozen if self._frozen is not None else self.values
        found = {key: held[key] for key in keys if key in held}
        if self.damage is not None:
            found = {key: self.damage(key, value) for key, value in found.items()}
        return MemdsGet(MemdsOutcome.OK if self._marker in held else MemdsOutcome.EMPTY, found)

    def read_with_tokens(self, keys: Sequence[str]) -> MemdsGet:
        found = self.read(keys)
        tokens = {key: b"%d" % self._tokens.get(key, 0) for key in found.values}
        return MemdsGet(found.outcome, found.values, tokens)

    def store(self, values: Mapping[str, bytes]) -> MemdsOutcome:
        stored = [self._store(key, value) for key, value in values.items()]
        return MemdsOutcome.OK if all(stored) else MemdsOutcome.ERROR

    def swap(self, key: str, value: bytes, token: bytes) -> StoreResult:
        if key not in self.values:
            return MemdsStore.MISSING, MemdsOutcome.OK
        if token != b"%d" % self._tokens.get(key, 0):
            return MemdsStore.CONFLICT, MemdsOutcome.OK
        return self._store_one(key, value)

    def insert(self, key: str, value: bytes) -> StoreResult:
        if key in self.values:
            return MemdsStore.CONFLICT, MemdsOutcome.OK
        return self._store_one(key, value)

    def _store(self, key: str, value: bytes) -> bool:
        if len(value) > VALUE_BYTES_MAX:
            return False
        self._last_token += 1
        self.values[key] = value
        self._tokens[key] = self._last_token
        return True

    def _store_one(self, key: str, value: bytes) -> StoreResult:
        if self._store(key, value):
            return MemdsStore.STORED, MemdsOutcome.OK
        return store_failed(MemdsOutcome.ERROR)


class MemoryMemdsNode(MemoryMemcached):
    """Implements `wire.ports.MemdsNode` over a memcached of its own.

    A `delay_s` beyond `timeout_s` gives the caller TIMEOUT, while stores still take effect, as they
    do when a real answer is late.

    requests: how many requests arrived at, or were refused by, the node.
    """

    def __init__(
        self,
        clock: Clock,
        name: str,
        marker: str,
        latency_s: float = 0.0002,
        timeout_s: float = 0.2,
    ) -> None:
        super().__init__(name, marker)
        self.requests = 0
        self._clock = clock
        self._latency_s = latency_s
        self._timeout_s = timeout_s

    def get_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None:
        self._answer(lambda: self.read(keys), MemdsGet, on_done)

    def gets_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None:
        self._answer(lambda: self.read_with_tokens(keys), MemdsGet, on_done)

    def set_many(
        self, values: Mapping[str, bytes], on_done: Callable[[MemdsOutcome], None]
    ) -> None:
        self._answer(lambda: self.store(values), lambda outcome: outcome, on_done)

    def cas(
        self,
        key: str,
        value: bytes,
        token: bytes,
        on_done: Callable[[MemdsStore, MemdsOutcome], None],
    ) -> None:
        self._answer(
            lambda: self.swap(key, value, token), store_failed, lambda result: on_done(*result)
        )

    def add(
        self, key: str, value: bytes, on_done: Callable[[MemdsStore, MemdsOutcome], None]
    ) -> None:
        self._answer(lambda: self.insert(key, value), store_failed, lambda result: on_done(*result))

    def _answer(
        self,
        act: Callable[[], _T],
        fail: Callable[[MemdsOutcome], _T],
        on_done: Callable[[_T], None],
    ) -> None:
        """Acts when the request arrives, half the latency from now, and answers when it is due."""
        self.requests += 1

        def arrive() -> None:
            wait_s = self._latency_s / 2 + self.delay_s
            if self.down:
                result, wait_s = fail(MemdsOutcome.DOWN), self._latency_s / 2
            elif self.broken:
                result = fail(MemdsOutcome.ERROR)
            else:
                result = act()
            if self._latency_s / 2 + wait_s > self._timeout_s:
                result = fail(MemdsOutcome.TIMEOUT)
                wait_s = self._timeout_s - self._latency_s / 2
            self._clock.call_later(wait_s, lambda: on_done(result))

        self._clock.call_later(self._latency_s / 2, arrive)


def store_failed(outcome: MemdsOutcome) -> StoreResult:
    """A conditional store without a usable answer."""
    return MemdsStore.FAILED, outcome
