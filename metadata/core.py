"""The Metadata Store put together: ledger, catalog, operations, nodes, publishing, service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cache.callers import operator
from cache.config import PublisherConfig
from cache.partition_map import PartitionMap
from cache.publisher import PublishedTenants, Publisher
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.vault import Vault
from metadata.access import Access
from metadata.catalog import Catalog
from metadata.config import MetadataConfig
from metadata.driver import Driver
from metadata.handlers import nodes, operations, partitions, planner, tables, tenants
from metadata.handlers.dispatch import SERVICE, TENANT_SERVICE, Dispatcher, Parts
from metadata.kinds.script import World
from metadata.ledger import Ledger
from metadata.nodes import NodeRegistry
from metadata.peers import Peers
from metadata.planner.planner import Planner
from metadata.reconcile import Reconciler
from metadata.writer import Writer
from wire.metrics import Metrics
from wire.ports import Clock, MemdsNode, Rng, Server, Transport


class _Published:
    """What MemDS is to hold, read from memory on every beat of the publisher."""

    def __init__(self, world: World) -> None:
        self._world = world

    def maps(self) -> Iterable[PartitionMap]:
        return self._world.catalog.maps.values()

    def tombstones(self) -> Iterable[pb.MapRoot]:
        for table in self._world.catalog.by_name.values():
            if table.deleted:
                yield pb.MapRoot(table=table.to_proto(), version=table.map_version)

    def directory(self) -> pb.NodeDirectory:
        return self._world.registry.directory()


class MetadataCore:
    """The `wire.service.Core` of the Metadata Store."""

    def __init__(
        self,
        config: MetadataConfig,
        publisher_config: PublisherConfig,
        clock: Clock,
        transport: Transport,
        server: Server,
        ledger: Ledger,
        memds: Sequence[MemdsNode],
        rng: Rng,
        metrics: Metrics,
        vault: Vault | None = None,
        signed: bool = False,
    ) -> None:
        """vault: seals the keys of users; None: there can be no users. signed: calls must be.

        Raises KeyplaneError(NO_CLUSTER_SECRET).
        """
        self._config = config
        self._clock = clock
        self._ledger = ledger
        self._opened = False
        self._stopping = False
        self._peers = Peers(config, clock, transport)
        self._registry = NodeRegistry(config, clock, self._on_return)
        self._world = World(config, clock, rng, self._registry, self._peers)
        self._writer = Writer(config, clock, ledger, metrics, self._on_replaced)
        self._driver = Driver(self._world, self._writer, metrics)
        self._reconciler = Reconciler(self._world)
        self._planner = Planner(self._world, self._writer, self._driver, metrics)
        self._access = Access(clock, vault, signed)
        self._publisher = Publisher(
            publisher_config,
            clock,
            memds,
            metrics,
            _Published(self._world),
            PublishedTenants(vault, self._access.shards) if vault is not None else None,
        )
        self._load_error: KeyplaneError | None = None
        parts = Parts(
            *(self._world, self._writer, self._driver, self._registry, self._reconciler),
            *(self._planner, self._access, operator()),
        )
        dispatcher = Dispatcher(parts, clock, metrics, self._gate)
        for service, groups in (
            (SERVICE, (tables, partitions, nodes, operations, planner)),
            (TENANT_SERVICE, (tenants,)),
        ):
            for group in groups:
                for name, handling in group.METHODS.items():
                    dispatcher.register(server, f"/{service}/{name}", handling)

    @property
    def catalog(self) -> Catalog:
        return self._world.catalog

    @property
    def driver(self) -> Driver:
        return self._driver

    @property
    def ready(self) -> bool:
        """Whether the database is loaded, and is this store's to change."""
        return self._opened and not self._stopping and not self._writer.superseded

    def start(self) -> None:
        """Loads the database; a database that cannot be reached is tried again until it can."""
        self._ledger.open(self._on_opened)

    def drain(self, on_done: Callable[[], None]) -> None:
        """Ends what is being written, and leaves unfinished operations to the next start."""
        self._stopping = True
        self._planner.stop()
        self._driver.stop()
        self._registry.stop()
        self._publisher.stop()

        def idle() -> None:
            self._ledger.close()
            on_done()

        if self._opened:
            self._writer.stop(idle)
        else:
            self._clock.call_soon(idle)

    def status(self) -> str:
        if not self._opened:
            return f"loading the database; last: {self._load_error or 'no error'}"
        catalog = self.catalog
        return (
            f"{len(catalog.maps)} tables, {len(catalog.nodes)} nodes, "
            f"{len(catalog.active)} operations under way, term {catalog.term}"
        )

    def _on_opened(self, outcome: Catalog | KeyplaneError) -> None:
        if self._stopping:
            return
        if isinstance(outcome, KeyplaneError):
            self._load_error = outcome
            self._clock.call_later(self._config.database_retry_s, self.start)
            return
        try:
            self._access.open(outcome)
        except KeyplaneError as error:
            # With the right secret it may go on: nothing has been changed.
            self._load_error = error
            self._clock.call_later(self._config.database_retry_s, self.start)
            return
        self._opened = True
        self._writer.open(outcome)
        self._take(outcome)
        self._planner.start()
        self._publisher.start()

    def _on_replaced(self, catalog: Catalog) -> None:
        self._access.open(catalog)
        self._take(catalog)

    def _take(self, catalog: Catalog) -> None:
        """Everything looks at this catalog from here on, as who may call does already."""
        self._world.catalog = catalog
        self._peers.open(catalog)
        self._registry.open(catalog)
        self._driver.open()

    def _on_return(self, node_id: str) -> None:
        self._reconciler.tell(node_id)
        self._driver.kick()

    def _gate(self) -> KeyplaneError | None:
        if self._stopping:
            return KeyplaneError(
                Reason.SHUTTING_DOWN, "the Metadata Store is shutting down", retry_after_s=1.0
            )
        if not self._opened:
            return self._load_error or KeyplaneError(
                Reason.NOT_SERVING, "the Metadata Store is loading its database", retry_after_s=0.5
            )
        return None
