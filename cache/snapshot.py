"""The file a router boots from when it has nobody to ask.

One sealed `MapSnapshot`: for each table the root, the pages it names and what storage nodes said
beyond it; the node directory; and who may call, sealed as it was published. Pages are kept as the
bytes they were published as, so writing is a copy and the digests stay right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from cache.envelope import Kind, open_sealed, seal
from cache.pages import page_from_payload
from cache.partition_map import PartitionMap
from cache.routes import RouteTable
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.route.v1 import route_pb2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot file held. Every route's source is SNAPSHOT.

    tenants: shards by number, sealed; empty where none was known.
    """

    tables: tuple[RouteTable, ...]
    directory: pb.NodeDirectory
    tenants: Sequence[bytes] = ()


def encode_snapshot(
    tables: Iterable[RouteTable], directory: pb.NodeDirectory, tenants: Sequence[bytes] = ()
) -> bytes:
    """The content of the file."""
    message = pb.MapSnapshot(nodes=directory, tenant_shards=tenants)
    for routes in tables:
        saved = message.tables.add()
        if routes.map is not None:
            saved.root.CopyFrom(routes.map.root())
            saved.pages.extend(page.payload for page in routes.map.pages)
        # Settings may have been learned since the map was made.
        saved.root.table.CopyFrom(routes.table)
        saved.overlay.extend(route.partition.to_proto() for route in routes.overlay())
    return seal(Kind.SNAPSHOT, message.SerializeToString())


def decode_snapshot(content: bytes, now: float = 0.0) -> Snapshot:
    """Reads a snapshot file.

    now: on the clock's axis; what the age of the maps is counted from.
    Raises KeyplaneError: CORRUPT, FOREIGN_FORMAT, or MAP_INVALID. Then nothing of it is usable.
    """
    try:
        message = pb.MapSnapshot.FromString(open_sealed(Kind.SNAPSHOT, content))
    except DecodeError as error:
        raise KeyplaneError(Reason.CORRUPT, "the snapshot cannot be parsed") from error
    tables = tuple(_restore(saved, now) for saved in message.tables)
    return Snapshot(tables, message.nodes, tuple(message.tenant_shards))


def _restore(saved: pb.SnapshotTable, now: float) -> RouteTable:
    root = saved.root
    if not (root.table.table_id and root.table.name):
        raise KeyplaneError(Reason.CORRUPT, "the snapshot holds a table without a name")
    routes = RouteTable(root.table)
    if root.page_digests:
        if len(saved.pages) != len(root.page_digests):
            raise KeyplaneError(Reason.CORRUPT, f"table {root.table.name!r} lacks pages")
        pages = {
            digest: page_from_payload(payload, digest)
            for digest, payload in zip(root.page_digests, saved.pages, strict=True)
        }
        routes.install_map(
            PartitionMap.from_root(root, pages), route_pb2.ROUTE_SOURCE_SNAPSHOT, now
        )
    try:
        overlay = [Partition.from_proto(partition) for partition in saved.overlay]
    except KeyplaneError as error:
        raise KeyplaneError(Reason.CORRUPT, error.message) from error
    routes.install_hint(overlay, route_pb2.ROUTE_SOURCE_SNAPSHOT)
    return routes
