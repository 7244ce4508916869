"""What the parts of a storage node share: its ports, what it holds, and what it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from storage.config import StorageConfig
from storage.gate import Gate
from storage.heat import Heat
from storage.ownership import Holding, NodeRef, OwnershipTable, State
from storage.records import Progress
from storage.shard import Shard
from storage.token_log import TokenLog
from storage.tokens import TokenMemory
from storage.writes import WriteQueue
from wire.metrics import Metrics
from wire.ports import Clock, Engine, Rng, Transport


class Log(Protocol):
    """The part of a structlog logger that the node uses."""

    def info(self, event: str, **facts: object) -> object: ...
    def warning(self, event: str, **facts: object) -> object: ...


@dataclass(slots=True)
class NodeState:
    """tables: by id, deleted ones too. shards: of partitions in state SERVING or HANDOVER.

    Changed only by steps of the write queue.
    """

    config: StorageConfig
    clock: Clock
    transport: Transport
    engine: Engine
    queue: WriteQueue
    metrics: Metrics
    rng: Rng
    log: Log
    ownership: OwnershipTable
    tokens: TokenLog
    tables: dict[int, catalog.Table] = field(default_factory=dict)
    shards: dict[int, Shard] = field(default_factory=dict)
    # Rises with every change of what is served.
    generation: int = 0

    @property
    def node(self) -> NodeRef:
        return self.ownership.node

    def table(self, table_id: int) -> catalog.Table:
        """Raises KeyplaneError(TABLE_NOT_FOUND) if it is unknown or deleted."""
        table = self.tables.get(table_id)
        if table is None or table.state == catalog.TABLE_STATE_DELETED:
            name = "" if table is None else f" {table.name!r}"
            raise KeyplaneError(Reason.TABLE_NOT_FOUND, f"table {table_id}{name} is deleted")
        return table

    def serving_shard(self, partition_id: int) -> Shard:
        """Of a partition in state SERVING. Raises KeyplaneError as `OwnershipTable.serving`."""
        self.ownership.serving(partition_id)
        return self.shards[partition_id]

    def open_shard(self, holding: Holding, progress: Progress, tokens: TokenMemory) -> Shard:
        """Starts to serve a holding."""
        shard = Shard(
            holding.partition,
            self.tables[holding.partition.table_id],
            tokens,
            Heat(self.rng),
            progress.version,
            progress.items,
            progress.data_bytes,
            progress.counted,
        )
        if holding.state is State.HANDOVER:
            shard.gate = self.closed_gate()
            shard.handed_over = True
        self.shards[holding.partition.partition_id] = shard
        self.tokens.adopt(tokens)
        self.generation += 1
        return shard

    def close_shard(self, partition_id: int) -> Shard:
        """Ends serving. Requests that wait at its gate are sent on to find the new owner."""
        shard = self.shards.pop(partition_id)
        shard.retired = True
        gate, shard.gate = shard.gate, None
        if gate is not None:
            gate.open()
        self.tokens.release(shard.tokens)
        self.generation += 1
        return shard

    def closed_gate(self) -> Gate:
        moves = self.config.moves
        return Gate(self.clock, moves.fence_queue_max, moves.fence_s_max)

    def empty_memory(self) -> TokenMemory:
        """For a partition that has just been created: nothing was ever written to it."""
        return TokenMemory(float("-inf"))
