"""What a reader of MemDS tells its owner."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

from cache.partition_map import PartitionMap
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.partition import Partition


class LookupResult(enum.Enum):
    """How the lookup of a table's map ended."""

    # `on_map` has been called with it.
    FOUND = "found"
    # Two complete memcached nodes know no such table, or it is known to be deleted.
    ABSENT = "absent"
    # MemDS cannot say. Ask elsewhere.
    UNKNOWN = "unknown"


class MapListener(Protocol):
    """Callbacks of a `MapReader`. Each tells of something that is there, never that it is not."""

    def on_map(self, map: PartitionMap) -> None:
        """A map newer than any before it of its table."""

    def on_deleted(self, table: str, table_id: int) -> None:
        """A tombstone that is newer than the table's map, and of which table. Told once."""

    def on_nodes(self, directory: pb.NodeDirectory) -> None:
        """A directory newer than any before it, with at least one node."""

    def on_report(self, node: pb.Node, tables: Sequence[pb.Table]) -> None:
        """What a storage node says of itself has changed: its address, the tables it serves."""

    def on_reported(self, node: pb.Node, table: pb.Table, partitions: Sequence[Partition]) -> None:
        """What a storage node serves of a table for which MemDS has given no map so far."""

    def on_lookup(self, table: str, result: LookupResult) -> None:
        """The end of a `MapReader.lookup`."""
