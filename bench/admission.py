"""Admission on a live cluster, measured against its arithmetic.

Each scenario offers a steady load of small items to one router (a write takes one unit, a read half
of one) and compares what was let in with what the rules give. Tables stand alone, so that one
scenario does not pay for another. What admission itself costs a request is measured apart, in this
process, on the same compiled code.
"""

from __future__ import annotations

import asyncio
import enum
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench._cluster import cluster_of
from bench._load import Generator, Target
from bench._orders import Paced
from bench._plots import plot_slices
from bench._samples import Sample, percentile
from cache.callers import Callers, operator
from granter.config import GranterConfig
from keyplane import AdminClient
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.capacity import read_units
from keyplane.model.credentials import Credentials
from keyplane.model.errors import Reason
from keyplane.model.limits import PARTITION_READ_UNITS, PARTITION_WRITE_UNITS, WARM_WRITE_UNITS
from keyplane.model.signature import SECRET_BYTES, Signer
from router.admission import TableLimits
from storage.limits import PartitionLimits
from wire.auth import Auth
from wire.loop import LoopClock
from wire.ports import Request

ITEMS = 500
# Units of a read here, which need not be consistent.
READ_UNITS = read_units(0, consistent=False)

# Of the provisioned table, and what is offered it: as the question is usually put.
TABLE_UNITS = 100
OFFERED = 150.0

# Twice the reads and one and a half times the writes that a partition does.
_HOT_READS = 2 * PARTITION_READ_UNITS / READ_UNITS
_HOT_WRITES = 1.5 * PARTITION_WRITE_UNITS
# Of the on-demand tables: writes a second that are the peak of one, twice of which is more than a
# new one may do, and what a new one is offered. Partitions enough that none of them is the limit.
PEAK = 3_000.0
NEW_OFFERED = 2.5 * WARM_WRITE_UNITS
PARTITIONS = 24

THROTTLED = Reason.THROTTLED.name

# Of the tenants: requests a second that one makes and that the other may make, and how many times
# that it sends.
SHARE = 500.0
NOISE = 20.0
_NOISE_ROUNDS = 3

# Seconds in which routers hear of a new key, table or limit.
_HEARD_WITHIN_S = 2.0

# Requests over which the cost of admission is measured, and how often.
_COST_REQUESTS = 200_000
_COST_ROUNDS = 5
# The same of signatures, which take longer.
_SIGNATURES = 20_000

Say = Callable[[str], None]


def _writes(per_second: float) -> Paced:
    """For a second."""
    return Paced(per_second, 1.0, 1.0, 0.0)


_OFFERED_WRITES = _writes(OFFERED)


@dataclass(frozen=True, slots=True)
class Scenario:
    """measured, computed: in `unit`."""

    name: str
    unit: str
    measured: float
    computed: float

    @property
    def error(self) -> float:
        """As a fraction of what was computed."""
        return abs(self.measured - self.computed) / self.computed


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of a scenario's time. at_s: when it began; answered, throttled: a second."""

    at_s: float
    seconds: float
    answered: float
    throttled: float


class Only(enum.StrEnum):
    """Scenarios that are run together."""

    INDEPENDENCE = "independence"
    OVERLOAD = "overload"
    TENANTS = "tenants"
    HEAT = "heat"
    BURST = "burst"
    DOUBLING = "doubling"


@dataclass(slots=True)
class Outcome:
    """What the scenarios found, and their course by scenario."""

    scenarios: list[Scenario] = field(default_factory=list)
    slices: dict[str, list[Slice]] = field(default_factory=dict)
    # Of the load at 10 times what a partition writes: goodput against that at once, and how many
    # times it was in fact, since a generator may be too busy to send all.
    # The p99 of a tenant beside one that sends many times its share, against that beside one that
    # sends its share, and how many times that was in fact.
    noisy_p99_ratio: float = 0.0
    noise_times: float = 0.0
    goodput_ratio: float = 0.0
    overload_times: float = 0.0


def run(
    burst_s: Annotated[
        float, typer.Option(min=2, help="Seconds of unused capacity that a table saves up.")
    ] = 30.0,
    seconds: Annotated[float, typer.Option(min=1, help="Of each steady measurement.")] = 20.0,
    outage_s: Annotated[float, typer.Option(min=1, help="For which the granter is dead.")] = 60.0,
    # The planner trusts the averages of a new partition after ten seconds, and two splits in a row
    # may be needed.
    heat_s: Annotated[
        float, typer.Option(min=1, help="Seconds that a hot partition has to be split in.")
    ] = 40.0,
    doubling_s: Annotated[
        float,
        typer.Option(min=5, help="Seconds in which an on-demand table may not more than double."),
    ] = 12.0,
    only: Annotated[
        list[Only] | None, typer.Option(help="Scenarios to run.", show_default="all")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Directory to draw pictures into.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout.")
    ] = False,
) -> None:
    """What is let in and what is throttled, against what the rules say.

    Takes three times `--burst-s`, `--outage-s`, one and a half times `--heat-s`, three times
    `--doubling-s`, and some sixteen times `--seconds`.
    """
    chosen = only or list(Only)
    outcome = Outcome()
    cost_ns = _cost_ns()
    signature_ns = _signature_ns()
    config = ClusterConfig(memds=1, routers=2, storage=1, ephemeral=True)
    if Only.TENANTS in chosen:
        with cluster_of(replace(config, auth=Auth.REQUIRED)) as cluster:
            _noisy_tenant(cluster, seconds, outcome)
    with cluster_of(config) as cluster:
        bench = _Bench(cluster, burst_s, seconds, outage_s, heat_s, doubling_s, outcome, _say)
        bench.start_granter()
        bench.set_planner(metadata.PLANNER_MODE_OFF)
        scenarios = {
            Only.INDEPENDENCE: bench.independence,
            Only.OVERLOAD: bench.overload,
            Only.HEAT: bench.heat,
            Only.BURST: bench.burst_and_outage,
            Only.DOUBLING: bench.doubling,
        }
        for each, scenario in scenarios.items():
            if each in chosen:
                scenario()
    _show(outcome, cost_ns, signature_ns)
    if plots is not None:
        for name, slices in outcome.slices.items():
            points = [(each.at_s, each.answered, each.throttled) for each in slices]
            how = "more and more, with a rest" if name == "doubling" else "at a steady rate"
            _say(f"drew {plot_slices(name, how, points, plots)}")
    if as_json:
        sys.stdout.write(json.dumps(_facts(outcome, cost_ns, signature_ns)) + "\n")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


class _Bench:
    """The scenarios, one after the other on one cluster."""

    def __init__(
        self,
        cluster: Cluster,
        burst_s: float,
        seconds: float,
        outage_s: float,
        heat_s: float,
        doubling_s: float,
        outcome: Outcome,
        say: Say,
    ) -> None:
        self._cluster = cluster
        self._burst_s = burst_s
        self._seconds = seconds
        self._outage_s = outage_s
        self._heat_s = heat_s
        self._doubling_s = doubling_s
        self._outcome = outcome
        self._say = say
        self._granter_at = 0.0

    def start_granter(self) -> None:
        """A new one, in which tables save up, and may double, in the time this run is to take."""
        environment = {
            "KEYPLANE_BURST_S": str(self._burst_s),
            "KEYPLANE_DOUBLING_S": str(self._doubling_s),
        }
        self._cluster.restart("granter", environment)
        self._granter_at = time.monotonic()

    def set_planner(self, mode: metadata.PlannerMode.ValueType) -> None:
        """Off, what is hot stays so."""
        with self._admin() as admin:
            admin.call(metadata.SetPlannerRequest(mode=mode), metadata.SetPlannerResponse)

    def independence(self) -> None:
        """Twice what a partition reads, and half of what it writes; then the reverse."""
        offered = {
            "reads heavy": (2 * PARTITION_READ_UNITS / READ_UNITS, PARTITION_WRITE_UNITS / 2),
            "writes heavy": (PARTITION_READ_UNITS / 2 / READ_UNITS, 2 * PARTITION_WRITE_UNITS),
        }
        with self._loaded("independence", catalog.CAPACITY_MODE_ON_DEMAND) as generator:
            for name, (reads, writes) in offered.items():
                self._say(f"{name}: {reads:,.0f} reads/s and {writes:,.0f} writes/s on a partition")
                order = self._paced(reads + writes, writes / (reads + writes))
                sample = self._steady(generator, order)
                for kind, asked, most in (
                    ("reads", reads, PARTITION_READ_UNITS / READ_UNITS),
                    ("writes", writes, PARTITION_WRITE_UNITS),
                ):
                    self._found_rate(name, kind, sample, min(asked, most))

    def overload(self) -> None:
        """Ten times what a partition writes; its goodput is to be that of once."""
        with self._loaded("overload", catalog.CAPACITY_MODE_ON_DEMAND) as generator:
            samples = []
            for times in (1, 10):
                self._say(f"overload: {times} times what a partition writes")
                order = self._paced(times * PARTITION_WRITE_UNITS, 1.0)
                samples.append(self._steady(generator, order))
        once, often = samples
        arrived = often.per_second + often.failures.get(THROTTLED, 0) / often.seconds
        self._outcome.goodput_ratio = often.per_second / once.per_second
        self._outcome.overload_times = arrived / PARTITION_WRITE_UNITS
        self._found("overload: goodput", "requests/s", often.per_second, PARTITION_WRITE_UNITS)

    def heat(self) -> None:
        self._hot_partition()
        self._hot_item()

    def _hot_partition(self) -> None:
        """More reads and more writes than one partition does, until the planner has split it."""
        computed = (
            ("reads", _HOT_READS, PARTITION_READ_UNITS / READ_UNITS),
            ("writes", _HOT_WRITES, PARTITION_WRITE_UNITS),
        )
        order = self._paced(_HOT_READS + _HOT_WRITES, _HOT_WRITES / (_HOT_READS + _HOT_WRITES))
        with self._loaded("heat", catalog.CAPACITY_MODE_ON_DEMAND) as generator:
            self._say(f"heat: {_HOT_READS:,.0f} reads/s and {_HOT_WRITES:,.0f} writes/s")
            before = self._steady(generator, order)
            for kind, asked, most in computed:
                self._found_rate("before the split", kind, before, min(asked, most))
            self.set_planner(metadata.PLANNER_MODE_ON)
            self._course("heat", generator, self._heat_s, replace(order, seconds=1.0))
            after = self._steady(generator, order)
            self.set_planner(metadata.PLANNER_MODE_OFF)
            self._say(f"heat: {self._partitions('heat')} partitions now")
            for kind, asked, _ in computed:
                self._found_rate("after the split", kind, after, asked)

    def _hot_item(self) -> None:
        """The same on one item, which the planner must leave where it is."""
        order = self._paced(_HOT_READS + _HOT_WRITES, _HOT_WRITES / (_HOT_READS + _HOT_WRITES))
        with self._loaded("hot-item", catalog.CAPACITY_MODE_ON_DEMAND, items=1) as generator:
            self._say("hot item: the same load on one item")
            self.set_planner(metadata.PLANNER_MODE_ON)
            generator.run(replace(order, seconds=self._heat_s / 2))
            sample = self._steady(generator, order)
            self._tell_plan("hot-item")
            self.set_planner(metadata.PLANNER_MODE_OFF)
            self._found_rate("one hot item", "reads", sample, PARTITION_READ_UNITS / READ_UNITS)
            self._found_rate("one hot item", "writes", sample, PARTITION_WRITE_UNITS)
            count = self._partitions("hot-item")
            self._found("one hot item: partitions", "", count, 1)

    def burst_and_outage(self) -> None:
        """A provisioned table after a rest; then without a granter; then with a new one."""
        with self._loaded("burst", catalog.CAPACITY_MODE_PROVISIONED) as generator:
            rested_s = time.monotonic() - self._granter_at
            self._rest(max(0.0, self._burst_s + 1 - rested_s))
            self._burst(generator)
            self._outage(generator)

    def _burst(self, generator: Generator) -> None:
        excess = OFFERED - TABLE_UNITS
        lasts_s = self._burst_s * TABLE_UNITS / excess
        self._say(f"burst: {OFFERED:.0f} writes/s on {TABLE_UNITS}, for {lasts_s:.0f} s and more")
        slices = self._course("burst", generator, lasts_s * 1.2 + self._seconds)
        first = next((at for at, each in enumerate(slices) if each.throttled > 0.2 * excess), None)
        if first is None:
            self._found("burst: lasts", "s", slices[-1].at_s, lasts_s)
            return
        ended = slices[first]
        # The part of its slice in which nothing was throttled yet.
        measured_s = ended.at_s + ended.seconds * max(0.0, 1 - ended.throttled / excess)
        # By what was offered in fact: between two slices nothing is.
        sent = sum(each.seconds * (each.answered + each.throttled) for each in slices[:first])
        offered = sent / ended.at_s if first else OFFERED
        computed_s = self._burst_s * TABLE_UNITS / (offered - TABLE_UNITS)
        self._found("burst: lasts", "s", measured_s, computed_s)
        after = slices[first + 2 :]
        self._found("burst: rate after it", "requests/s", _rate(after), TABLE_UNITS)

    def _outage(self, generator: Generator) -> None:
        self._say(f"granter dead for {self._outage_s:.0f} s")
        self._cluster.kill("granter")
        # What was granted last still stands.
        generator.run(Paced(OFFERED, 1.0, GranterConfig().valid_s + 1, 0.0))
        slices = self._course("granter-dead", generator, self._outage_s)
        self._found("granter dead: let in", "of those sent", _share(slices), 1.0)
        self.start_granter()
        self._say("granter back")
        generator.run(Paced(2 * OFFERED, 1.0, 4.0, 0.0))
        slices = self._course("granter-back", generator, self._seconds)
        self._found("granter back: rate", "requests/s", _rate(slices), TABLE_UNITS)

    def doubling(self) -> None:
        """An on-demand table takes twice its peak and no more; a new one what it starts with."""
        on_demand = catalog.CAPACITY_MODE_ON_DEMAND
        slices = self._outcome.slices["doubling"] = []
        with (
            self._loaded("doubling", on_demand, PARTITIONS) as generator,
            self._loaded("doubling-new", on_demand, PARTITIONS) as new,
        ):
            self._say(f"doubling: up to {PEAK:,.0f} writes/s, which are to be the peak")
            began = time.monotonic()
            for share, seconds in ((1 / 3, 2.0), (2 / 3, 2.0), (1.0, 5.0)):
                slices += self._slices(generator, _writes(share * PEAK), seconds, began)
            # Past the window of the last of it, and what routers have yet to give account of.
            until = time.monotonic() + self._doubling_s + 5.0
            slices += [Slice(at_s - began, 0.0, 0.0, 0.0) for at_s in (time.monotonic(), until)]
            self._say(f"doubling: {NEW_OFFERED:,.0f} writes/s on a new table meanwhile")
            self._slices(new, _writes(NEW_OFFERED), 2.0, began)
            fresh = self._slices(new, _writes(NEW_OFFERED), self._doubling_s / 3, began)
            self._found("doubling: new table", "requests/s", _rate(fresh), WARM_WRITE_UNITS)
            time.sleep(max(0.0, until - time.monotonic()))
            # What follows is over before it is a previous peak itself.
            self._say(f"doubling: {2 * PEAK:,.0f} writes/s, then {3 * PEAK:,.0f}")
            twice = self._slices(generator, _writes(2 * PEAK), self._doubling_s / 3, began)
            self._found("doubling: twice the peak, let in", "of those sent", _share(twice), 1.0)
            over = self._slices(generator, _writes(3 * PEAK), 2.0, began)
            thrice = self._slices(generator, _writes(3 * PEAK), self._doubling_s / 3, began)
            self._found("doubling: three times the peak", "requests/s", _rate(thrice), 2 * PEAK)
            slices += [*twice, *over, *thrice]

    # --- what they are made of ------------------------------------------------------------------

    @contextmanager
    def _loaded(
        self,
        table: str,
        mode: catalog.CapacityMode.ValueType,
        partitions: int = 1,
        items: int = ITEMS,
    ) -> Iterator[Generator]:
        """A load generator for a new table that holds its items and has the mode from then on."""
        key = catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING)
        with self._admin() as admin:
            request = metadata.CreateTableRequest(table=table, partition_key=key)
            request.partitions = partitions
            admin.run(request)
            router = self._cluster.addresses(Kind.ROUTER)[0]
            with Generator(Target("keyplane", router, table, items, precise=True)) as generator:
                generator.fill(lambda written: None)
                update = metadata.UpdateTableRequest(table=table, capacity_mode=mode)
                if mode == catalog.CAPACITY_MODE_PROVISIONED:
                    update.provisioned.read_capacity_units = TABLE_UNITS
                    update.provisioned.write_capacity_units = TABLE_UNITS
                admin.run(update)
                yield generator

    def _paced(self, per_second: float, write_share: float) -> Paced:
        return Paced(per_second, write_share, self._seconds, 0.0)

    def _steady(self, generator: Generator, order: Paced) -> Sample:
        """Once what was saved up is gone."""
        generator.run(Paced(order.per_second, order.write_share, 3.0, 0.0))
        return self._checked(generator.run(order))

    def _course(
        self, name: str, generator: Generator, seconds: float, order: Paced = _OFFERED_WRITES
    ) -> list[Slice]:
        """So much second by second."""
        slices = self._slices(generator, order, seconds, time.monotonic())
        self._outcome.slices[name] = slices
        return slices

    def _slices(
        self, generator: Generator, order: Paced, seconds: float, began: float
    ) -> list[Slice]:
        """began: when the scenario did."""
        slices: list[Slice] = []
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            sample = self._checked(generator.run(order))
            throttled = sample.failures.get(THROTTLED, 0) / sample.seconds
            slices.append(Slice(now - began, sample.seconds, sample.per_second, throttled))
        return slices

    def _checked(self, sample: Sample) -> Sample:
        others = {name: count for name, count in sample.failures.items() if name != THROTTLED}
        if others:
            self._say(f"not throttled, but failed: {others}")
        return sample

    def _rest(self, seconds: float) -> None:
        if seconds:
            self._say(f"burst: the table rests for {seconds:.0f} s")
            time.sleep(seconds)

    def _partitions(self, table: str) -> int:
        request = metadata.DescribeTableRequest(table=table)
        with self._admin() as admin:
            return admin.call(request, metadata.DescribeTableResponse).partition_count

    def _tell_plan(self, table: str) -> None:
        with self._admin() as admin:
            plan = admin.call(metadata.GetPlanRequest(), metadata.GetPlanResponse)
        for change in plan.changes:
            if change.table == table:
                self._say(f"{table}: {metadata.PlannedState.Name(change.state)}: {change.detail}")

    def _admin(self) -> AdminClient:
        return AdminClient(self._cluster.addresses(Kind.METADATA)[0])

    def _found_rate(self, name: str, kind: str, sample: Sample, computed: float) -> None:
        """Of reads or of writes."""
        answered = (sample.reads if kind == "reads" else sample.writes).count
        self._found(f"{name}: {kind}", "requests/s", answered / sample.seconds, computed)

    def _found(self, name: str, unit: str, measured: float, computed: float) -> None:
        self._outcome.scenarios.append(Scenario(name, unit, measured, computed))


def _noisy_tenant(cluster: Cluster, seconds: float, outcome: Outcome) -> None:
    """One tenant keeps to its share; another sends many times what it may. Both on one router."""
    router = cluster.addresses(Kind.ROUTER)[0]
    with ExitStack() as stack:
        generators = {}
        for tenant in ("quiet", "noisy"):
            credentials = _make_tenant(cluster, tenant)
            target = Target(
                "keyplane", router, "items", ITEMS, precise=True, credentials=credentials
            )
            generators[tenant] = stack.enter_context(Generator(target))
            generators[tenant].fill(lambda written: None)
        _limit(cluster, "noisy", round(SHARE))
        quiet = Paced(SHARE, 0.5, seconds / 5, 1.0)
        found: dict[float, list[Sample]] = {1.0: [], NOISE: []}
        pool = stack.enter_context(ThreadPoolExecutor(1))
        # By turns, so that whatever else the machine does meets both.
        for _ in range(_NOISE_ROUNDS):
            for times, samples in found.items():
                noise = Paced(times * SHARE, 0.5, seconds / 5 + 1.0, 0.5)
                noisy = pool.submit(generators["noisy"].run, noise)
                samples.append(generators["quiet"].run(quiet))
                sent = noisy.result()
                _say(
                    f"noisy tenant: p99 {samples[-1].every.p99_us / 1000:.2f} ms at {SHARE:.0f}/s"
                    f" beside {times:.0f} times as many of another, which may make as many"
                )
    fair_us, noisy_us = (median(each.every.p99_us for each in of) for of in found.values())
    outcome.noisy_p99_ratio = noisy_us / fair_us
    arrived = sent.per_second + sent.failures.get(THROTTLED, 0) / sent.seconds
    outcome.noise_times = arrived / SHARE
    failed = sum(sum(sample.failures.values()) for sample in found[NOISE])
    answered = sum(sample.every.count for sample in found[NOISE])
    share = answered / (answered + failed)
    outcome.scenarios.append(Scenario("noisy tenant: other's success", "of those sent", share, 1.0))
    outcome.scenarios.append(
        Scenario("noisy tenant: let in of it", "requests/s", sent.per_second, SHARE)
    )


def _make_tenant(cluster: Cluster, tenant_id: str) -> Credentials:
    """With a table `items`, of which its routers know."""
    address = cluster.addresses(Kind.METADATA)[0]
    with AdminClient(address, credentials=cluster.operator()) as operator:
        operator.call(
            metadata.CreateTenantRequest(tenant_id=tenant_id), metadata.CreateTenantResponse
        )
        user = metadata.CreateUserRequest(tenant_id=tenant_id, name="load", role=catalog.ROLE_ADMIN)
        key = operator.call(user, metadata.CreateUserResponse).key
    credentials = Credentials(key.key_id, key.secret)
    attribute = catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING)
    with AdminClient(address, credentials=credentials) as admin:
        admin.run(metadata.CreateTableRequest(table="items", partition_key=attribute))
    time.sleep(_HEARD_WITHIN_S)
    return credentials


def _limit(cluster: Cluster, tenant_id: str, requests_per_second: int) -> None:
    limits = catalog.TenantLimits(requests_per_second=requests_per_second)
    address = cluster.addresses(Kind.METADATA)[0]
    with AdminClient(address, credentials=cluster.operator()) as operator:
        operator.call(
            metadata.UpdateTenantRequest(tenant_id=tenant_id, limits=limits),
            metadata.UpdateTenantResponse,
        )
    time.sleep(_HEARD_WITHIN_S)


def _rate(slices: Sequence[Slice]) -> float:
    """Answers a second, over all the time in which a bucket filled: between two slices, too."""
    if not slices:
        return 0.0
    answered = sum(each.answered * each.seconds for each in slices)
    return answered / (slices[-1].at_s + slices[-1].seconds - slices[0].at_s)


def _share(slices: Sequence[Slice]) -> float:
    """Of the requests, those that were answered."""
    answered = sum(each.answered * each.seconds for each in slices)
    throttled = sum(each.throttled * each.seconds for each in slices)
    return answered / (answered + throttled) if answered + throttled else 0.0


def _cost_ns() -> Mapping[str, float]:
    """Nanoseconds for the admission of one write, in each process."""
    table = catalog.Table(table_id=1, name="cost", capacity_mode=catalog.CAPACITY_MODE_PROVISIONED)
    limits = TableLimits(table, lambda _: None)
    limits.writes.grant(1e12, 1e12)
    partition = PartitionLimits(1, "cost", 1e12, 1e12, 0.0)
    return {
        "router": _median_ns(lambda: _admit_at_router(limits)),
        "storage": _median_ns(lambda: _admit_at_storage(partition)),
    }


def _signature_ns() -> Mapping[str, float]:
    """Nanoseconds for the signature of one read, at each end: the least of several rounds, as what
    else the machine does makes them longer only.
    """
    method, payload = "/keyplane.data.v1.DataService/GetItem", bytes(60)
    key_id, secret = "KPAK0000000000000000", bytes(SECRET_BYTES)
    clock = LoopClock(asyncio.new_event_loop())
    signer = Signer(key_id, secret, clock.wall)
    callers = Callers(clock, operator(secret, key_id))
    signing, verifying = [], []
    for _ in range(_COST_ROUNDS):
        began = time.perf_counter()
        values = [signer.value(method, payload) for _ in range(_SIGNATURES)]
        signing.append(time.perf_counter() - began)
        requests = [Request(method, payload, 0.0, authorization=value.encode()) for value in values]
        began = time.perf_counter()
        for request in requests:
            callers.authenticate(request)
        verifying.append(time.perf_counter() - began)
    clock.loop.close()
    return {
        "signing": 1e9 * min(signing) / _SIGNATURES,
        "verifying": 1e9 * min(verifying) / _SIGNATURES,
    }


def _admit_at_router(limits: TableLimits) -> None:
    for at in range(_COST_REQUESTS):
        limits.admit(True, at * 1e-6, 1.0)
        limits.take(True, 0.0)


def _admit_at_storage(partition: PartitionLimits) -> None:
    for at in range(_COST_REQUESTS):
        partition.admit_write(at * 1e-6)
        partition.write(200)


def _median_ns(work: Callable[[], None]) -> float:
    """Of one request, less the empty loop."""
    found = []
    for _ in range(_COST_ROUNDS):
        began = time.perf_counter()
        work()
        middle = time.perf_counter()
        for at in range(_COST_REQUESTS):
            at * 1e-6
        ended = time.perf_counter()
        found.append(1e9 * (2 * middle - began - ended) / _COST_REQUESTS)
    return percentile(sorted(found), 50)


def _show(
    outcome: Outcome, cost_ns: Mapping[str, float], signature_ns: Mapping[str, float]
) -> None:
    table = Table(title="Admission", title_justify="left")
    for column in ("scenario", "measured", "computed", "", "error"):
        table.add_column(column, justify="left" if column in ("scenario", "") else "right")
    for each in outcome.scenarios:
        figures = (f"{each.measured:,.2f}", f"{each.computed:,.2f}", each.unit)
        table.add_row(each.name, *figures, f"{each.error:.1%}")
    console = Console(stderr=True)
    console.print(table)
    costs = ", ".join(f"{ns:,.0f} ns in the {name}" for name, ns in cost_ns.items())
    console.print(f"admission of one request: {costs}")
    costs = ", ".join(f"{name} {ns:,.0f} ns" for name, ns in signature_ns.items())
    console.print(f"the signature of one request: {costs}")
    if outcome.noise_times:
        console.print(
            f"p99 beside a tenant that sends {outcome.noise_times:.1f} times its share:"
            f" {outcome.noisy_p99_ratio:.2f} times that beside one that keeps to it"
        )
    if outcome.overload_times:
        console.print(
            f"goodput at {outcome.overload_times:.1f} times the load:"
            f" {outcome.goodput_ratio:.3f} of that at once"
        )


def _facts(
    outcome: Outcome, cost_ns: Mapping[str, float], signature_ns: Mapping[str, float]
) -> dict[str, Any]:
    """Null is what was not run."""
    return {
        "scenarios": [
            {
                "name": each.name,
                "unit": each.unit,
                "measured": each.measured,
                "computed": each.computed,
                "error": each.error,
            }
            for each in outcome.scenarios
        ],
        "noisy_tenant_p99_ratio": outcome.noisy_p99_ratio or None,
        "noisy_tenant_times": outcome.noise_times or None,
        "overload_goodput_ratio": outcome.goodput_ratio or None,
        "overload_times": outcome.overload_times or None,
        "admission_ns_per_request": sum(cost_ns.values()),
        "admission_ns_by_process": dict(cost_ns),
        "signature_ns": dict(signature_ns),
    }


if __name__ == "__main__":
    typer.run(run)
