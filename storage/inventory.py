"""What this node says about itself: to routers that ask, and in its report to MemDS."""

from __future__ import annotations

from collections.abc import Iterable

from cache.publisher import ServedTable
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as pb
from storage.ownership import State
from storage.state import NodeState


class Inventory:
    """A `cache.publisher.ReportSource`, and the answer to DescribePartitions."""

    def __init__(self, state: NodeState) -> None:
        self._state = state

    def generation(self) -> int:
        return self._state.generation

    def node(self) -> catalog.Node:
        return self._state.node.to_proto()

    def tables(self) -> Iterable[ServedTable]:
        served: dict[int, list[Partition]] = {}
        for shard in self._state.shards.values():
            served.setdefault(shard.partition.table_id, []).append(shard.partition)
        for table_id, partitions in sorted(served.items()):
            partitions.sort(key=lambda partition: partition.start)
            yield ServedTable(self._state.tables[table_id], partitions)

    def describe(self, request: pb.DescribePartitionsRequest) -> pb.DescribePartitionsResponse:
        """A partition that is being handed over is still listed as served here: until its target is
        active, the way to it leads past this node.
        """
        state = self._state
        response = pb.DescribePartitionsResponse(node=self.node())
        wanted = set()
        for table in state.tables.values():
            if request.table and table.name != request.table:
                continue
            if table.state == catalog.TABLE_STATE_DELETED:
                response.deleted_tables.append(table.name)
            else:
                wanted.add(table.table_id)
                response.tables.append(table)
        forwarded: dict[tuple[int, int], Partition] = {}
        nodes: dict[str, catalog.Node] = {}
        for holding in state.ownership:
            partition = holding.partition
            if partition.table_id not in wanted:
                continue
            if partition.partition_id in state.shards:
                response.partitions.append(partition.to_proto())
            elif holding.state is State.RETIRED:
                hint = state.ownership.hint(holding)
                nodes.update((node.node_id, node) for node in hint.nodes)
                for message in hint.partitions:
                    forwarded[message.partition_id, message.epoch] = Partition.from_proto(message)
        elsewhere = [each for each in forwarded.values() if each.leader != state.node.node_id]
        response.forwarded.extend(each.to_proto() for each in elsewhere)
        for node_id in sorted({each.leader for each in elsewhere} & nodes.keys()):
            response.forwarded_nodes.append(nodes[node_id])
        return response
