"""A storage node as a router sees it: StorageService over a dictionary.

It checks partition id and epoch first, as a real one does, and does what it is told to when a test
wants an answer that is hard to provoke: errors before or after the work was done, or silence. What
storage nodes do has its own tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import Message

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition, end_from_wire
from keyplane.route.v1 import route_pb2 as route
from keyplane.storage.v1 import storage_pb2 as pb
from wire.memory import MemoryNetwork
from wire.ports import Reply, ReplyFn, Request

_SERVICE = "/keyplane.storage.v1.StorageService/"


@dataclass
class Fault:
    """What becomes of one Execute: an error, or None for no answer; `after` it was carried out, or
    instead.
    """

    error: KeyplaneError | None
    after: bool = False


@dataclass
class StoragePeer:
    """One node. Items are keyed by (hash, encoded key), of all tables alike.

    served: tokens of the writes that were carried out, in order.
    asked: every ExecuteRequest that arrived. described: how often DescribePartitions did.
    faults: what becomes of the next Executes; None lets one through.
    """

    network: MemoryNetwork
    node_id: str
    tables: dict[int, catalog.Table] = field(default_factory=dict)
    serving: dict[int, Partition] = field(default_factory=dict)
    successors: dict[int, list[Partition]] = field(default_factory=dict)
    known_nodes: list[catalog.Node] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    items: dict[tuple[int, bytes], tuple[bytes, int]] = field(default_factory=dict)
    sizes: dict[tuple[int, bytes], int] = field(default_factory=dict)
    served: list[tuple[bytes, int]] = field(default_factory=list)
    asked: list[pb.ExecuteRequest] = field(default_factory=list)
    described: int = 0
    faults: list[Fault | None] = field(default_factory=list)
    version: int = 0

    def __post_init__(self) -> None:
        self.start()

    @property
    def address(self) -> str:
        return f"{self.node_id}:7000"

    @property
    def node(self) -> catalog.Node:
        return catalog.Node(node_id=self.node_id, address=self.address)

    def start(self) -> None:
        server = self.network.server(self.address)
        server.register(_SERVICE + "Execute", self._execute)
        server.register(_SERVICE + "DescribePartitions", self._describe)

    def stop(self) -> None:
        """As kill -9: what it holds is there again after `start`."""
        self.network.remove(self.address)

    def open(self, table: catalog.Table, *partitions: Partition) -> None:
        self.tables[table.table_id] = table
        self.serving |= {each.partition_id: each for each in partitions}

    def retire(self, partition_id: int, *successors: Partition) -> None:
        """Serves a partition no longer. Successors led by this node are served from now on."""
        del self.serving[partition_id]
        self.successors[partition_id] = list(successors)
        for each in successors:
            if each.leader == self.node_id:
                self.serving[each.partition_id] = each

    def fail_next(self, *faults: Fault | None) -> None:
        self.faults.extend(faults)

    # --- StorageService -------------------------------------------------------------------------

    def _describe(self, request: Request, reply: ReplyFn) -> None:
        self.described += 1
        name = pb.DescribePartitionsRequest.FromString(request.payload).table
        tables = [each for each in self.tables.values() if name in ("", each.name)]
        ids = {each.table_id for each in tables}
        forwarded = [each for some in self.successors.values() for each in some]
        answer = pb.DescribePartitionsResponse(
            node=self.node,
            tables=tables,
            partitions=[p.to_proto() for p in self.serving.values() if p.table_id in ids],
            forwarded=[
                p.to_proto() for p in forwarded if p.table_id in ids and p.leader != self.node_id
            ],
            forwarded_nodes=self.known_nodes,
            deleted_tables=self.deleted,
        )
        reply(Reply(answer.SerializeToString()))

    def _execute(self, request: Request, reply: ReplyFn) -> None:
        message = pb.ExecuteRequest.FromString(request.payload)
        self.asked.append(message)
        fault = self.faults.pop(0) if self.faults else None
        if fault is None or fault.after:
            response = self._carry_out(message)
            if fault is None:
                reply(Reply(response.SerializeToString()))
        if fault is not None and fault.error is not None:
            raise fault.error

    def _carry_out(self, message: pb.ExecuteRequest) -> pb.ExecuteResponse:
        partition = self.serving.get(message.partition_id)
        if partition is None or partition.epoch != message.epoch:
            raise self._stale(message.partition_id)
        op = message.WhichOneof("op")
        carry_out: Callable[[Partition, pb.ExecuteRequest], Message] = getattr(self, f"_do_{op}")
        name = "page" if op in ("query", "scan") else op
        return pb.ExecuteResponse(**{name: carry_out(partition, message)})

    def _stale(self, partition_id: int) -> KeyplaneError:
        serving = self.serving.get(partition_id)
        known = self.successors.get(partition_id, [serving] if serving else [])
        hint = route.RouteHint(
            partitions=[each.to_proto() for each in known],
            nodes=[self.node, *self.known_nodes],
        )
        return KeyplaneError(Reason.STALE_ROUTE, "not served here", details=(hint,))

    def _do_get(self, partition: Partition, message: pb.ExecuteRequest) -> pb.GetResult:
        return self._get(partition, message.get.key)

    def _do_batch_get(self, partition: Partition, message: pb.ExecuteRequest) -> pb.BatchGetResult:
        results = [self._get(partition, key) for key in message.batch_get.keys]
        return pb.BatchGetResult(results=results)

    def _do_write(self, partition: Partition, message: pb.ExecuteRequest) -> pb.WriteResult:
        return self._write(partition, message.write)

    def _do_batch_write(
        self, partition: Partition, message: pb.ExecuteRequest
    ) -> pb.BatchWriteResult:
        results = [self._write(partition, write) for write in message.batch_write.writes]
        return pb.BatchWriteResult(results=results)

    def _do_query(self, partition: Partition, message: pb.ExecuteRequest) -> pb.PageResult:
        query = message.query
        assert partition.covers(query.hash)
        low = (query.hash, getattr(query, "from"))
        keys = sorted(key for key in self.items if low <= key < (query.hash, query.to))
        return self._page(keys[::-1] if query.backward else keys, query.limit, query.max_bytes)

    def _do_scan(self, partition: Partition, message: pb.ExecuteRequest) -> pb.PageResult:
        scan = message.scan
        assert partition.covers(scan.position.hash)
        end = min(end_from_wire(scan.end), partition.end)
        start = (scan.position.hash, scan.position.encoded)
        keys = sorted(
            key
            for key in self.items
            if (key > start if scan.exclusive else key >= start) and key[0] < end
        )
        return self._page(keys, scan.limit, scan.max_bytes)

    def _page(self, keys: list[tuple[int, bytes]], limit: int, max_bytes: int) -> pb.PageResult:
        page = pb.PageResult()
        size = 0
        for count, (hash_, encoded) in enumerate(keys, 1):
            item, _ = self.items[hash_, encoded]
            size += len(item)
            page.items.append(item)
            page.item_bytes += self.sizes[hash_, encoded]
            page.last.CopyFrom(pb.ItemKey(hash=hash_, encoded=encoded))
            if count == limit or size >= max_bytes:
                page.more = count < len(keys)
                break
        return page

    def _get(self, partition: Partition, key: pb.ItemKey) -> pb.GetResult:
        assert partition.covers(key.hash)
        place = (key.hash, key.encoded)
        item, version = self.items.get(place, (b"", 0))
        size = self.sizes.get(place, 0)
        return pb.GetResult(found=bool(version), item=item, version=version, item_bytes=size)

    def _write(self, partition: Partition, write: pb.WriteOp) -> pb.WriteResult:
        assert partition.covers(write.key.hash)
        key = (write.key.hash, write.key.encoded)
        self.served.append((write.token.client_id, write.token.sequence))
        _, version = self.items.get(key, (b"", 0))
        result = pb.WriteResult(
            version=version, existed=bool(version), before_bytes=self.sizes.pop(key, 0)
        )
        if write.WhichOneof("action") == "put":
            self.version += 1
            self.items[key] = (write.put, self.version)
            self.sizes[key] = write.item_bytes
            result.version = self.version
        else:
            self.items.pop(key, None)
        return result
