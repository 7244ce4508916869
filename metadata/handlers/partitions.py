"""ListPartitions, SplitPartition, MergePartitions, MovePartition."""

from __future__ import annotations

from itertools import islice

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.partition import KEYSPACE_END
from keyplane.model.tenants import Role
from metadata.handlers.checks import check_node_id, check_request_id, invalid, page_size
from metadata.handlers.dispatch import Answer, Handling, Parts
from metadata.handlers.page_tokens import make_token, read_token
from metadata.kinds import merge, move, split

_HASH_BYTES = 8


def _list(parts: Parts, request: pb.ListPartitionsRequest, answer: Answer) -> None:
    """In key-hash order. The token is the first hash of the next page, so a map that changes
    between two pages is still seen without a gap."""
    size = page_size(request.page_size)
    table = parts.world.catalog.table(request.table)
    map_ = parts.world.catalog.maps.get(table.table_id)
    listing = f"partitions of table {table.table_id}"
    position = read_token(listing, request.page_token)
    if position is not None and len(position) != _HASH_BYTES:
        raise invalid("this page token holds no position")
    first = int.from_bytes(position or b"", "big")
    response = pb.ListPartitionsResponse(map_version=table.map_version)
    if map_ is None:
        answer(response)
        return
    page = list(islice(map_.overlapping(first, KEYSPACE_END), size))
    response.partitions.extend(partition.to_proto() for partition in page)
    loads = (parts.registry.load(each.leader, each.partition_id) for each in page)
    response.loads.extend(load for load in loads if load is not None)
    if page[-1].end < KEYSPACE_END:
        response.next_page_token = make_token(listing, page[-1].end.to_bytes(_HASH_BYTES, "big"))
    answer(response)


def _split(parts: Parts, request: pb.SplitPartitionRequest, answer: Answer) -> None:
    check_request_id(request.request_id)
    parts.begin(
        lambda catalog: split.begin(parts.world, catalog, request),
        answer,
        lambda operation: pb.SplitPartitionResponse(operation=operation),
    )


def _merge(parts: Parts, request: pb.MergePartitionsRequest, answer: Answer) -> None:
    check_request_id(request.request_id)
    parts.begin(
        lambda catalog: merge.begin(parts.world, catalog, request),
        answer,
        lambda operation: pb.MergePartitionsResponse(operation=operation),
    )


def _move(parts: Parts, request: pb.MovePartitionRequest, answer: Answer) -> None:
    check_request_id(request.request_id)
    check_node_id(request.target_node_id)
    parts.begin(
        lambda catalog: move.begin(parts.world, catalog, request),
        answer,
        lambda operation: pb.MovePartitionResponse(operation=operation),
    )


METHODS = {
    "ListPartitions": Handling(pb.ListPartitionsRequest, _list, Role.READ),
    "SplitPartition": Handling(pb.SplitPartitionRequest, _split),
    "MergePartitions": Handling(pb.MergePartitionsRequest, _merge),
    "MovePartition": Handling(pb.MovePartitionRequest, _move),
}
