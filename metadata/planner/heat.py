"""Where the load is, for people."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, MutableSequence
from itertools import pairwise
from typing import Final

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.partition import KEYSPACE_END, Partition
from metadata.catalog import Catalog
from metadata.config import PlannerConfig
from metadata.nodes import NodeRegistry

HEAT_BINS_MAX: Final = 256

_BINS: Final = 32
_SHOWN: Final = 20

# Partitions that are spread over the bins, by their load: the others would not be seen, and a call
# is not to keep the store busy for long.
_SPREAD_MAX: Final = 5_000


def heat_of(
    request: pb.GetHeatRequest, catalog: Catalog, registry: NodeRegistry, config: PlannerConfig
) -> pb.GetHeatResponse:
    """Raises KeyplaneError(TABLE_NOT_FOUND)."""
    table_id = catalog.table(request.table).table_id if request.table else None
    answer = pb.GetHeatResponse(bins=[0.0] * (request.bins or _BINS))
    found = []
    for load, of_table in _loads(catalog, registry):
        if table_id not in (None, of_table):
            continue
        answer.partition_count += 1
        answer.reads_per_second += load.reads_per_second
        answer.writes_per_second += load.writes_per_second
        answer.throttled_reads_per_second += load.throttled_reads_per_second
        answer.throttled_writes_per_second += load.throttled_writes_per_second
        found.append((requests_per_s(load), load.partition_id, of_table, load))
    for at, (per_s, partition_id, of_table, load) in enumerate(heapq.nlargest(_SPREAD_MAX, found)):
        table = catalog.tables[of_table]
        partition = catalog.partition(table, partition_id)
        for part, share in _parts(partition, load):
            _spread(answer.bins, *part, share * per_s)
        if at < (request.limit or _SHOWN):
            heat = config.heat(load) if load.limited else 0.0
            answer.hottest.add(
                table=table.name, partition=partition.to_proto(), load=load, heat=heat
            )
    return answer


def requests_per_s(load: pb.PartitionLoad) -> float:
    """Those that were refused, too."""
    return (
        load.reads_per_second
        + load.writes_per_second
        + load.throttled_reads_per_second
        + load.throttled_writes_per_second
    )


def _loads(catalog: Catalog, registry: NodeRegistry) -> Iterator[tuple[pb.PartitionLoad, int]]:
    """Of every partition that has a report of the node that leads it, with its table's id."""
    for node_id in catalog.nodes:
        led = catalog.led_by(node_id)
        for load in registry.loads(node_id):
            yield load, led[load.partition_id]


def _parts(partition: Partition, load: pb.PartitionLoad) -> Iterator[tuple[tuple[int, int], float]]:
    """Parts of a partition's range, each with its share of the load, as far as that is known."""
    start, width = partition.start, partition.end - partition.start
    total = sum(load.sampled)
    if not total:
        yield (start, partition.end), 1.0
        return
    edges = [start + width * at // len(load.sampled) for at in range(len(load.sampled) + 1)]
    for part, count in zip(pairwise(edges), load.sampled, strict=True):
        # In a range of fewer hashes than parts some are empty.
        if count and part[0] < part[1]:
            yield part, count / total


def _spread(bins: MutableSequence[float], start: int, end: int, per_s: float) -> None:
    """Adds the load of a range of hashes to the bins that it touches, by how much of each."""
    width = KEYSPACE_END // len(bins)
    last = len(bins) - 1
    per_hash = per_s / (end - start)
    for at in range(min(start // width, last), last + 1):
        from_, to = at * width, KEYSPACE_END if at == last else (at + 1) * width
        if from_ >= end:
            break
        bins[at] += (min(to, end) - max(from_, start)) * per_hash
