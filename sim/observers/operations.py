"""I8: every operation interrupted at any step finishes or aborts, and none is applied twice.

While faults last, an operation that has ended never changes any more. Once they are over, none is
left unfinished, and what storage nodes serve is what the map says, whole.
"""

from __future__ import annotations

from keyplane.model.partition import KEYSPACE_END, Partition
from metadata.operations import Operation
from sim.observers.base import Observer
from sim.topology import METADATA
from sim.world import World


class Operations(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._ended: dict[str, Operation] = {}
        # Operations by the request id that began them.
        self._begun: dict[str, str] = {}

    def beat(self) -> None:
        if not self.world.has_booted(METADATA) or not self.world.metadata.core.ready:
            return
        for operation in self.world.metadata.core.catalog.operations.values():
            self._check_begun(operation)
            if not operation.state.ended:
                continue
            before = self._ended.setdefault(operation.operation_id, operation)
            if before.state is not operation.state:
                self.world.violate(
                    "I8",
                    f"operation {operation.operation_id} ended as {before.state.value} and is"
                    f" {operation.state.value} now",
                    operation.operation_id,
                )

    def _check_begun(self, operation: Operation) -> None:
        """A request that is made again is the same operation."""
        if not operation.request_id:
            return
        first = self._begun.setdefault(operation.request_id, operation.operation_id)
        if first != operation.operation_id:
            self.world.violate(
                "I8",
                f"request {operation.request_id} began operation {first}, and"
                f" {operation.operation_id} too",
                first,
                operation.operation_id,
            )

    def calm(self) -> None:
        catalog = self.world.metadata.core.catalog
        for operation in catalog.active.values():
            self.world.violate(
                "I8",
                f"operation {operation.operation_id} ({operation.kind.value}) is still"
                f" {operation.state.value} long after the last fault",
                operation.operation_id,
            )
        served, mapped = served_by_nodes(self.world), in_the_map(self.world)
        if served != mapped:
            wrong = next(
                each for each in [*served, *mapped] if each not in served or each not in mapped
            )
            self.world.violate(
                "I8",
                "what storage nodes serve is not what the map says; the first difference is"
                f" {wrong}",
                f"p{wrong.partition_id}",
            )
        self._check_cover(mapped)

    def _check_cover(self, mapped: list[Partition]) -> None:
        ends: dict[int, int] = {}
        for partition in mapped:
            if partition.start != ends.get(partition.table_id, 0):
                self.world.violate(
                    "I8",
                    f"the map has a gap or an overlap before {partition}",
                    f"p{partition.partition_id}",
                )
            ends[partition.table_id] = partition.end
        for table_id, end in ends.items():
            if end != KEYSPACE_END:
                self.world.violate("I8", f"the map of table {table_id} ends at {end:#x}")


def served_by_nodes(world: World) -> list[Partition]:
    """What storage nodes serve, in order of table and range. All of them must be alive."""
    return sorted(
        (
            shard.partition
            for member in world.storage_members().values()
            for shard in member.node.state.shards.values()
        ),
        key=_place,
    )


def in_the_map(world: World) -> list[Partition]:
    """What the Metadata Store has every table consist of, in the same order."""
    maps = world.metadata.core.catalog.maps
    return [partition for table_id in sorted(maps) for partition in maps[table_id].partitions()]


def _place(partition: Partition) -> tuple[int, int]:
    return partition.table_id, partition.start
