"""The granter over its ports: what it answers, what it refuses, what it forgets."""

from __future__ import annotations

import math
from typing import Any

import pytest

from granter.config import GranterConfig
from granter.core import SERVICE, GranterCore
from keyplane.granter.v1 import granter_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from wire.memory import MemoryNetwork, VirtualClock
from wire.memory_process import MemoryProcess
from wire.metrics import Metrics
from wire.ports import Reply


class Scene:
    def __init__(self, **config: Any) -> None:
        self.clock = VirtualClock()
        self.network = MemoryNetwork(self.clock)
        self.config = GranterConfig(**config)
        self.start()

    def start(self) -> None:
        process = MemoryProcess(self.network, "granter:1")
        self.process = process
        self.core = GranterCore(self.config, process.clock, process.server, Metrics())
        self.core.start()

    def call(self, method: str, request: Any, response_type: Any) -> Any:
        replies: list[Reply] = []
        payload = request if isinstance(request, bytes) else request.SerializeToString()
        self.network.transport("router").call(
            "granter:1", f"/{SERVICE}/{method}", payload, self.clock.now() + 1, replies.append
        )
        self.clock.run_until(lambda: bool(replies), 2.0)
        (reply,) = replies
        if reply.error is not None:
            raise reply.error
        return response_type.FromString(reply.payload)

    def refill(self, *tables: pb.TableUse, router: str = "router-1") -> pb.RefillResponse:
        request = pb.RefillRequest(router_id=router, tables=tables)
        response = self.call("Refill", request, pb.RefillResponse)
        assert isinstance(response, pb.RefillResponse)
        return response

    def budgets(self) -> dict[int, pb.TableBudget]:
        listed = self.call("ListBudgets", pb.ListBudgetsRequest(), pb.ListBudgetsResponse)
        return {table.table_id: table for table in listed.tables}


def use(
    table_id: int = 7,
    version: int = 1,
    rates: tuple[float, float] = (100, 10),
    reads: tuple[float, float] = (0, 0),
    writes: tuple[float, float] = (0, 0),
) -> pb.TableUse:
    """reads, writes: used, and wanted a second."""
    return pb.TableUse(
        table_id=table_id,
        map_version=version,
        read_units_per_second=rates[0],
        write_units_per_second=rates[1],
        reads=pb.Use(used=reads[0], wanted_per_second=reads[1]),
        writes=pb.Use(used=writes[0], wanted_per_second=writes[1]),
    )


def test_grants_come_in_the_order_of_the_request_and_say_how_long_they_stand() -> None:
    scene = Scene()
    scene.clock.run_for(300)
    answer = scene.refill(use(7, reads=(0, 80)), use(8, writes=(0, 20)))
    assert [(g.read_units, g.write_units) for g in answer.grants] == [(160, 0), (0, 40)]
    assert answer.valid_ms == 3000


def test_a_table_was_unused_since_the_granter_started() -> None:
    scene = Scene()
    scene.clock.run_for(30)
    scene.refill(use(7))
    assert scene.budgets()[7].reads.level == pytest.approx(3_000, rel=0.01)
    scene.clock.run_for(1_000)
    scene.refill(use(8))
    assert scene.budgets()[8].reads.level == 30_000
    assert scene.budgets()[8].writes.level == 3_000


def test_one_that_has_just_started_has_something_to_give() -> None:
    scene = Scene()
    answer = scene.refill(use(7, reads=(0, 1)))
    assert answer.grants[0].read_units == pytest.approx(100, rel=0.01)


def test_the_rates_of_the_newest_map_count() -> None:
    scene = Scene()
    scene.clock.run_for(300)
    scene.refill(use(7, version=2, rates=(50, 10)))
    scene.refill(use(7, version=1, rates=(999, 999)), router="behind")
    assert scene.budgets()[7].reads.units_per_second == 50
    scene.refill(use(7, version=3, rates=(70, 10)), router="ahead")
    assert scene.budgets()[7].reads.units_per_second == 70


def test_reads_and_writes_are_apart() -> None:
    scene = Scene()
    scene.refill(use(7, reads=(5_000, 100)))
    answer = scene.refill(use(7, writes=(0, 1)))
    assert answer.grants[0].write_units == pytest.approx(10, rel=0.01)
    assert scene.budgets()[7].reads.level < -4_000


def test_tables_that_are_unused_again_are_forgotten_and_met_as_they_were() -> None:
    scene = Scene(burst_s=10)
    scene.refill(use(7, reads=(500, 0)))
    scene.clock.run_for(60)
    assert not scene.budgets()
    scene.refill(use(7))
    assert scene.budgets()[7].reads.level == 1_000


def test_past_the_bound_the_table_used_least_recently_goes() -> None:
    scene = Scene(tables_max=2)
    for table_id in (1, 2, 1, 3):
        scene.refill(use(table_id))
    assert set(scene.budgets()) == {1, 3}


def test_a_restart_costs_what_was_saved_up_and_nothing_else() -> None:
    scene = Scene()
    scene.clock.run_for(300)
    scene.refill(use(7, reads=(0, 100)))
    scene.process.kill()
    scene.start()
    answer = scene.refill(use(7, reads=(200, 100)))
    assert answer.grants[0].read_units == 0.0
    scene.clock.run_for(2)
    answer = scene.refill(use(7, reads=(0, 100)))
    assert answer.grants[0].read_units == pytest.approx(100, rel=0.05)


def on_demand(
    version: int = 1,
    ceiling: float = 40_000,
    warm: float = 0,
    peak: float = 0,
    writes: tuple[float, float] = (0, 0),
) -> pb.TableUse:
    """Of writes; reads have what a new table has."""
    table = use(7, version, rates=(40_000, ceiling), writes=writes)
    table.read_growth.SetInParent()
    table.write_growth.CopyFrom(pb.Growth(warm=warm, peak=peak))
    return table


def test_a_new_on_demand_table_has_what_dynamodb_gives_one() -> None:
    scene = Scene()
    (grant,) = scene.refill(on_demand(writes=(0, 1))).grants
    assert (grant.reads.units_per_second, grant.writes.units_per_second) == (12_000, 4_000)
    # A second of it, and nothing that is saved up for longer.
    scene.clock.run_for(100)
    assert scene.budgets()[7].writes.level == 4_000


def test_an_on_demand_table_grows_with_its_peaks_over_all_routers() -> None:
    scene = Scene(doubling_s=30)
    for _ in range(10):
        scene.clock.run_for(1)
        scene.refill(on_demand(writes=(2_000, 2_000)), router="a")
        (grant,) = scene.refill(on_demand(writes=(1_000, 1_000)), router="b").grants
        assert grant.writes.units_per_second == 4_000
    scene.clock.run_for(35)
    (grant,) = scene.refill(on_demand()).grants
    assert grant.writes.peak == pytest.approx(3_000, rel=0.01)
    assert grant.writes.units_per_second == 2 * grant.writes.peak
    assert grant.reads.units_per_second == 12_000
    assert scene.budgets()[7].writes.peak == grant.writes.peak


def test_peaks_are_not_forgotten_with_the_rest() -> None:
    scene = Scene(burst_s=10)
    scene.refill(on_demand(peak=5_000))
    scene.clock.run_for(60)
    assert scene.budgets()[7].writes.units_per_second == 10_000


def test_a_new_granter_hears_of_the_peak_from_routers() -> None:
    scene = Scene()
    scene.refill(on_demand(peak=5_000))
    scene.process.kill()
    scene.start()
    (grant,) = scene.refill(on_demand(), router="new").grants
    assert grant.writes.units_per_second == 4_000
    (grant,) = scene.refill(on_demand(peak=5_000), router="old").grants
    assert (grant.writes.units_per_second, grant.writes.peak) == (10_000, 5_000)


def test_settings_of_the_newest_map_count_and_peaks_are_kept() -> None:
    scene = Scene()
    for version, settings, rate in (
        (2, {"peak": 5_000}, 10_000),
        (3, {"ceiling": 300}, 300),
        (2, {"ceiling": 200}, 300),
        (4, {"warm": 30_000}, 30_000),
        (5, {}, 10_000),
    ):
        (grant,) = scene.refill(on_demand(version, **settings)).grants  # type: ignore[arg-type]
        assert grant.writes.units_per_second == rate


def test_a_table_may_change_its_mode_and_back() -> None:
    scene = Scene()
    scene.refill(on_demand(1))
    (grant,) = scene.refill(use(7, version=2, rates=(50, 10))).grants
    assert not grant.HasField("writes")
    assert scene.budgets()[7].writes.units_per_second == 10
    (grant,) = scene.refill(on_demand(3)).grants
    assert grant.writes.units_per_second == 4_000
    assert scene.budgets()[7].writes.level <= 4_000


def half_on_demand() -> pb.TableUse:
    table = use()
    table.read_growth.SetInParent()
    return table


BAD = {
    "half on-demand": (pb.RefillRequest(router_id="r", tables=[half_on_demand()]), "both or none"),
    "negative peak": (
        pb.RefillRequest(router_id="r", tables=[on_demand(peak=-1)]),
        "no throughput of an on-demand table",
    ),
    "endless warmth": (
        pb.RefillRequest(router_id="r", tables=[on_demand(warm=math.inf)]),
        "no throughput of an on-demand table",
    ),
    "peak is no number": (
        pb.RefillRequest(router_id="r", tables=[on_demand(peak=math.nan)]),
        "no throughput of an on-demand table",
    ),
    "no router": (pb.RefillRequest(tables=[use()]), "router_id"),
    "long router": (pb.RefillRequest(router_id="x" * 65, tables=[use()]), "router_id"),
    "no table": (pb.RefillRequest(router_id="r", tables=[use(table_id=0)]), "table_id"),
    "no rate": (pb.RefillRequest(router_id="r", tables=[use(rates=(0, 1))]), "no rate"),
    "negative rate": (pb.RefillRequest(router_id="r", tables=[use(rates=(1, -1))]), "no rate"),
    "endless rate": (pb.RefillRequest(router_id="r", tables=[use(rates=(math.inf, 1))]), "no rate"),
    "no number": (pb.RefillRequest(router_id="r", tables=[use(rates=(math.nan, 1))]), "no rate"),
    "negative use": (pb.RefillRequest(router_id="r", tables=[use(reads=(-1, 0))]), "units"),
    "endless use": (pb.RefillRequest(router_id="r", tables=[use(writes=(math.inf, 0))]), "units"),
    "wants no number": (pb.RefillRequest(router_id="r", tables=[use(reads=(0, math.nan))]), "unit"),
    "wants too much": (pb.RefillRequest(router_id="r", tables=[use(writes=(0, 1e13))]), "units"),
    "too many": (pb.RefillRequest(router_id="r", tables=[use()] * 1001), "at most 1,000"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_and_changes_nothing(name: str) -> None:
    scene = Scene()
    request, says = BAD[name]
    with pytest.raises(KeyplaneError, match=says) as raised:
        scene.call("Refill", request, pb.RefillResponse)
    assert raised.value.reason is Reason.INVALID_ARGUMENT
    assert not scene.budgets()


def test_garbage_is_refused() -> None:
    with pytest.raises(KeyplaneError) as raised:
        Scene().call("Refill", b"\xff\xff", pb.RefillResponse)
    assert raised.value.reason is Reason.MALFORMED_REQUEST


def test_it_drains_at_once() -> None:
    scene = Scene()
    assert scene.core.ready
    done: list[bool] = []
    scene.core.drain(lambda: done.append(True))
    scene.clock.run_for(0.1)
    assert done
    assert not scene.core.ready
