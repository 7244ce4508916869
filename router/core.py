"""The Request Router: takes requests of the data plane and carries each to whoever serves its key.

It holds the routes of all tables in memory and never waits for the control plane, whose address it
does not even know. What it holds comes from MemDS on a beat, from storage nodes that refuse a
request and say who serves it now, from its own snapshot, and from asking the storage nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message

from cache.callers import Callers, operator
from cache.config import ReaderConfig
from cache.listener import LookupResult
from cache.partition_map import PartitionMap
from cache.reader import MapReader
from cache.tenant_keeper import TenantKeeper
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError
from keyplane.model.partition import Partition
from keyplane.model.retry import RetryBudget
from keyplane.model.tenants import Role
from keyplane.model.vault import Vault
from keyplane.route.v1 import route_pb2 as route
from router.admission import Refiller
from router.batch_get import batch_get_item
from router.batch_write import batch_write_item
from router.config import RouterConfig
from router.context import RouterContext, RouterMetrics, Tokens
from router.exchange import Desk, Exchange
from router.explain import RouteService
from router.nodes import StorageNodes
from router.pages import query, scan
from router.search import Search
from router.single import delete_item, get_item, put_item
from router.snapshots import SnapshotKeeper
from router.survey import Surveyor, Tally
from router.tables import Tables
from router.tenant_limits import over_limit
from wire.metrics import Metrics
from wire.ports import (
    Clock,
    Disk,
    Handler,
    MemdsNode,
    MemdsOutcome,
    ReplyFn,
    Request,
    Rng,
    Server,
    Transport,
)
from wire.rpc import read_request

DATA_SERVICE = "keyplane.data.v1.DataService"
ROUTE_SERVICE = "keyplane.route.v1.RouteService"

_M = TypeVar("_M", bound=Message)
_Handle: TypeAlias = Callable[[RouterContext, Exchange, bytes], None]


class RouterCore:
    """One router over its ports. Also the listener of its own `MapReader`."""

    def __init__(
        self,
        config: RouterConfig,
        reader_config: ReaderConfig,
        clock: Clock,
        transport: Transport,
        server: Server,
        memds: Sequence[MemdsNode],
        disk: Disk,
        rng: Rng,
        metrics: Metrics,
        vault: Vault | None = None,
    ) -> None:
        """memds: the cluster's memcached nodes; without one, storage nodes are asked instead.
        vault: opens the keys of users; without one calls need not be signed.
        """
        self._config = config
        self._clock = clock
        self._refiller = Refiller(config, clock, transport, rng, metrics)
        self._tables = Tables(self._refiller.limits_of)
        self._nodes = StorageNodes()
        # Who calls where nobody has to say so.
        self._anybody = operator()
        self._callers: Callers | None = None
        self._tenants: TenantKeeper | None = None
        if vault is not None:
            own = operator(vault.operator_secret, vault.operator.key_id)
            self._callers = Callers(clock, own)
            self._tenants = TenantKeeper(
                vault, reader_config.cluster, self._callers, self._on_tenants
            )
        self._snapshots = SnapshotKeeper(
            *(config, clock, disk, self._tables, self._nodes, metrics, self.sealed_tenants)
        )
        self._reader = MapReader(reader_config, clock, memds, rng, metrics, self, self._tenants)
        self._surveyor = Surveyor(
            config, clock, transport, rng, self._tables, self._nodes, metrics, self._on_change
        )
        self._search = Search(config, clock, self._tables, self._surveyor, metrics)
        self._search.use(self._reader)
        self._desk = Desk(config, clock, metrics, shared=vault is not None)
        self._context = RouterContext(
            config=config,
            clock=clock,
            transport=transport,
            rng=rng,
            tables=self._tables,
            nodes=self._nodes,
            search=self._search,
            budget=RetryBudget(
                config.retry_ratio, config.retry_floor_per_s, config.retry_burst, clock.now()
            ),
            tokens=Tokens(rng),
            metrics=RouterMetrics(metrics),
            on_change=self._on_change,
            touch=self._reader.touch if self._reader.wants_touches else None,
        )
        self._news = metrics.counter(
            "router_news", "Maps, reports and directories from MemDS, by what they changed.", "what"
        )
        metrics.gauge("router_tables", "Tables known.", lambda: len(self._tables))
        metrics.gauge("router_storage_nodes", "Storage nodes known.", lambda: len(self._nodes))
        # A snapshot or a storage node has told us where things are.
        self._informed = False
        self._register(server)

    # --- as the process shell drives it ---------------------------------------------------------

    def start(self) -> None:
        snapshot = self._snapshots.load()
        if snapshot is not None:
            if self._tenants is not None:
                self._tenants.adopt(snapshot.tenants)
            self._nodes.install(snapshot.directory)
            for routes in snapshot.tables:
                self._tables.adopt(routes)
            self._reader.adopt(
                [routes.map for routes in snapshot.tables if routes.map is not None],
                [node.node_id for node in snapshot.directory.nodes],
            )
            self._follow()
            self._informed = bool(snapshot.tables or snapshot.directory.nodes)
        self._reader.start()
        self._clock.call_later(self._config.boot_patience_s, self._boot_without_memds)

    @property
    def tables(self) -> Tables:
        """What it knows of tables and routes. To look at only."""
        return self._tables

    def sealed_tenants(self) -> Sequence[bytes]:
        """Who may call, as it was published; nothing where calls need not be signed."""
        return self._tenants.values() if self._tenants is not None else ()

    @property
    def in_flight(self) -> int:
        """Requests being worked on."""
        return self._desk.in_flight

    @property
    def ready(self) -> bool:
        """Whether anybody has told it anything: its snapshot, MemDS, or a storage node. And, where
        calls are signed, whether it knows all who may sign.
        """
        if self._desk.draining or (self._tenants is not None and not self._tenants.complete):
            return False
        return self._informed or any(
            view.last is MemdsOutcome.OK for view in self._reader.node_views()
        )

    def drain(self, on_done: Callable[[], None]) -> None:
        """Refuses new requests, and calls back once those in flight are answered."""

        def idle() -> None:
            self._reader.stop()
            self._snapshots.flush(on_done)

        self._desk.drain(idle)

    def status(self) -> str:
        return (
            f"{len(self._tables)} tables, {len(self._nodes)} storage nodes,"
            f" {self._desk.in_flight} requests in flight"
        )

    def _boot_without_memds(self) -> None:
        """Neither the snapshot nor MemDS had anything so far: asks the storage nodes."""

        def on_answer() -> None:
            self._informed = True

        def on_end(_tally: Tally) -> None:
            self._clock.call_later(self._config.boot_patience_s, self._boot_without_memds)

        if not self.ready and not self._desk.draining:
            self._surveyor.ask("", on_answer, on_end)

    # --- as its reader tells it -----------------------------------------------------------------

    def on_map(self, map: PartitionMap) -> None:
        now = self._clock.now()
        self._take("map", lambda: self._tables.install_map(map, route.ROUTE_SOURCE_MEMDS, now))

    def on_deleted(self, table: str, table_id: int) -> None:
        self._take("tombstone", lambda: self._tables.bury(table, table_id))

    def on_nodes(self, directory: catalog.NodeDirectory) -> None:
        self._take("directory", lambda: self._nodes.install(directory))

    def on_report(self, node: catalog.Node, tables: Sequence[catalog.Table]) -> None:
        self._take("report", lambda: self._nodes.hear(node))

    def on_reported(
        self, node: catalog.Node, table: catalog.Table, partitions: Sequence[Partition]
    ) -> None:
        source = route.ROUTE_SOURCE_MEMDS
        self._take("report", lambda: self._tables.install_partitions(table, partitions, source))

    def on_lookup(self, table: str, result: LookupResult) -> None:
        self._search.on_lookup(table, result)

    def _take(self, what: str, install: Callable[[], bool]) -> None:
        """Takes news over. What cannot be used is counted by its reason and changes nothing."""
        try:
            changed = install()
        except KeyplaneError as error:
            self._news.inc(error.reason.name)
            return
        self._news.inc(what if changed else "nothing new")
        if changed:
            self._on_change()

    def _on_change(self) -> None:
        self._snapshots.changed()
        self._follow()

    def _on_tenants(self) -> None:
        self._news.inc("tenants")
        self._snapshots.changed()
        assert self._callers is not None
        before, accounts = self._context.accounts, {}
        for tenant in self._callers.tenants:
            limits = self._refiller.limits_of_tenant(before.get(tenant.prefix), tenant)
            if limits is not None:
                accounts[tenant.prefix] = limits
        self._context.accounts = accounts

    def _follow(self) -> None:
        """What storage nodes have told of is read in MemDS too: else nobody ever says that it has
        been deleted.
        """
        self._reader.follow_tables(self._tables.names())
        self._reader.follow_nodes(node.node_id for node in self._nodes.all())

    # --- requests -------------------------------------------------------------------------------

    def _register(self, server: Server) -> None:
        if self._callers is not None:
            server.take_seals(self._callers)
        service = RouteService(self._context, self._reader, self._desk, self._callers)
        reads: dict[str, _Handle] = {
            f"/{DATA_SERVICE}/GetItem": get_item,
            f"/{DATA_SERVICE}/BatchGetItem": _read(data.BatchGetItemRequest, batch_get_item),
            f"/{DATA_SERVICE}/Query": _read(data.QueryRequest, query),
            f"/{DATA_SERVICE}/Scan": _read(data.ScanRequest, scan),
            f"/{ROUTE_SERVICE}/Explain": _read(route.ExplainRequest, service.explain),
            f"/{ROUTE_SERVICE}/DescribeRouter": _read(
                route.DescribeRouterRequest, service.describe_router
            ),
        }
        writes: dict[str, _Handle] = {
            f"/{DATA_SERVICE}/PutItem": put_item,
            f"/{DATA_SERVICE}/DeleteItem": delete_item,
            f"/{DATA_SERVICE}/BatchWriteItem": _read(data.BatchWriteItemRequest, batch_write_item),
        }
        for role, handlers in ((Role.READ, reads), (Role.WRITE, writes)):
            for method, handle in handlers.items():
                server.register(method, self._handler(method, handle, int(role)))

    def _handler(self, method: str, handle: _Handle, role: int) -> Handler:
        """role: which it takes to call it."""
        context, desk = self._context, self._desk
        callers, anybody = self._callers, self._anybody
        name = method.rpartition("/")[2]
        writes = role > Role.READ

        def take(request: Request, reply: ReplyFn) -> None:
            caller = anybody
            if callers is not None:
                try:
                    caller = callers.authenticate(request)
                    caller.require(role, name)
                except KeyplaneError as error:
                    desk.refuse(error, reply)
                    return
                if caller.tenant.is_limited:
                    refusal = over_limit(caller.tenant, request.peer, writes, desk.now())
                    if refusal is not None:
                        desk.refuse(refusal, reply, caller.tenant)
                        return
            exchange = desk.open(request, caller, reply)
            if exchange is None:
                return
            try:
                handle(context, exchange, request.payload)
            except KeyplaneError as error:
                exchange.fail(error)

        return take


def _read(message_type: type[_M], handle: Callable[[RouterContext, Exchange, _M], None]) -> _Handle:
    """A handler of bytes from one of messages."""

    def read(context: RouterContext, exchange: Exchange, payload: bytes) -> None:
        handle(context, exchange, read_request(message_type, payload))

    return read
