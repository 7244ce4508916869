"""I11: nothing does more than it may: no partition more than its units, no table more than its own,
and no split or merge makes units out of nothing.

Units are counted by what storage nodes and routers have answered, with an arithmetic of its own. A
partition's are those of one life of its node, since what was saved up is not kept over a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from keyplane.data.v1 import data_pb2 as data
from keyplane.storage.v1 import storage_pb2 as storage
from sim.network import SimCall
from sim.observers.base import Observer
from sim.observers.one_owner import EXECUTE
from sim.process import SimProcess
from sim.topology import TableSpec
from sim.world import World
from storage.limits import PartitionLimits
from wire.ports import Reply

_OWNERSHIP = "/keyplane.storage.v1.OwnershipService/"
_CHANGES = (f"{_OWNERSHIP}SplitPartition", f"{_OWNERSHIP}MergePartitions")
_DATA = "/keyplane.data.v1.DataService/"

# Units that may be over at one moment: answers come later than what they cost was taken, several at
# a time, and the request that empties a bucket may cost more than was left.
_PARTITION_SLACK = 12.0
# Besides, a router that has just started lets everything in until it has its first grant.
_TABLE_SLACK = 90.0


# When a change was asked for, how many partitions with limits it replaces, and the read and write
# units that were left in them.
_Before: TypeAlias = tuple[float, int, tuple[float, float]]


class _Level:
    """What is left of units that come in at a rate, up to a depth. It starts full."""

    def __init__(self, rate: float, depth: float, now: float) -> None:
        self.left = depth
        self._rate = rate
        self._depth = depth
        self._at = now

    def take(self, units: float, now: float) -> None:
        elapsed_s, self._at = now - self._at, now
        self.left = min(self._depth, self.left + elapsed_s * self._rate) - units


class Admission(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._partitions: dict[tuple[SimProcess, int], tuple[_Level, _Level]] = {}
        self._tables: dict[str, tuple[_Level, _Level]] = {}
        self._specs = {spec.name: spec for spec in world.topology.tables if spec.units}
        # What was left in partitions that are being split or merged, by the call that does it.
        self._replaced: dict[int, _Before] = {}

    def on_request(self, call: SimCall, server: SimProcess) -> None:
        if call.method in _CHANGES and self.world.has_booted(server.name):
            parents = self._limits(server, _parents(call))
            self._replaced[id(call)] = (self.world.now, len(parents), _left(server, parents))

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        if call.method in _CHANGES:
            before = self._replaced.pop(id(call), None)
            if reply.error is None and before is not None and before[1]:
                self._check_change(call, server, before)
        elif reply.error is None and call.method == EXECUTE:
            self._count_partition(call, server, reply)
        elif reply.error is None and self._specs and call.method.startswith(_DATA):
            self._count_table(call)

    def _count_partition(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        request = storage.ExecuteRequest.FromString(call.payload)
        partition_id = request.partition_id
        shard = self.world.storage(server.name).node.state.shards.get(partition_id)
        if shard is None or shard.limits is None:
            return
        now, topology = self.world.now, self.world.topology
        levels = self._partitions.setdefault(
            (server, partition_id),
            (
                _Level(topology.read_units, topology.read_units, now),
                _Level(topology.write_units, topology.write_units, now),
            ),
        )
        units = units_of(request, storage.ExecuteResponse.FromString(reply.payload))
        what = f"units of partition {partition_id} at {server.name}"
        self._charge(levels, units, _PARTITION_SLACK, what, f"p{partition_id}", server.name)

    def _count_table(self, call: SimCall) -> None:
        name, units = _table_units(call)
        spec = self._specs.get(name)
        if spec is None:
            return
        levels = self._tables.setdefault(name, (self._budget(spec), self._budget(spec)))
        self._charge(levels, units, _TABLE_SLACK, f"units of table {name!r}")

    def _charge(
        self,
        levels: tuple[_Level, _Level],
        units: tuple[float, float],
        slack: float,
        what: str,
        *about: str,
    ) -> None:
        """Takes read and write units. what: whose they are."""
        for kind, level, taken in zip(("read", "write"), levels, units, strict=True):
            level.take(taken, self.world.now)
            if level.left < -slack:
                message = f"{-level.left:.0f} more {kind} {what} were used than there are"
                self.world.violate("I11", message, *about)

    def _budget(self, spec: TableSpec) -> _Level:
        depth = spec.units * self.world.topology.granter.burst_s
        return _Level(float(spec.units), depth, self.world.now)

    def _check_change(self, call: SimCall, server: SimProcess, before: _Before) -> None:
        began_at, parents, left = before
        heirs = self._limits(server, _heirs(call))
        topology = self.world.topology
        # Both may have filled up on the way.
        came_in_s = (self.world.now - began_at) * (parents + len(heirs))
        for what, rate, was, now_is in zip(
            ("read", "write"),
            (topology.read_units, topology.write_units),
            left,
            _left(server, heirs),
            strict=True,
        ):
            if now_is > was + came_in_s * rate + 0.01:
                ids = _heirs(call)
                self.world.violate(
                    "I11",
                    f"{ids} on {server.name} begin with {now_is:.1f} {what} units, and what they"
                    f" replace had {was:.1f}",
                    server.name,
                    *(f"p{each}" for each in ids),
                )

    def _limits(self, server: SimProcess, partition_ids: Sequence[int]) -> list[PartitionLimits]:
        """Of those of the partitions that are served and have any."""
        shards = self.world.storage(server.name).node.state.shards
        found = (shards[each].limits for each in partition_ids if each in shards)
        return [limits for limits in found if limits is not None]


def _left(server: SimProcess, limits: Sequence[PartitionLimits]) -> tuple[float, float]:
    """Read and write units in all of them."""
    now = server.clock.now()
    return (
        sum(each.reads.level_at(now) for each in limits),
        sum(each.writes.level_at(now) for each in limits),
    )


def units_of(
    request: storage.ExecuteRequest, response: storage.ExecuteResponse
) -> tuple[float, float]:
    """Read and write units of one request that was carried out, at least."""
    each = 1.0 if request.consistent else 0.5
    match request.WhichOneof("op"):
        case "get":
            return each * _steps(response.get.item_bytes, 4096), 0.0
        case "batch_get":
            results = [one for one in response.batch_get.results if not one.deferred]
            return each * sum(_steps(one.item_bytes, 4096) for one in results), 0.0
        case "write":
            return 0.0, float(_steps(request.write.item_bytes, 1024))
        case "batch_write":
            writes = request.batch_write.writes
            return 0.0, float(sum(_steps(one.item_bytes, 1024) for one in writes))
        case _:
            return each * _steps(response.page.item_bytes, 4096), 0.0


def _steps(size: int, step: int) -> int:
    return max(1, -(-size // step))


def _table_units(call: SimCall) -> tuple[str, tuple[float, float]]:
    """Of requests for one item: the table, and the units at least."""
    match call.method.removeprefix(_DATA):
        case "GetItem":
            get = data.GetItemRequest.FromString(call.payload)
            return get.table, (1.0 if get.consistent_read else 0.5, 0.0)
        case "PutItem":
            return data.PutItemRequest.FromString(call.payload).table, (0.0, 1.0)
        case "DeleteItem":
            return data.DeleteItemRequest.FromString(call.payload).table, (0.0, 1.0)
    return "", (0.0, 0.0)


def _parents(call: SimCall) -> list[int]:
    if call.method.endswith("SplitPartition"):
        return [storage.SplitPartitionRequest.FromString(call.payload).partition_id]
    merge = storage.MergePartitionsRequest.FromString(call.payload)
    return [merge.left_id, merge.right_id]


def _heirs(call: SimCall) -> list[int]:
    if call.method.endswith("SplitPartition"):
        split = storage.SplitPartitionRequest.FromString(call.payload)
        return [split.left_id, split.right_id]
    return [storage.MergePartitionsRequest.FromString(call.payload).merged_id]
