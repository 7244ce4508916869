"""The router as a real process: memcached, files, gRPC."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from cache.config import ReaderConfig, Refresh
from cache.live import connect
from keyplane.model.errors import KeyplaneError, Reason
from router.config import RouterConfig
from router.core import RouterCore
from wire.addresses import parse_address
from wire.files import FileDisk
from wire.service import Runtime, ServiceSettings


class RouterSettings(ServiceSettings):
    """What a router can be told beyond what every server can. Never who the control plane is."""

    # Comma list of host:port of all memcached nodes.
    memds: str = ""
    # Comma list of host:port of storage nodes to ask when nobody else knows.
    seeds: str = ""
    # Directory of the snapshot it boots from.
    snapshot_dir: Path = Path("keyplane-router")
    # Names it in logs.
    router_id: str = "router"
    # Names the keys in MemDS; all processes of a cluster share it.
    cluster: str = Field(default="keyplane", min_length=1)
    # What makes it read MemDS: the clock alone, or its requests too.
    refresh: Refresh = Refresh.FIXED


def build(runtime: Runtime) -> RouterCore:
    """Raises KeyplaneError on an address that is none, OSError without a place for snapshots."""
    settings = runtime.settings
    assert isinstance(settings, RouterSettings)
    memds = _addresses("--memds", settings.memds)
    return RouterCore(
        RouterConfig(seeds=_addresses("--seeds", settings.seeds)),
        ReaderConfig(cluster=settings.cluster, refresh=settings.refresh),
        runtime.clock,
        runtime.transport,
        runtime.server,
        connect(memds, settings.cluster, runtime.clock.loop),
        FileDisk(settings.snapshot_dir),
        runtime.rng,
        runtime.metrics,
    )


def _addresses(flag: str, text: str) -> list[str]:
    addresses = [each.strip() for each in text.split(",") if each.strip()]
    for address in addresses:
        try:
            parse_address(address)
        except ValueError as error:
            raise KeyplaneError(Reason.INVALID_ARGUMENT, f"{flag}: {error}") from error
    return addresses
