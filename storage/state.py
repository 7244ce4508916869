"""What the parts of a storage node share: its ports, what it holds, and what it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import Signer
from storage.config import StorageConfig
from storage.gate import Gate
from storage.heat import Heat
from storage.ownership import Holding, NodeRef, OwnershipTable, State
from storage.records import Progress
from storage.shard import Shard
from storage.token_log import TokenLog
from storage.writes import WriteQueue
from wire.metrics import Metrics
from wire.ports import Clock, Engine, Rng, Transport

# Shards that are found without a search: a power of two. Ids come from a counter, so those that a
# node serves seldom share a place.
_AT_HAND: Final = 1 << 14


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
    # Of calls to the Metadata Store; None where it takes unsigned ones.
    signer: Signer | None = None
    tables: dict[int, catalog.Table] = field(default_factory=dict)
    shards: dict[int, Shard] = field(default_factory=dict)
    # One of them for each remainder of their ids, or none.
    _at_hand: list[Shard | None] = field(default_factory=lambda: [None] * _AT_HAND)
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

    def shard(self, partition_id: int) -> Shard | None:
        """The one of `shards`. A dictionary of thousands takes a few cache misses more."""
        place = partition_id % _AT_HAND
        shard = self._at_hand[place]
        if shard is None or shard.partition_id != partition_id:
            shard = self.shards.get(partition_id)
            self._at_hand[place] = shard
        return shard

    def serving_shard(self, partition_id: int) -> Shard:
        """Of a partition in state SERVING. Raises KeyplaneError as `OwnershipTable.serving`."""
        self.ownership.serving(partition_id)
        return self.shards[partition_id]

    def open_shard(self, holding: Holding, progress: Progress) -> Shard:
        """Starts to serve a holding."""
        shard = Shard(
            Heat(self.rng),
            holding.partition,
            self.tables[holding.partition.table_id],
            progress.version,
            progress.items,
            progress.data_bytes,
            progress.counted,
            remembers_since=self.tokens.time(holding.remembers_since),
            opened_at=self.clock.now(),
            read_units=self.config.read_units,
            write_units=self.config.write_units,
        )
        if holding.state is State.HANDOVER:
            shard.gate = self.closed_gate()
            shard.handed_over = True
        self.shards[holding.partition.partition_id] = shard
        self.generation += 1
        return shard

    def close_shard(self, partition_id: int) -> Shard:
        """Ends serving. Requests that wait at its gate are sent on to find the new owner."""
        shard = self.shards.pop(partition_id)
        self._at_hand[partition_id % _AT_HAND] = None
        shard.retired = True
        gate, shard.gate = shard.gate, None
        if gate is not None:
            gate.open()
        self.generation += 1
        return shard

    def closed_gate(self) -> Gate:
        moves = self.config.moves
        return Gate(self.clock, moves.fence_queue_max, moves.fence_s_max)
