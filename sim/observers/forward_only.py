"""I3 and I5: what a router knows only ever gets newer, and never gets less.

I3: its map version never falls, and it sends no request by a route that a storage node has told it
is out of date. I5: a hash that it once had a route for has one until its table is deleted, and it
never says of a table that there is none while there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Reason
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.route.v1 import route_pb2 as route
from keyplane.storage.v1 import storage_pb2 as storage
from sim.network import SimCall
from sim.observers.base import Observer
from sim.observers.one_owner import EXECUTE
from sim.process import SimProcess
from sim.topology import METADATA
from sim.world import World
from wire.ports import Reply

# Hashes looked up to see whether a table is covered: enough to notice any lost page or map. A few
# on each beat, by turns.
_PROBES = tuple(range(0, KEYSPACE_END, KEYSPACE_END // 16))
_TURNS = 4

# A table that has been there for so long, in virtual seconds, no router takes for a missing one.
_KNOWN_S = 5.0

# What each method of the data service is asked with.
_REQUESTS = {
    f"/{service.full_name}/{method.name}": GetMessageClass(method.input_type)
    for service in data.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(slots=True)
class _Knowledge:
    """What one router has known in this life. versions, covered: by table name, with its id."""

    versions: dict[str, tuple[int, int]] = field(default_factory=dict)
    covered: dict[str, int] = field(default_factory=dict)
    # What storage nodes have told it, by table id.
    told: dict[int, dict[tuple[int, int], Partition]] = field(default_factory=dict)


class ForwardOnly(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._routers: dict[str, _Knowledge] = {}
        self._turn = 0
        # When each table that is there was first seen.
        self._since: dict[str, float] = {}
        world.on_birth.append(self._on_birth)

    def _on_birth(self, process: SimProcess) -> None:
        if process.name in self.world.routers:
            self._routers[process.name] = _Knowledge()

    def on_reply(self, call: SimCall, reply: Reply) -> None:
        knowledge = self._routers.get(call.source.name)
        if knowledge is None or reply.error is None or call.method != EXECUTE:
            return
        hint = reply.error.detail(route.RouteHint)
        if hint is not None:
            for message in hint.partitions:
                partition = Partition.from_proto(message)
                told = knowledge.told.setdefault(partition.table_id, {})
                told[partition.partition_id, partition.epoch] = partition

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        if reply.error is None or reply.error.reason is not Reason.TABLE_NOT_FOUND:
            return
        if call.method not in _REQUESTS:
            return
        tenant = self.world.topology.tenant_of(call.source.name)
        for called in _tables_of(call):
            table = f"{tenant}/{called}" if tenant else called
            if self.world.now - self._since.get(table, math.inf) > _KNOWN_S:
                self.world.violate(
                    "I5", f"{server.name} says of table {table!r} that there is none", server.name
                )

    def on_send(self, call: SimCall) -> None:
        knowledge = self._routers.get(call.source.name)
        if knowledge is None or not knowledge.told or call.method != EXECUTE:
            return
        request = storage.ExecuteRequest.FromString(call.payload)
        key_hash = _hash_of(request)
        if key_hash is None:
            return
        used = self._used(call.source.name, request.partition_id, key_hash)
        if used is None:
            return
        for partition in knowledge.told.get(used.table_id, {}).values():
            if partition.covers(key_hash) and partition.epoch > request.epoch:
                self.world.violate(
                    "I3",
                    f"{call.source.name} goes to partition {request.partition_id} at epoch"
                    f" {request.epoch} although a storage node has told it of partition"
                    f" {partition.partition_id} at epoch {partition.epoch}",
                    f"p{request.partition_id}",
                    f"p{partition.partition_id}",
                    call.source.name,
                )

    def beat(self) -> None:
        self._note_tables()
        self._turn += 1
        probes = _PROBES[self._turn % _TURNS :: _TURNS]
        for name, router in self.world.routers.items():
            if not self.world.has_booted(name):
                continue
            knowledge = self._routers[name]
            present: set[str] = set()
            for table in router.core.tables.all():
                present.add(table.name)
                self._check_version(
                    name, knowledge, table.name, (table.table_id, table.routes.version)
                )
                if knowledge.covered.get(table.name) == table.table_id:
                    if any(table.lookup(probe) is None for probe in probes):
                        self._lost(name, table.name)
                elif all(table.lookup(probe) is not None for probe in _PROBES):
                    knowledge.covered[table.name] = table.table_id
            for table_name in [each for each in knowledge.covered if each not in present]:
                if self._exists(table_name, knowledge.covered[table_name]):
                    self._lost(name, table_name)
                del knowledge.covered[table_name]

    def _note_tables(self) -> None:
        if self.world.has_booted(METADATA) and self.world.metadata.core.ready:
            by_name = self.world.metadata.core.catalog.by_name
            self._since = {
                name: self._since.get(name, self.world.now)
                for name, record in by_name.items()
                if record.active
            }

    def _check_version(
        self, router: str, knowledge: _Knowledge, table: str, version: tuple[int, int]
    ) -> None:
        before = knowledge.versions.get(table, (0, 0))
        if version < before:
            self.world.violate(
                "I3",
                f"{router} went back from version {before[1]} of table {table!r} to {version[1]}",
                router,
            )
        knowledge.versions[table] = version

    def _exists(self, table: str, table_id: int) -> bool:
        """Whether the Metadata Store, dead or alive, still has the table, and keeps it."""
        record = self.world.metadata.core.catalog.tables.get(table_id)
        return record is not None and record.active and record.name == table

    def _lost(self, router: str, table: str) -> None:
        self.world.violate("I5", f"{router} has lost routes of table {table!r}", router)

    def _used(self, router: str, partition_id: int, key_hash: int) -> Partition | None:
        """The partition that the router has just looked up for a hash."""
        for table in self.world.routers[router].core.tables.all():
            found = table.lookup(key_hash)
            if found is not None and found.partition.partition_id == partition_id:
                return found.partition
        return None


def _tables_of(call: SimCall) -> list[str]:
    request: Any = _REQUESTS[call.method].FromString(call.payload)
    return [request.table] if hasattr(request, "table") else list(request.requests)


def _hash_of(request: storage.ExecuteRequest) -> int | None:
    """The hash by which an operation was routed; None for those that cover a range."""
    match request.WhichOneof("op"):
        case "get":
            return request.get.key.hash
        case "write":
            return request.write.key.hash
        case "query":
            return request.query.hash
        case _:
            return None
