"""RouteService: how this router routes, for people and tools."""

from __future__ import annotations

from cache.callers import Caller, Callers
from cache.reader import MapReader
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.tenants import Role
from keyplane.route.v1 import route_pb2 as route
from router.context import RouterContext
from router.exchange import Desk, Exchange
from router.parse import placing_hash
from router.tables import KnownTable


class RouteService:
    def __init__(
        self, context: RouterContext, reader: MapReader, desk: Desk, callers: Callers | None
    ) -> None:
        """callers: None where calls are not signed."""
        self._context = context
        self._reader = reader
        self._desk = desk
        self._callers = callers

    def explain(
        self, context: RouterContext, exchange: Exchange, request: route.ExplainRequest
    ) -> None:
        def send(known: KnownTable) -> None:
            key_hash = placing_hash(known, request.key)
            if known.lookup(key_hash) is not None:
                self._answer(exchange, known, key_hash)
                return
            context.search.route(
                known,
                key_hash,
                None,
                exchange.deadline,
                lambda refused: self._answer(exchange, known, key_hash, refused),
            )

        context.with_table(exchange, request.table, send)

    def describe_router(
        self, context: RouterContext, exchange: Exchange, _request: route.DescribeRouterRequest
    ) -> None:
        caller = exchange.caller
        if caller.role != Role.OPERATOR:
            # Of what the cluster is made of a tenant is told nothing.
            prefix = caller.tenant.prefix
            own = [known for known in context.tables.all() if known.prefix == prefix]
            views = [self._table_view(known, caller) for known in own]
            exchange.answer(route.DescribeRouterResponse(tables=views))
            return
        exchange.answer(
            route.DescribeRouterResponse(
                tables=[self._table_view(known, caller) for known in context.tables.all()],
                nodes=context.nodes.all(),
                memds=[
                    route.MemdsView(
                        address=view.name,
                        last_result=view.last.name if view.last is not None else "",
                        requests=view.requests,
                    )
                    for view in self._reader.node_views()
                ],
                throttled={each: int(n) for each, n in self._desk.throttled.values.items()},
                tenants=self._tenant_views(),
            )
        )

    def _tenant_views(self) -> list[route.TenantView]:
        if self._callers is None:
            return []
        return [
            route.TenantView(
                tenant_id=tenant.tenant_id,
                requests=tenant.begun,
                throttled=tenant.throttled,
                in_flight=tenant.in_flight,
                suspended=not tenant.active,
            )
            for tenant in self._callers.tenants
            if tenant.begun or tenant.throttled
        ]

    def _answer(
        self,
        exchange: Exchange,
        known: KnownTable,
        key_hash: int,
        refused: KeyplaneError | None = None,
    ) -> None:
        found = known.lookup(key_hash)
        if found is None:
            message = f"nobody has said where this key of {known.name!r} lives; retry later"
            exchange.fail(refused or KeyplaneError(Reason.NO_ROUTE, message))
            return
        leader = found.partition.leader
        exchange.answer(
            route.ExplainResponse(
                key_hash=key_hash,
                partition=found.partition.to_proto(),
                node=self._context.nodes.get(leader) or catalog.Node(node_id=leader),
                source=found.source,
                map_version=known.routes.version,
                map_age_ms=self._age_ms(known),
            )
        )

    def _table_view(self, known: KnownTable, caller: Caller) -> route.TableView:
        routes = known.routes
        table = catalog.Table()
        table.CopyFrom(routes.table)
        table.name = known.name.removeprefix(caller.tenant.prefix)
        return route.TableView(
            table=table,
            map_version=routes.version,
            map_age_ms=self._age_ms(known),
            partition_count=routes.partition_count,
            overlay_count=routes.overlay_count,
            source=routes.source,
        )

    def _age_ms(self, known: KnownTable) -> int:
        """Since MemDS last confirmed the map, or since it was taken over from elsewhere."""
        times = (self._reader.confirmed_at(known.name), known.routes.confirmed_at)
        latest = max((each for each in times if each is not None), default=None)
        return 0 if latest is None else round((self._context.clock.now() - latest) * 1000)
