"""A memcached node that is stale, damaged, slow or gone, as one process sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from wire.faults import Direction, FaultKind
from wire.injection.fate import fate_of
from wire.injection.table import FaultTable
from wire.ports import Clock, MemdsGet, MemdsNode, MemdsOutcome, MemdsStore, Rng

_T = TypeVar("_T")

# Values remembered of each node, in case it goes stale. Roots and reports of some hundred tables,
# and the pages that were looked at last.
SEEN_MAX = 4096


class FaultyMemdsNode:
    """Implements `wire.ports.MemdsNode` around another, whose name is its address.

    timeout_s: of the other; what comes later than that is a TIMEOUT here too.
    """

    def __init__(
        self, inner: MemdsNode, table: FaultTable, clock: Clock, rng: Rng, timeout_s: float
    ) -> None:
        self._inner = inner
        self._table = table
        self._clock = clock
        self._rng = rng
        self._timeout_s = timeout_s
        # The last values read. They stop changing while the node is stale.
        self._seen: dict[str, bytes] = {}
        self._last_outcome = MemdsOutcome.EMPTY
        table.allow_memds(inner.name)

    @property
    def name(self) -> str:
        return self._inner.name

    def get_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None:
        self._call(
            lambda done: self._inner.get_many(keys, lambda got: done(self._read(keys, got))),
            MemdsGet,
            on_done,
        )

    def gets_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None:
        self._call(
            lambda done: self._inner.gets_many(keys, lambda got: done(self._read(keys, got))),
            MemdsGet,
            on_done,
        )

    def set_many(
        self, values: Mapping[str, bytes], on_done: Callable[[MemdsOutcome], None]
    ) -> None:
        self._store(
            lambda done: self._inner.set_many(values, done), lambda outcome: outcome, on_done
        )

    def cas(
        self,
        key: str,
        value: bytes,
        token: bytes,
        on_done: Callable[[MemdsStore, MemdsOutcome], None],
    ) -> None:
        self._store(
            lambda done: self._inner.cas(key, value, token, lambda *result: done(result)),
            _failed,
            lambda result: on_done(*result),
        )

    def add(
        self, key: str, value: bytes, on_done: Callable[[MemdsStore, MemdsOutcome], None]
    ) -> None:
        self._store(
            lambda done: self._inner.add(key, value, lambda *result: done(result)),
            _failed,
            lambda result: on_done(*result),
        )

    # --- The way there and back

    def _store(
        self,
        act: Callable[[Callable[[_T], None]], None],
        fail: Callable[[MemdsOutcome], _T],
        on_done: Callable[[_T], None],
    ) -> None:
        """What a Metadata Store that lags publishes leaves it late, and has all its time then."""
        lag_s = self._table.delay_s(FaultKind.METADATA_LAG)
        if lag_s:
            self._clock.call_later(lag_s, lambda: self._call(act, fail, on_done))
        else:
            self._call(act, fail, on_done)

    def _call(
        self,
        act: Callable[[Callable[[_T], None]], None],
        fail: Callable[[MemdsOutcome], _T],
        on_done: Callable[[_T], None],
    ) -> None:
        if self._touching(FaultKind.MEMDS_DOWN):
            self._clock.call_soon(lambda: on_done(fail(MemdsOutcome.DOWN)))
            return
        ended = False

        def end(result: _T) -> None:
            nonlocal ended
            if not ended:
                ended = True
                timer.cancel()
                on_done(result)

        def arrived(result: _T) -> None:
            fate = fate_of(self._table, self._rng, self.name, Direction.FROM_PEER)
            delay_s = fate.delay_s + self._slow_s()
            if fate.lost:
                return
            if delay_s:
                self._clock.call_later(delay_s, lambda: end(result))
            else:
                end(result)

        timer = self._clock.call_later(self._timeout_s, lambda: end(fail(MemdsOutcome.TIMEOUT)))
        fate = fate_of(self._table, self._rng, self.name, Direction.TO_PEER)
        if fate.lost:
            return
        if fate.delay_s:
            self._clock.call_later(fate.delay_s, lambda: act(arrived))
        else:
            act(arrived)

    # --- What is read

    def _read(self, keys: Sequence[str], got: MemdsGet) -> MemdsGet:
        if got.outcome not in (MemdsOutcome.OK, MemdsOutcome.EMPTY):
            return got
        if self._touching(FaultKind.MEMDS_STALE):
            values = {key: self._seen[key] for key in keys if key in self._seen}
            # A publisher may still replace what it cannot see as it is.
            tokens = {key: got.tokens.get(key, b"0") for key in values} if got.tokens else {}
            got = MemdsGet(self._last_outcome, values, tokens)
        else:
            self._remember(keys, got)
        damaging = self._touching(FaultKind.MEMDS_CORRUPT)
        if damaging is None:
            return got
        values = {key: self._damaged(value, damaging) for key, value in got.values.items()}
        return MemdsGet(got.outcome, values, got.tokens)

    def _remember(self, keys: Sequence[str], got: MemdsGet) -> None:
        seen = self._seen
        self._last_outcome = got.outcome
        for key in keys:
            # Taken out first: the order is that of the last reading.
            seen.pop(key, None)
            if key in got.values:
                seen[key] = got.values[key]
        while len(seen) > SEEN_MAX:
            del seen[next(iter(seen))]

    def _damaged(self, value: bytes, probability: float) -> bytes:
        """One bit is wrong, as in a bad memory module."""
        if not value or self._rng.random() >= probability:
            return value
        damaged = bytearray(value)
        damaged[self._rng.randrange(len(value))] ^= 1 << self._rng.randrange(8)
        return bytes(damaged)

    def _touching(self, kind: FaultKind) -> float | None:
        """The highest probability of the faults of a kind on this node; None without any."""
        return max(
            (
                installed.fault.probability
                for installed in self._table.of(kind)
                if self.name in installed.addresses
            ),
            default=None,
        )

    def _slow_s(self) -> float:
        return sum(
            installed.fault.parameters["delay_s"]
            for installed in self._table.of(FaultKind.MEMDS_SLOW)
            if self.name in installed.addresses
        )


def _failed(outcome: MemdsOutcome) -> tuple[MemdsStore, MemdsOutcome]:
    return MemdsStore.FAILED, outcome
