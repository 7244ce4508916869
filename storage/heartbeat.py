"""Tells the Metadata Store that this node is there and how busy it is. Nothing waits for it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.signature import HEADER
from storage.shard import Shard
from storage.state import NodeState
from wire.ports import Reply

# Of the busiest partitions it is said where in their range the load is: of so many, in so many
# parts, from so many requests a second on.
SAMPLED_MAX: Final = 16
SAMPLED_BINS: Final = 32
SAMPLED_RATE_MIN: Final = 10.0

_SERVICE = "/keyplane.metadata.v1.MetadataService/"


class Heartbeat:
    """Registers until it is known, then beats. One call at a time, one try per beat."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._registered = False
        self._waiting = False
        # Where in the list of partitions the next slice begins.
        self._position = 0
        self._outcomes = state.metrics.counter(
            "storage_heartbeats", "Calls to the Metadata Store by outcome", "outcome"
        )

    def beat(self) -> None:
        if self._waiting or not self._state.config.metadata_address:
            return
        self._waiting = True
        if self._registered:
            request = pb.HeartbeatRequest(
                node_id=self._state.node.node_id,
                loads=self._loads(),
                partition_count=len(self._state.shards),
            )
            self._call("Heartbeat", request.SerializeToString())
        else:
            node = self._state.node.to_proto()
            self._call("RegisterNode", pb.RegisterNodeRequest(node=node).SerializeToString())

    def _call(self, method: str, payload: bytes) -> None:
        state = self._state
        deadline = state.clock.now() + state.config.heartbeat_s
        path = _SERVICE + method
        fields: tuple[tuple[str, str], ...] = ()
        if state.signer is not None:
            fields = ((HEADER, state.signer.value(path, payload)),)
        state.transport.call(
            state.config.metadata_address, path, payload, deadline, self._ended, fields
        )

    def _ended(self, reply: Reply) -> None:
        self._waiting = False
        if reply.error is not None:
            self._outcomes.inc(reply.error.reason.name)
            return
        self._outcomes.inc("OK")
        if not self._registered:
            self._registered = True
            return
        try:
            self._registered = pb.HeartbeatResponse.FromString(reply.payload).known
        except DecodeError:
            self._registered = False

    def _loads(self) -> list[pb.PartitionLoad]:
        shards = self._reported()
        loads = [_load(shard) for shard in shards]
        busiest = heapq.nlargest(SAMPLED_MAX, enumerate(shards), key=lambda each: _rate(each[1]))
        for at, shard in busiest:
            if _rate(shard) >= SAMPLED_RATE_MIN:
                bins = shard.heat.histogram(shard.start, shard.end, SAMPLED_BINS)
                loads[at].sampled.extend(bins)
        return loads

    def _reported(self) -> Sequence[Shard]:
        """The busiest half of what fits, and a rotating slice of the others."""
        most = self._state.config.heartbeat_loads_max
        shards = list(self._state.shards.values())
        if len(shards) <= most:
            return shards
        shards.sort(key=_rate, reverse=True)
        busiest, others = shards[: most // 2], shards[most // 2 :]
        others.sort(key=lambda shard: shard.partition.partition_id)
        start = self._position % len(others)
        self._position = start + most - len(busiest)
        return busiest + (others[start:] + others[:start])[: most - len(busiest)]


def _rate(shard: Shard) -> float:
    return shard.heat.reads_per_s + shard.heat.writes_per_s


def _load(shard: Shard) -> pb.PartitionLoad:
    load = pb.PartitionLoad(
        partition_id=shard.partition.partition_id,
        reads_per_second=shard.heat.reads_per_s,
        writes_per_second=shard.heat.writes_per_s,
        item_count=max(0, shard.items),
        bytes=max(0, shard.data_bytes),
    )
    limits = shard.limits
    if limits is not None:
        load.limited = True
        load.read_units_per_second = limits.read_units_per_s
        load.write_units_per_second = limits.write_units_per_s
        load.throttled_reads_per_second = limits.refused_reads_per_s
        load.throttled_writes_per_second = limits.refused_writes_per_s
    return load
