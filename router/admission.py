"""Which requests of a table with provisioned throughput, or of a tenant with limits on capacity
units, are let in, by what the granter granted.

A router asks ahead and never waits: a request is let in or refused with what the router holds. One
that holds no grant, because it has only begun to use the table or because the granter is gone, lets
everything in, and the limits of the partitions are what remains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from cache.callers import Tenant
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.granter.v1 import granter_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.tenants import ACCOUNT_DIGITS
from keyplane.model.throttling import RESOURCE, Limit, account_arn, throttled
from router.config import RouterConfig
from wire.metrics import Metrics
from wire.ports import Clock, Reply, Rng, Transport

REFILL: Final = "/keyplane.granter.v1.GranterService/Refill"

# Part of a grant below which the next is asked for without waiting for its time.
_LOW: Final = 0.25

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
    `refused`, which count requests. asked: whether anything was wanted then.
    """

    __slots__ = ("admitted", "asked", "left", "low", "refused", "until", "used")

    def __init__(self) -> None:
        self.left = 0.0
        self.low = 0.0
        self.until = 0.0
        self.used = 0.0
        self.admitted = 0
        self.refused = 0
        self.asked = False

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
            return self._refusal(writes)
        if now >= allowance.until:
            self._wake(self)
        return None

    def take(self, writes: bool, units: float) -> None:
        """What a request has consumed beyond what it was admitted with; less than 0 gives back."""
        allowance = self.writes if writes else self.reads
        allowance.take(units)

    def _refusal(self, writes: bool) -> KeyplaneError:
        kind = "write" if writes else "read"
        provisioned = self.table.provisioned
        units = provisioned.write_capacity_units if writes else provisioned.read_capacity_units
        name = self.table.name
        if self.table.table_id >= _TENANTS_FROM:
            return self._tenant_refusal(writes, kind, units)
        return throttled(
            Limit.PROVISIONED,
            writes,
            name,
            f"table {name!r} has used its {units:,} {kind} units a second and what it had saved up;"
            " send less, or give it more: keyplane table update",
            RETRY_AFTER_S,
        )

    def _tenant_refusal(self, writes: bool, kind: str, units: int) -> KeyplaneError:
        refusal = throttled(
            Limit.ACCOUNT,
            writes,
            "*",
            f"the tables of tenant {self.table.name!r} together have used their {units:,} {kind}"
            " units a second and what they had saved up; send less, or have the operator allow"
            " more: keyplane tenant limits",
            RETRY_AFTER_S,
        )
        account = f"{self.table.table_id - _TENANTS_FROM:0{ACCOUNT_DIGITS}}"
        refusal.metadata = {**refusal.metadata, RESOURCE: account_arn(account, "*")}
        return refusal


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
        """A `LimitsOf`: None if the table's throughput is not provisioned, or nobody grants."""
        if table.capacity_mode != catalog.CAPACITY_MODE_PROVISIONED or not self._config.granter:
            return None
        limits = so_far or TableLimits(table, self._wake)
        limits.table, limits.map_version = table, map_version
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
            table = limits.table
            elapsed_s = min(max(now - limits.asked_at, self._config.refill_beat_s), _ELAPSED_S_MAX)
            limits.asked_at = now
            request.tables.add(
                table_id=table.table_id,
                map_version=limits.map_version,
                read_units_per_second=table.provisioned.read_capacity_units,
                write_units_per_second=table.provisioned.write_capacity_units,
                reads=limits.reads.account(elapsed_s, self._answered),
                writes=limits.writes.account(elapsed_s, self._answered),
            )

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
            except DecodeError:
                error = KeyplaneError(Reason.MALFORMED_REQUEST, "no RefillResponse")
            except KeyplaneError as misfit:
                error = misfit
        self._answered = error is None
        self._outcomes.inc("OK" if error is None else error.reason.name)
