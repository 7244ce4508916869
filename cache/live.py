"""A real memcached node, through pymemcache on worker threads.

pymemcache blocks, and its own pool raises when it is exhausted instead of waiting, so each node has
a few threads with a connection each and a bound on what may wait for them. `ignore_exc` is never
used: it would turn an outage into a miss.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pymemcache import Client, MemcacheError, MemcacheUnexpectedCloseError

from cache import memds_keys
from wire.injection import FaultyMemdsNode
from wire.ports import MemdsGet, MemdsNode, MemdsOutcome, MemdsStore
from wire.service import Runtime

_T = TypeVar("_T")

_STORE_RESULTS = {True: MemdsStore.STORED, False: MemdsStore.CONFLICT, None: MemdsStore.MISSING}


@dataclass(frozen=True, slots=True)
class MemcachedConfig:
    """How patient to be with one memcached node."""

    # Seconds after which a request has its answer, TIMEOUT if no other. Below a reader's beat, so
    # that a node that hangs is seen before it is asked again.
    timeout_s: float = 0.2
    # Threads, and so connections, per node. Two: a large transfer does not hold up a small one.
    workers: int = 2
    # Most requests that may wait or be under way per node. Past it they end as TIMEOUT at once:
    # their turn would come too late.
    pending_max: int = 64

    @classmethod
    def for_publisher(cls) -> MemcachedConfig:
        """Patience for stores of a megabyte, which nobody waits for."""
        return cls(timeout_s=2.0)


class MemcachedNode:
    """Implements `wire.ports.MemdsNode` over one memcached. Used on its loop's thread only.

    address: `host:port`, also the node's name.
    marker: key whose absence tells that the node was emptied (`memds_keys.marker`).
    """

    def __init__(
        self,
        address: str,
        marker: str,
        loop: asyncio.AbstractEventLoop,
        config: MemcachedConfig | None = None,
    ) -> None:
        self._address = address
        self._marker = marker
        self._loop = loop
        self._config = config or MemcachedConfig()
        self._jobs: queue.SimpleQueue[Callable[[Client], None] | None] = queue.SimpleQueue()
        self._pending = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"memcached {address} {number}", daemon=True)
            for number in range(self._config.workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def name(self) -> str:
        return self._address

    def get_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None:
        def get(client: Client) -> MemdsGet:
            found = client.get_many([*keys, self._marker])
            return MemdsGet(self._outcome(found, keys), found)

        self._submit(get, MemdsGet, on_done)

    def gets_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None:
        def gets(client: Client) -> MemdsGet:
            pairs = client.gets_many([*keys, self._marker])
            outcome = self._outcome(pairs, keys)
            values = {key: value for key, (value, _) in pairs.items()}
            return MemdsGet(outcome, values, {key: token for key, (_, token) in pairs.items()})

        self._submit(gets, MemdsGet, on_done)

    def set_many(
        self, values: Mapping[str, bytes], on_done: Callable[[MemdsOutcome], None]
    ) -> None:
        def store(client: Client) -> MemdsOutcome:
            refused = client.set_many(dict(values), noreply=False)
            return MemdsOutcome.ERROR if refused else MemdsOutcome.OK

        self._submit(store, lambda outcome: outcome, on_done)

    def cas(
        self,
        key: str,
        value: bytes,
        token: bytes,
        on_done: Callable[[MemdsStore, MemdsOutcome], None],
    ) -> None:
        def swap(client: Client) -> tuple[MemdsStore, MemdsOutcome]:
            result = client.cas(key, value, token, noreply=False)
            return _STORE_RESULTS[result], MemdsOutcome.OK

        self._submit(swap, _failed, lambda result: on_done(*result))

    def add(
        self, key: str, value: bytes, on_done: Callable[[MemdsStore, MemdsOutcome], None]
    ) -> None:
        def store(client: Client) -> tuple[MemdsStore, MemdsOutcome]:
            return _STORE_RESULTS[client.add(key, value, noreply=False)], MemdsOutcome.OK

        self._submit(store, _failed, lambda result: on_done(*result))

    def close(self) -> None:
        """Ends the threads after what they are doing. Requests from now on end as DOWN."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)

    def _outcome(self, found: dict[str, _T], asked: Sequence[str]) -> MemdsOutcome:
        """OK or EMPTY, by whether the marker is there; takes it out unless it was asked for."""
        outcome = MemdsOutcome.OK if self._marker in found else MemdsOutcome.EMPTY
        if self._marker not in asked:
            found.pop(self._marker, None)
        return outcome

    def _submit(
        self,
        act: Callable[[Client], _T],
        fail: Callable[[MemdsOutcome], _T],
        on_done: Callable[[_T], None],
    ) -> None:
        """Runs `act` on a worker thread and its result, or `fail(outcome)`, on the loop, once."""
        if self._closed or self._pending >= self._config.pending_max:
            outcome = MemdsOutcome.DOWN if self._closed else MemdsOutcome.TIMEOUT
            self._loop.call_soon(lambda: on_done(fail(outcome)))
            return
        self._pending += 1
        ended = False

        def end(result: _T) -> None:
            nonlocal ended
            if not ended:
                ended = True
                timer.cancel()
                on_done(result)

        def release_and_end(result: _T) -> None:
            self._pending -= 1
            end(result)

        def job(client: Client) -> None:
            outcome = MemdsOutcome.TIMEOUT
            if not ended:
                outcome, result = _attempt(act, client)
                if result is not None:
                    self._to_loop(lambda: release_and_end(result))
                    return
            self._to_loop(lambda: release_and_end(fail(outcome)))

        timer = self._loop.call_later(
            self._config.timeout_s, lambda: end(fail(MemdsOutcome.TIMEOUT))
        )
        self._jobs.put(job)

    def _to_loop(self, callback: Callable[[], None]) -> None:
        # A loop that was closed meanwhile has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def _work(self) -> None:
        host, _, port = self._address.rpartition(":")
        client = Client(
            (host.strip("[]"), int(port)),
            connect_timeout=self._config.timeout_s,
            timeout=self._config.timeout_s,
            no_delay=True,
        )
        while (job := self._jobs.get()) is not None:
            job(client)
        client.close()


def _attempt(act: Callable[[Client], _T], client: Client) -> tuple[MemdsOutcome, _T | None]:
    """The result of an action, or how it failed and None."""
    try:
        return MemdsOutcome.OK, act(client)
    except TimeoutError:
        outcome = MemdsOutcome.TIMEOUT
    except (OSError, MemcacheUnexpectedCloseError):
        outcome = MemdsOutcome.DOWN
    except (MemcacheError, ValueError, LookupError):
        # An error line, or bytes that are no answer at all.
        outcome = MemdsOutcome.ERROR
    # What is left unread on this connection belongs to nobody.
    client.close()
    return outcome, None


def _failed(outcome: MemdsOutcome) -> tuple[MemdsStore, MemdsOutcome]:
    return MemdsStore.FAILED, outcome


def connect(
    addresses: Sequence[str],
    cluster: str,
    loop: asyncio.AbstractEventLoop,
    config: MemcachedConfig | None = None,
) -> list[MemcachedNode]:
    """The memcached nodes of a cluster. Connections are made when they are first needed."""
    marker = memds_keys.marker(cluster)
    return [MemcachedNode(address, marker, loop, config) for address in addresses]


def connect_from(
    runtime: Runtime, addresses: Sequence[str], cluster: str, config: MemcachedConfig | None = None
) -> list[MemdsNode]:
    """As `connect`, for a server: the nodes misbehave if the process is told so."""
    config = config or MemcachedConfig()
    nodes = connect(addresses, cluster, runtime.clock.loop, config)
    if runtime.faults is None:
        return list(nodes)
    return [
        FaultyMemdsNode(node, runtime.faults, runtime.clock, runtime.rng, config.timeout_s)
        for node in nodes
    ]
