"""The storage node as a real process: RocksDB, memcached, gRPC."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from cache.live import MemcachedConfig, connect_from
from cache.settings import MemdsSettings
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import Signer
from storage.config import StorageConfig
from storage.engine import RocksEngine
from storage.node import StorageNode
from wire.addresses import check_address, parse_addresses
from wire.injection import FaultyEngine
from wire.injection.live import allow_full_disk
from wire.ports import Engine, EngineError
from wire.secret_file import read_vault
from wire.service import Runtime

# Inside the data directory, which leaves room beside it.
ENGINE_DIRECTORY = "rocksdb"


class StorageSettings(MemdsSettings):
    """What a storage node can be told beyond what every server can."""

    # Fixed for the life of the data directory.
    node_id: str = Field(min_length=1)
    # Failure domain, for placement.
    zone: str = ""
    data_dir: Path
    # host:port of the Metadata Store.
    metadata: str = ""


def build(runtime: Runtime) -> StorageNode:
    """Raises KeyplaneError on an address that is none, a secret that cannot be read, or a data
    directory that cannot be used.
    """
    settings = runtime.settings
    assert isinstance(settings, StorageSettings)
    loop = runtime.clock.loop
    memds = parse_addresses("--memds", settings.memds)
    if settings.metadata:
        check_address("--metadata", settings.metadata)
    vault = read_vault(settings.cluster_secret_file)
    signer = None
    if vault is not None:
        signer = Signer(vault.operator.key_id, vault.operator_secret, runtime.clock.wall)
    try:
        engine: Engine = RocksEngine(
            settings.data_dir / ENGINE_DIRECTORY, runtime.clock, loop.call_soon_threadsafe
        )
    except EngineError as error:
        raise KeyplaneError(
            Reason.WRITE_ERROR, f"{error}; check --data-dir, its permissions and its disk"
        ) from error
    if runtime.faults is not None:
        engine = FaultyEngine(engine, runtime.faults, runtime.clock)
        allow_full_disk(runtime.faults)
    return StorageNode(
        StorageConfig(
            node_id=settings.node_id,
            cluster=settings.cluster,
            address=runtime.address,
            zone=settings.zone,
            metadata_address=settings.metadata,
        ),
        runtime.clock,
        runtime.transport,
        runtime.server,
        engine,
        connect_from(runtime, memds, settings.cluster, MemcachedConfig.for_publisher()),
        runtime.metrics,
        runtime.rng,
        runtime.log,
        signer,
    )
