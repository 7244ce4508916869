"""Finding out what the router does not know: tables, and who serves a hash now.

MemDS is asked first, for tables; then the storage nodes themselves, which are the authority. All
searches for one thing are one search. The control plane is never asked.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from cache.listener import LookupResult
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from router.config import RouterConfig
from router.survey import Surveyor, Tally
from router.tables import KnownTable, Tables
from wire.metrics import Metrics
from wire.ports import Clock, Timer

TableFn: TypeAlias = Callable[[KnownTable | KeyplaneError], None]
RouteFn: TypeAlias = Callable[[KeyplaneError | None], None]


class Lookup(Protocol):
    """The part of a `cache.reader.MapReader` that searches use."""

    def lookup(self, table: str) -> bool:
        """Reads a table's map on the next beat, and tells how that ended by `on_lookup`.

        False if too many tables are waiting.
        """


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who waits for a search, until it ends or his own time does."""

    on_done: Callable[[], None]
    timer: Timer | None = None
    woken: bool = False

    def wake(self) -> None:
        if not self.woken:
            self.woken = True
            if self.timer is not None:
                self.timer.cancel()
            self.on_done()


@dataclass(slots=True, eq=False)
class _Flight:
    """One search under way and everybody who waits for it."""

    waiters: list[_Waiter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Why a table was not found, and until when that stands."""

    error: KeyplaneError
    until: float


class Search:
    def __init__(
        self,
        config: RouterConfig,
        clock: Clock,
        tables: Tables,
        surveyor: Surveyor,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._clock = clock
        self._tables = tables
        self._surveyor = surveyor
        self._lookup: Lookup | None = None
        self._flights: dict[Hashable, _Flight] = {}
        self._verdicts: dict[str, _Verdict] = {}
        # When searches for routes ended; see `search_reuse_s`.
        self._ended_at: dict[Hashable, float] = {}
        self._started = metrics.counter("router_searches", "Searches begun, by kind.", "kind")
        metrics.gauge("router_searches_open", "Searches under way.", lambda: len(self._flights))

    def use(self, lookup: Lookup) -> None:
        """Where tables are looked up first."""
        self._lookup = lookup

    # --- tables ---------------------------------------------------------------------------------

    def table(self, name: str, deadline: float, on_done: TableFn) -> None:
        """Finds a table that is not known, or says why it cannot be used."""
        verdict = self._verdicts.get(name)
        if verdict is not None and self._clock.now() < verdict.until:
            error = verdict.error
            self._clock.call_soon(lambda: on_done(error))
            return
        flight = self._join(("table", name), deadline, lambda: on_done(self._table_found(name)))
        if flight is None:
            error = self._too_many()
            self._clock.call_soon(lambda: on_done(error))
        elif len(flight.waiters) == 1:
            self._started.inc("table")
            self._begin_table(name)

    def on_lookup(self, name: str, result: LookupResult) -> None:
        """MemDS has answered, or has not."""
        if ("table", name) not in self._flights:
            return
        if result is LookupResult.FOUND:
            self._end(("table", name))
        else:
            self._survey_table(name, absent=result is LookupResult.ABSENT)

    def _begin_table(self, name: str) -> None:
        if self._lookup is None or not self._lookup.lookup(name):
            self._survey_table(name, absent=False)

    def _survey_table(self, name: str, absent: bool) -> None:
        def on_answer() -> None:
            known = self._peek(name)
            if known is not None and known.routes.partition_count:
                self._end(("table", name))

        def on_end(tally: Tally) -> None:
            if self._peek(name) is None and ("table", name) in self._flights:
                self._judge(name, absent, tally)
            self._end(("table", name))

        self._surveyor.ask(name, on_answer, on_end)

    def _judge(self, name: str, absent: bool, tally: Tally) -> None:
        """Nobody knows the table: decides whether that means that there is none.

        It does if MemDS is complete and has no such table, or if every storage node there is has
        said so. Silence means nothing.
        """
        if name in tally.deleted:
            self._tables.bury(name)
            return
        if absent or (tally.of_all and not tally.silent):
            error = KeyplaneError(
                Reason.TABLE_NOT_FOUND, f"there is no table {name!r}; create it first"
            )
        else:
            error = KeyplaneError(
                Reason.NO_ROUTE,
                f"nobody can say where table {name!r} lives: MemDS gave no usable answer, and of"
                f" the storage nodes that are known {tally.answered} do not serve it and"
                f" {tally.silent} do not answer",
            )
        until = self._clock.now() + self._config.absent_reuse_s
        self._verdicts.pop(name, None)
        self._verdicts[name] = _Verdict(error, until)
        if len(self._verdicts) > self._config.absent_max:
            del self._verdicts[next(iter(self._verdicts))]

    def _table_found(self, name: str) -> KnownTable | KeyplaneError:
        try:
            known = self._tables.get(name)
        except KeyplaneError as error:
            return error
        if known is not None:
            self._verdicts.pop(name, None)
            return known
        verdict = self._verdicts.get(name)
        if verdict is not None:
            return verdict.error
        return KeyplaneError(
            Reason.NO_ROUTE, f"where table {name!r} lives was not found out before the deadline"
        )

    def _peek(self, name: str) -> KnownTable | None:
        try:
            return self._tables.get(name)
        except KeyplaneError:
            return None

    # --- routes ---------------------------------------------------------------------------------

    def route(
        self,
        known: KnownTable,
        key_hash: int,
        stale: Partition | None,
        deadline: float,
        on_done: RouteFn,
    ) -> None:
        """Asks who serves a hash, other than the partition that is known not to.

        `on_done` gets an error only if the search was refused. Whether it found anything shows in
        the table's routes.
        """
        place = (stale.start, stale.epoch) if stale is not None else None
        key = ("route", known.table_id, place)
        ended_at = self._ended_at.get(key)
        if ended_at is not None and self._clock.now() < ended_at + self._config.search_reuse_s:
            self._clock.call_soon(lambda: on_done(None))
            return
        flight = self._join(key, deadline, lambda: on_done(None))
        if flight is None:
            error = self._too_many()
            self._clock.call_soon(lambda: on_done(error))
        elif len(flight.waiters) == 1:
            self._started.inc("route")
            self._begin_route(key, known, key_hash, stale)

    def _begin_route(
        self, key: Hashable, known: KnownTable, key_hash: int, stale: Partition | None
    ) -> None:
        def on_answer() -> None:
            found = known.lookup(key_hash)
            if found is not None and (stale is None or found.partition.epoch > stale.epoch):
                self._end(key)

        def on_end(_tally: Tally) -> None:
            self._ended_at.pop(key, None)
            self._ended_at[key] = self._clock.now()
            if len(self._ended_at) > self._config.searches_max:
                del self._ended_at[next(iter(self._ended_at))]
            self._end(key)

        self._surveyor.ask(known.name, on_answer, on_end)

    # --- flights --------------------------------------------------------------------------------

    def _join(self, key: Hashable, deadline: float, on_done: Callable[[], None]) -> _Flight | None:
        """Waits for a search, new if this is its only waiter. None if there are too many."""
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._config.searches_max:
                return None
            flight = self._flights[key] = _Flight()
        waiter = _Waiter(on_done)
        waiter.timer = self._clock.call_later(deadline - self._clock.now(), waiter.wake)
        flight.waiters.append(waiter)
        return flight

    def _end(self, key: Hashable) -> None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            for waiter in flight.waiters:
                waiter.wake()

    def _too_many(self) -> KeyplaneError:
        return KeyplaneError(
            Reason.OVERLOADED,
            f"{len(self._flights)} searches for tables and routes are under way; retry later",
            retry_after_s=self._config.search_timeout_s,
        )
