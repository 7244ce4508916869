"""The members of a world: what each kind of process is built of, and what outlives it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from granter.core import GranterCore
from keyplane.model.signature import Signer
from keyplane.model.vault import Vault
from metadata.core import MetadataCore
from metadata.memory import MemoryDatabase
from router.core import RouterCore
from sim.health import HEALTH, health_handler
from sim.ledger import SimLedger, Trouble
from sim.network import SimNetwork, SimTransport
from sim.process import SimProcess, address_of
from sim.scheduler import Scheduler
from sim.topology import GRANTER, METADATA, Topology, storage_config
from storage.memory import MemoryEngine
from storage.node import StorageNode
from wire.memory import MemoryDisk
from wire.metrics import Metrics
from wire.ports import Clock, MemdsNode


class MemdsFinder(Protocol):
    def __call__(self, process: SimProcess) -> Sequence[MemdsNode]:
        """The memcached fleet, as one process reaches it."""


class Parts:
    """What every member is given when it starts."""

    def __init__(
        self,
        scheduler: Scheduler,
        network: SimNetwork,
        topology: Topology,
        memds: MemdsFinder,
        secret: bytes | None = None,
    ) -> None:
        """secret: of the cluster; None: calls are not signed."""
        self.scheduler = scheduler
        self.network = network
        self.topology = topology
        self.memds = memds
        self._secret = secret

    def vault(self, rng: random.Random) -> Vault | None:
        """As one life of a server is given it."""
        return None if self._secret is None else Vault(self._secret, rng.randbytes)

    def transport(self, process: SimProcess) -> SimTransport:
        return SimTransport(self.network, process)


class Member(Protocol):
    """One named process, life after life."""

    def boot(self, process: SimProcess, rng: random.Random) -> None:
        """Builds the process anew from what is durable, and starts it."""

    def died(self, power: bool) -> None:
        """The process is dead; with `power` so is its machine, and what was not synced is gone."""


class RouterMember:
    """A Request Router. Its snapshot outlives it. core: of the life it is in, or was in last."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.disk = MemoryDisk(_NO_CLOCK)
        self.metrics = Metrics()
        self.core: RouterCore

    def boot(self, process: SimProcess, rng: random.Random) -> None:
        parts = self._parts
        self.disk.use(process.clock)
        self.metrics = Metrics()
        seeds = [address_of(name) for name in parts.topology.storage_names()]
        self.core = RouterCore(
            replace(parts.topology.router, seeds=seeds[:3], granter=address_of(GRANTER)),
            parts.topology.reader,
            process.clock,
            parts.transport(process),
            process,
            parts.memds(process),
            self.disk,
            rng,
            self.metrics,
            parts.vault(rng),
        )
        process.register(HEALTH, health_handler(lambda: self.core.ready))
        self.core.start()

    def lose_disk(self) -> None:
        """The next life has no snapshot to begin with."""
        self.disk.files.clear()

    def died(self, power: bool) -> None:
        """Its snapshot is replaced whole and synced: it stays as it is."""


class StorageMember:
    """A storage node over an engine that outlives it."""

    def __init__(self, parts: Parts, name: str) -> None:
        self._parts = parts
        self._name = name
        self.engine = MemoryEngine(_NO_CLOCK, parts.topology.commit_s)
        self.metrics = Metrics()
        self.node: StorageNode

    def boot(self, process: SimProcess, rng: random.Random) -> None:
        parts = self._parts
        self.engine.use(process.clock)
        self.metrics = Metrics()
        vault, signer = parts.vault(rng), None
        if vault is not None:
            own = vault.operator
            signer = Signer(own.key_id, own.secret_bytes, process.clock.wall, rng.randbytes)
        self.node = StorageNode(
            storage_config(parts.topology, self._name, process.address, address_of(METADATA)),
            process.clock,
            parts.transport(process),
            process,
            self.engine,
            parts.memds(process),
            self.metrics,
            rng,
            structlog.testing.CapturingLogger(),
            signer,
        )
        self.node.start()

    def died(self, power: bool) -> None:
        if power:
            self.engine.power_loss()
        else:
            self.engine.crash()


class GranterMember:
    """A granter, of which nothing outlives anything."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.metrics = Metrics()
        self.core: GranterCore

    def boot(self, process: SimProcess, rng: random.Random) -> None:
        self.metrics = Metrics()
        self.core = GranterCore(self._parts.topology.granter, process.clock, process, self.metrics)
        self.core.start()

    def died(self, power: bool) -> None:
        """There is nothing to lose."""


class MetadataMember:
    """The Metadata Store over a database that outlives it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.database = MemoryDatabase()
        self.metrics = Metrics()
        # With its database, in every life.
        self.trouble = Trouble()
        self.ledger: SimLedger
        self.core: MetadataCore

    def boot(self, process: SimProcess, rng: random.Random) -> None:
        parts = self._parts
        self.metrics = Metrics()
        self.ledger = SimLedger(process.clock, self.database.open(), rng, self.trouble)
        vault = parts.vault(rng)
        self.core = MetadataCore(
            parts.topology.metadata,
            parts.topology.publisher,
            process.clock,
            parts.transport(process),
            process,
            self.ledger,
            parts.memds(process),
            rng,
            self.metrics,
            vault,
            signed=vault is not None,
        )
        self.core.start()

    def died(self, power: bool) -> None:
        """Its database syncs every commit: nothing is lost either way."""


class _NoClock:
    """Before the first life there is nobody whose time could pass."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError("used before the first boot")


_NO_CLOCK: Clock = _NoClock()  # type: ignore[assignment]
