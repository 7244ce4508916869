"""Simulated memcached: one fleet for all processes, reached by each over the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from cache.memory import MemoryMemcached, store_failed
from sim.network import SimNetwork
from sim.process import SimProcess
from sim.scheduler import Scheduler
from wire.ports import MemdsGet, MemdsOutcome, MemdsStore

_T = TypeVar("_T")

# After so many seconds without an answer a caller goes on; as the live client's default.
TIMEOUT_S = 0.2


class SimMemdsNode:
    """Implements `wire.ports.MemdsNode`: one memcached node, as one process reaches it.

    requests: how many each process has sent to any node, by the process's name; shared.
    """

    __slots__ = ("_memcached", "_network", "_process", "_requests", "_scheduler")

    def __init__(
        self,
        scheduler: Scheduler,
        network: SimNetwork,
        process: SimProcess,
        memcached: MemoryMemcached,
        requests: Counter[str],
    ) -> None:
        self._scheduler = scheduler
        self._network = network
        self._process = process
        self._memcached = memcached
        self._requests = requests

    @property
    def name(self) -> str:
        return self._memcached.name

    def get_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None:
        self._ask(lambda: self._memcached.read(keys), MemdsGet, on_done)

    def gets_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None:
        self._ask(lambda: self._memcached.read_with_tokens(keys), MemdsGet, on_done)

    def set_many(
        self, values: Mapping[str, bytes], on_done: Callable[[MemdsOutcome], None]
    ) -> None:
        self._ask(lambda: self._memcached.store(values), lambda outcome: outcome, on_done)

    def cas(
        self,
        key: str,
        value: bytes,
        token: bytes,
        on_done: Callable[[MemdsStore, MemdsOutcome], None],
    ) -> None:
        self._ask(
            lambda: self._memcached.swap(key, value, token),
            store_failed,
            lambda result: on_done(*result),
        )

    def add(
        self, key: str, value: bytes, on_done: Callable[[MemdsStore, MemdsOutcome], None]
    ) -> None:
        self._ask(
            lambda: self._memcached.insert(key, value),
            store_failed,
            lambda result: on_done(*result),
        )

    def _ask(
        self,
        act: Callable[[], _T],
        fail: Callable[[MemdsOutcome], _T],
        on_done: Callable[[_T], None],
    ) -> None:
        """Acts when the request arrives. A late answer is a TIMEOUT, though stores took effect."""
        process, memcached = self._process, self._memcached
        self._requests[process.name] += 1
        there_s = self._network.transit(process.name, memcached.name)
        back_s = self._network.transit(memcached.name, process.name)

        def finish(result: _T, seconds: float) -> None:
            self._scheduler.after(seconds, lambda: on_done(result), process)

        if there_s is None or there_s >= TIMEOUT_S:
            finish(fail(MemdsOutcome.TIMEOUT), TIMEOUT_S)
            return

        def arrive() -> None:
            wait_s = back_s
            if memcached.down:
                result = fail(MemdsOutcome.DOWN)
            elif memcached.broken:
                result = fail(MemdsOutcome.ERROR)
            else:
                result = act()
                wait_s = None if back_s is None else back_s + memcached.delay_s
            left_s = TIMEOUT_S - there_s
            if wait_s is None or wait_s > left_s:
                finish(fail(MemdsOutcome.TIMEOUT), left_s)
            else:
                finish(result, wait_s)

        self._scheduler.after(there_s, arrive)
