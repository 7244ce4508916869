"""The granter: routers tell it what they have used, and it tells them what they may use next.

It keeps nothing durable. One that starts anew knows of no use, and takes each table for unused
since then; what it has forgotten is at most a burst. The previous peak of an on-demand table comes
back with the routers that were told of it; peaks that had yet to become one are forgotten. While
there is no granter, routers admit whatever the limits of the partitions do.

After "Amazon DynamoDB: A Scalable, Predictably Performant, and Fully Managed NoSQL Database
Service", USENIX ATC 2022, section 4.3 (global admission control).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from granter.budget import Budget
from granter.config import GranterConfig
from granter.growth import Growth
from keyplane.granter.v1 import granter_pb2 as pb
from keyplane.model.bucket import Bucket
from keyplane.model.errors import KeyplaneError, Reason
from wire.metrics import Metrics
from wire.ports import Clock, Handler, Reply, ReplyFn, Request, Server
from wire.rpc import read_request

SERVICE = "keyplane.granter.v1.GranterService"

_ROUTER_ID_BYTES_MAX = 64

# Of what one request may say: far above what any router can use in a second, and still a number
# that can be reckoned with.
_UNITS_MAX = 1e12

_Q = TypeVar("_Q", bound=Message)


class _Table:
    """map_version: of the map that the rates are from."""

    __slots__ = ("map_version", "reads", "writes")

    def __init__(self, reads: Budget, writes: Budget, map_version: int) -> None:
        self.reads = reads
        self.writes = writes
        self.map_version = map_version


class GranterCore:
    """One granter over its ports."""

    def __init__(
        self, config: GranterConfig, clock: Clock, server: Server, metrics: Metrics
    ) -> None:
        self._config = config
        self._clock = clock
        self._started_at = clock.now()
        self._draining = False
        # By table id, the one used least recently first.
        self._tables: dict[int, _Table] = {}
        self._refills = metrics.counter(
            "granter_refills", "Requests of routers, by how they ended.", "reason"
        )
        metrics.gauge("granter_tables", "Tables that are kept.", lambda: len(self._tables))
        server.register(f"/{SERVICE}/Refill", self._handler(pb.RefillRequest, self._refill))
        server.register(f"/{SERVICE}/ListBudgets", self._handler(pb.ListBudgetsRequest, self._list))

    def start(self) -> None:
        self._clock.call_later(self._config.burst_s, self._forget)

    @property
    def ready(self) -> bool:
        return not self._draining

    def drain(self, on_done: Callable[[], None]) -> None:
        self._draining = True
        self._clock.call_soon(on_done)

    def status(self) -> str:
        return f"{len(self._tables)} tables"

    def _handler(self, type_: type[_Q], handle: Callable[[_Q], Message]) -> Handler:
        def take(request: Request, reply: ReplyFn) -> None:
            try:
                answer = Reply(handle(read_request(type_, request.payload)).SerializeToString())
            except KeyplaneError as error:
                answer = Reply(error=error)
            self._refills.inc("OK" if answer.error is None else answer.error.reason.name)
            reply(answer)

        return take

    def _refill(self, request: pb.RefillRequest) -> pb.RefillResponse:
        config = self._config
        if not 0 < len(request.router_id.encode()) <= _ROUTER_ID_BYTES_MAX:
            raise _invalid(f"router_id has 1 to {_ROUTER_ID_BYTES_MAX} bytes")
        if len(request.tables) > config.tables_per_request_max:
            raise _invalid(
                f"{len(request.tables)} tables in one request; send at most"
                f" {config.tables_per_request_max:,}, and the others in the next"
            )
        for use in request.tables:
            _check(use)
        now = self._clock.now()
        grants = [self._grant(request.router_id, use, now) for use in request.tables]
        return pb.RefillResponse(grants=grants, valid_ms=round(config.valid_s * 1000))

    def _grant(self, router: str, use: pb.TableUse, now: float) -> pb.TableGrant:
        table = self._table(use, now)
        reads, writes = table.reads, table.writes
        reads.grow(router, use.reads.used, use.read_growth.peak, now)
        writes.grow(router, use.writes.used, use.write_growth.peak, now)
        return pb.TableGrant(
            read_units=reads.refill(router, use.reads.used, use.reads.wanted_per_second, now),
            write_units=writes.refill(router, use.writes.used, use.writes.wanted_per_second, now),
            reads=_growing(reads),
            writes=_growing(writes),
        )

    def _table(self, use: pb.TableUse, now: float) -> _Table:
        table = self._tables.pop(use.table_id, None)
        if table is None:
            table = _Table(*self._new_budgets(use, now), use.map_version)
            while len(self._tables) >= self._config.tables_max:
                del self._tables[next(iter(self._tables))]
        elif table.map_version < use.map_version:
            table.map_version = use.map_version
            self._change(table, use, now)
        self._tables[use.table_id] = table
        return table

    def _change(self, table: _Table, use: pb.TableUse, now: float) -> None:
        """Takes over new settings. Peaks are kept while the table is on-demand."""
        new = self._new_budgets(use, now)
        for budget, settings in zip((table.reads, table.writes), new, strict=True):
            rate, depth = settings.bucket.rate, settings.bucket.depth
            if budget.growth is None or settings.growth is None:
                budget.growth = settings.growth
            else:
                budget.growth.warm = settings.growth.warm
                budget.growth.ceiling = settings.growth.ceiling
                rate = budget.growth.limit(now)
                depth = rate * self._config.on_demand_depth_s
            budget.change_rate(rate, depth, now)

    def _new_budgets(self, use: pb.TableUse, now: float) -> tuple[Budget, Budget]:
        """Reads and writes of a table that nobody has used since this granter started."""
        config = self._config
        read_growth = write_growth = None
        if use.HasField("read_growth") and use.HasField("write_growth"):
            read_growth = Growth(
                config, use.read_growth.warm or config.warm_read_units, use.read_units_per_second
            )
            write_growth = Growth(
                config, use.write_growth.warm or config.warm_write_units, use.write_units_per_second
            )
        return (
            self._new_budget(use.read_units_per_second, read_growth, now),
            self._new_budget(use.write_units_per_second, write_growth, now),
        )

    def _new_budget(self, rate: float, growth: Growth | None, now: float) -> Budget:
        config, depth_s = self._config, self._config.burst_s
        if growth is not None:
            rate, depth_s = growth.limit(now), config.on_demand_depth_s
        bucket = Bucket(rate, rate * depth_s, now)
        unused_s = max(config.refill_s, now - self._started_at)
        bucket.level = min(bucket.depth, rate * unused_s)
        return Budget(bucket, config, growth)

    def _forget(self) -> None:
        """Drops tables that would be no different if they were met for the first time."""
        now = self._clock.now()
        for table_id, table in list(self._tables.items()):
            table.reads.settle(now)
            table.writes.settle(now)
            if table.reads.is_unused() and table.writes.is_unused():
                del self._tables[table_id]
        self._clock.call_later(self._config.burst_s, self._forget)

    def _list(self, _: pb.ListBudgetsRequest) -> pb.ListBudgetsResponse:
        now = self._clock.now()
        return pb.ListBudgetsResponse(
            tables=[
                pb.TableBudget(
                    table_id=table_id,
                    reads=_described(table.reads, now),
                    writes=_described(table.writes, now),
                )
                for table_id, table in sorted(self._tables.items())
            ]
        )


def _described(budget: Budget, now: float) -> pb.Budget:
    budget.settle(now)
    return pb.Budget(
        units_per_second=budget.bucket.rate,
        level=budget.bucket.level,
        granted=budget.granted,
        routers=budget.routers,
        peak=0.0 if budget.growth is None else budget.growth.peaks.previous,
    )


def _growing(budget: Budget) -> pb.Growing | None:
    """What routers are told of an on-demand table beside their grant."""
    if budget.growth is None:
        return None
    return pb.Growing(units_per_second=budget.bucket.rate, peak=budget.growth.peaks.previous)


def _check(use: pb.TableUse) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT) on numbers that cannot be."""
    if not use.table_id:
        raise _invalid("a table_id is missing")
    for rate in (use.read_units_per_second, use.write_units_per_second):
        if not 0.0 < rate <= _UNITS_MAX:
            raise _invalid(f"{rate} units a second is no rate of a table")
    if use.HasField("read_growth") != use.HasField("write_growth"):
        raise _invalid(
            "a table is on-demand for reads and writes, or for neither; send both or none"
        )
    for growth in (use.read_growth, use.write_growth):
        for rate in (growth.warm, growth.peak):
            if not (math.isfinite(rate) and 0.0 <= rate <= _UNITS_MAX):
                raise _invalid(f"{rate} units a second is no throughput of an on-demand table")
    for units in (
        use.reads.used,
        use.reads.wanted_per_second,
        use.writes.used,
        use.writes.wanted_per_second,
    ):
        if not (math.isfinite(units) and 0.0 <= units <= _UNITS_MAX):
            raise _invalid(f"{units} is no number of units that a router can have used or wanted")


def _invalid(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
