"""Which requests of a provisioned or on-demand table, or of a tenant with limits on capacity units,
are let in, by what the granter granted.

A router asks ahead and never waits: a request is let in or refused with what the router holds. One
that holds no grant, because it has only begun to use the table or because the granter is gone, lets
everything in, and the limits of the partitions are what remains.

Which limit a caller is told of follows "Diagnosing throttling": of an on-demand table its own
maximum, where that is what binds ("DynamoDB maximum throughput for on-demand tables",
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/
on-demand-capacity-mode-max-throughput.html); else the quota that all tables have, at 40,000 units a
second; else it has grown faster than its partitions, which DynamoDB tells as a limit of the range
of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from cache.callers import Tenant
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.granter.v1 import granter_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import TABLE_UNITS_MAX
from keyplane.model.tenants import ACCOUNT_DIGITS
from keyplane.model.throttling import Limit, Refusals
from router.config import RouterConfig
from wire.metrics import Metrics
from wire.ports import Clock, Reply, Rng, Transport

REFILL: Final = "/keyplane.granter.v1.GranterService/Refill"

# Modes in which a table as a whole has a limit.
_GRANTED: Final = (catalog.CAPACITY_MODE_PROVISIONED, catalog.CAPACITY_MODE_ON_DEMAND)

# Part of a grant below which the next is asked for without waiting for its time.
_LOW: Final = 0.4

# Where tenants are among the table ids that the granter is told: an account is added.
_TENANTS_FROM: Final = 1 << 62

# Units a second where only the other kind has a limit: more than anybody can use.
_NO_LIMIT: Final = 1_000_000_000

# For callers that are refused: the time in which a table that is short is granted more.
RETRY_AFTER_S: Final = 0.1

# What was wanted in a longer time than this says little of what is wanted now.
_ELAPSED_S_MAX: Final = 1.0


class Allowance:
    """What a router may use of one table, of reads or of writes; in capacity units.

    left: of the grant; below 0 more was used than granted. low: below that there is little left.
    until: when the grant ends. used: since the granter was asked last, as are `admitted` and
    `refused`, which count requests. asked: whether anything was wanted then. rate, peak: units a
    second that an on-demand table may use over all routers, and its highest previous peak, as the
    granter has said. refusals: what those are told that are refused, until that changes.
    """

    __slots__ = (
        "admitted",
        "asked",
        "left",
        "low",
        "peak",
        "rate",
        "refusals",
        "refused",
        "until",
        "used",
    )

    def __init__(self) -> None:
        self.left = 0.0
        self.low = 0.0
        self.until = 0.0
        self.used = 0.0
        self.admitted = 0
        self.refused = 0
        self.asked = False
        self.rate = 0.0
        self.peak = 0.0
        self.refusals: Refusals | None = None

    def admit(self, now: float, units: float) -> bool:
        """Takes the units, which the request will consume at least."""
        if self.left <= 0.0 and now < self.until:
            self.refused += 1
            return False
        self.admitted += 1
        self.take(units)
        return True

    def take(self, units: float) -> None:
        self.left -= units
        self.used += units

    def account(self, elapsed_s: float, watched: bool) -> pb.Use:
        """What the granter is told, and counted from 0 again.

        watched: there was a granter. What was used without one is nobody's debt.
        """
        used = max(0.0, self.used)
        each = used / self.admitted if self.admitted else 1.0
        wanted = used + self.refused * max(each, 0.5)
        self.asked = wanted > 0.0
        self.used = 0.0
        self.admitted = self.refused = 0
        return pb.Use(used=used if watched else 0.0, wanted_per_second=wanted / elapsed_s)

    def grant(self, units: float, until: float) -> None:
        """What was granted, in the place of what was left; less what was used meanwhile. Where
        nothing was wanted, nothing being granted is no refusal.
        """
        self.left = units - self.used
        self.low = units * _LOW
        self.until = until if self.asked else 0.0

    def grow(self, rate: float, peak: float) -> None:
        """What the granter says of an on-demand table. A peak above what any table may use says no
        more than that.
        """
        if rate != self.rate:
            self.rate = rate
            self.refusals = None
        if peak > self.peak:
            self.peak = min(peak, float(TABLE_UNITS_MAX))

    def is_urgent(self, now: float) -> bool:
        """There is load, and little or nothing granted for it."""
        if now < self.until:
            return self.left < self.low or self.refused > 0
        return self.admitted > 0

    def is_idle(self, now: float) -> bool:
        """There is nothing to tell: it has used nothing and holds nothing."""
        return self.used == 0.0 and not self.refused and now >= self.until


class TableLimits:
    """Of one table, as one router applies them, or of all tables of a tenant, which to the granter
    are one more.
    """

    __slots__ = ("_wake", "asked_at", "map_version", "reads", "table", "writes")

    def __init__(self, table: catalog.Table, wake: Callable[[TableLimits], None]) -> None:
        """wake: called when there is no grant, with every request."""
        self.table = table
        self.map_version = 0
        self.reads = Allowance()
        self.writes = Allowance()
        self.asked_at = 0.0
        self._wake = wake

    def admit(self, writes: bool, now: float, units: float) -> KeyplaneError | None:
        """None, or why not: THROTTLED."""
        allowance = self.writes if writes else self.reads
        if not allowance.admit(now, units):
            refusals = allowance.refusals
            if refusals is None:
                refusals = allowance.refusals = self._refusals(writes)
            return refusals.after(RETRY_AFTER_S)
        if now >= allowance.until:
            self._wake(self)
        return None

    def take(self, writes: bool, units: float) -> None:
        """What a request has consumed beyond what it was admitted with; less than 0 gives back."""
        allowance = self.writes if writes else self.reads
        allowance.take(units)

    @property
    def is_on_demand(self) -> bool:
        return self.table.capacity_mode == catalog.CAPACITY_MODE_ON_DEMAND

    def most(self, writes: bool) -> int:
        """Units a second that the table may use in the long run; if it is on-demand, at most."""
        if self.is_on_demand:
            on_demand = self.table.on_demand
            own = on_demand.max_write_units if writes else on_demand.max_read_units
            return own or TABLE_UNITS_MAX
        provisioned = self.table.provisioned
        return provisioned.write_capacity_units if writes else provisioned.read_capacity_units

    def warm(self, writes: bool) -> int:
        """Units a second that an on-demand table may use at once; 0 for what a new one has."""
        on_demand = self.table.on_demand
        return on_demand.warm_write_units if writes else on_demand.warm_read_units

    def change(self, table: catalog.Table, map_version: int) -> None:
        """Takes over new settings."""
        self.table, self.map_version = table, map_version
        self.reads.refusals = self.writes.refusals = None

    def _refusals(self, writes: bool) -> Refusals:
        kind = "write" if writes else "read"
        if self.table.table_id >= _TENANTS_FROM:
            return self._tenant_refusals(writes, kind)
        name, most = self.table.name, self.most(writes)
        limit = Limit.PROVISIONED
        used, remedy = f"{most:,}", "give it more: keyplane table update"
        what = f"{kind} units a second and what it had saved up"
        if self.is_on_demand:
            rate = (self.writes if writes else self.reads).rate
            # An older granter says no rate, and knows of none below the maximum.
            if 0.0 < rate < most:
                limit, used = Limit.KEY_RANGE, f"{rate:,.0f}"
                what = f"{kind} units a second: twice its peak of half an hour ago, or what is warm"
                remedy = f"warm it beforehand: keyplane table update --warm-{kind}-units"
            elif most < TABLE_UNITS_MAX:
                limit, what = (
                    Limit.MAX_ON_DEMAND,
                    f"{kind} units a second, the maximum it was given",
                )
                remedy = f"give it more: keyplane table update --max-{kind}-units"
            else:
                limit, what = Limit.ACCOUNT, f"{kind} units a second, the most that a table may"
                remedy = "spread the load over several tables"
        message = f"table {name!r} has used its {used} {what}; send less, or {remedy}"
        return Refusals(limit, writes, name, message)

    def _tenant_refusals(self, writes: bool, kind: str) -> Refusals:
        message = (
            f"the tables of tenant {self.table.name!r} together have used their"
            f" {self.most(writes):,} {kind} units a second and what they had saved up; send less,"
            " or have the operator allow more: keyplane tenant limits"
        )
        account = f"{self.table.table_id - _TENANTS_FROM:0{ACCOUNT_DIGITS}}"
        return Refusals(Limit.ACCOUNT, writes, "*", message, account)


class Refiller:
    """Keeps the grants of all tables that are in use, with one call at a time.

    A call that fails is not tried again: what it gave account of is lost, in favour of the table,
    and the next one asks for what is wanted then.
    """

    def __init__(
        self,
        config: RouterConfig,
        clock: Clock,
        transport: Transport,
        rng: Rng,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._clock = clock
        self._transport = transport
        # Of this life: what another one was granted is not this one's.
        self._router_id = f"{rng.getrandbits(64):016x}"
        # Those that are in use, by table id.
        self._active: dict[int, TableLimits] = {}
        self._asking = False
        self._woken = False
        self._beating = False
        # Whether the latest call was answered.
        self._answered = True
        self._outcomes = metrics.counter(
            "router_refills", "Calls to the granter, by how they ended.", "reason"
        )

    def limits_of(
        self, so_far: TableLimits | None, table: catalog.Table, map_version: int
    ) -> TableLimits | None:
        """A `LimitsOf`: None if the table is unlimited, or nobody grants."""
        if table.capacity_mode not in _GRANTED or not self._config.granter:
            return None
        limits = so_far or TableLimits(table, self._wake)
        limits.change(table, map_version)
        return limits

    def limits_of_tenant(self, so_far: TableLimits | None, tenant: Tenant) -> TableLimits | None:
        """None if its tables together have no limit, or nobody grants."""
        limits = tenant.limits
        reads, writes = limits.read_units_per_second, limits.write_units_per_second
        if not (reads or writes):
            return None
        table = catalog.Table(
            table_id=_TENANTS_FROM + int(tenant.account),
            name=tenant.tenant_id,
            capacity_mode=catalog.CAPACITY_MODE_PROVISIONED,
            provisioned=catalog.ProvisionedThroughput(
                read_capacity_units=reads or _NO_LIMIT, write_capacity_units=writes or _NO_LIMIT
            ),
        )
        if so_far is not None and so_far.table.table_id != table.table_id:
            # Another tenant that was given the name of one that is gone.
            so_far = None
        return self.limits_of(so_far, table, tenant.version)

    def _wake(self, limits: TableLimits) -> None:
        """Asks for the first grant of a table, once the requests of this tick are in."""
        self._active[limits.table.table_id] = limits
        if not (self._woken or self._asking):
            self._woken = True
            self._clock.call_soon(self._ask)

    def _beat(self) -> None:
        self._beating = False
        self._ask()

    def _ask(self) -> None:
        """Asks for what is due, and sees to being called again while any table is in use."""
        self._woken = False
        if self._active and not self._beating:
            self._beating = True
            self._clock.call_later(self._config.refill_beat_s, self._beat)
        if self._asking:
            return
        now = self._clock.now()
        due = []
        for table_id, limits in list(self._active.items()):
            if limits.reads.is_idle(now) and limits.writes.is_idle(now):
                del self._active[table_id]
            elif self._is_due(limits, now):
                due.append(limits)
        if due:
            self._call(due[: self._config.refill_tables_max], now)

    def _is_due(self, limits: TableLimits, now: float) -> bool:
        reads, writes = limits.reads, limits.writes
        if now - limits.asked_at < self._config.refill_beat_s:
            return False
        return (
            now - limits.asked_at >= self._config.refill_s
            or reads.is_urgent(now)
            or writes.is_urgent(now)
        )

    def _call(self, due: list[TableLimits], now: float) -> None:
        self._asking = True
        request = pb.RefillRequest(router_id=self._router_id)
        for limits in due:
            elapsed_s = min(max(now - limits.asked_at, self._config.refill_beat_s), _ELAPSED_S_MAX)
            limits.asked_at = now
            use = request.tables.add(
                table_id=limits.table.table_id,
                map_version=limits.map_version,
                read_units_per_second=limits.most(writes=False),
                write_units_per_second=limits.most(writes=True),
                reads=limits.reads.account(elapsed_s, self._answered),
                writes=limits.writes.account(elapsed_s, self._answered),
            )
            if limits.is_on_demand:
                use.read_growth.warm = limits.warm(writes=False)
                use.read_growth.peak = limits.reads.peak
                use.write_growth.warm = limits.warm(writes=True)
                use.write_growth.peak = limits.writes.peak
                use.read_growth.SetInParent()
                use.write_growth.SetInParent()

        def answered(reply: Reply) -> None:
            self._asking = False
            self._take(due, reply, now)

        deadline = now + self._config.refill_timeout_s
        self._transport.call(
            self._config.granter, REFILL, request.SerializeToString(), deadline, answered
        )

    def _take(self, due: list[TableLimits], reply: Reply, asked_at: float) -> None:
        error = reply.error
        if error is None:
            try:
                response = pb.RefillResponse.FromString(reply.payload)
                if len(response.grants) != len(due):
                    raise KeyplaneError(Reason.INTERNAL, "grants for other tables than asked")
                # By when it was asked: the granter's own time for it ends no earlier.
                until = asked_at + response.valid_ms / 1000
                for limits, granted in zip(due, response.grants, strict=True):
                    limits.reads.grant(granted.read_units, until)
                    limits.writes.grant(granted.write_units, until)
                    limits.reads.grow(granted.reads.units_per_second, granted.reads.peak)
                    limits.writes.grow(granted.writes.units_per_second, granted.writes.peak)
            except DecodeError:
                error = KeyplaneError(Reason.MALFORMED_REQUEST, "no RefillResponse")
            except KeyplaneError as misfit:
                error = misfit
        self._answered = error is None
        self._outcomes.inc("OK" if error is None else error.reason.name)
