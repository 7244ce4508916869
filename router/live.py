"""The router as a real process: memcached, files, gRPC."""

from __future__ import annotations

from pathlib import Path

from cache.config import ReaderConfig, Refresh
from cache.live import connect_from
from cache.settings import MemdsSettings
from keyplane.model.errors import KeyplaneError, Reason
from router.config import RouterConfig
from router.core import RouterCore
from wire.addresses import check_address, parse_addresses
from wire.auth import Auth
from wire.files import FileDisk
from wire.secret_file import read_vault
from wire.service import Runtime


class RouterSettings(MemdsSettings):
    """What a router can be told beyond what every server can. Never who the control plane is."""

    # Comma list of host:port of storage nodes to ask when nobody else knows.
    seeds: str = ""
    # Directory of the snapshot it boots from.
    snapshot_dir: Path = Path("keyplane-router")
    # host:port of the granter; empty for none.
    granter: str = ""
    # Names it in logs.
    router_id: str = "router"
    # What makes it read MemDS: the clock alone, or its requests too.
    refresh: Refresh = Refresh.FIXED
    # Whether callers must sign their calls.
    auth: Auth = Auth.OFF


def build(runtime: Runtime) -> RouterCore:
    """Raises KeyplaneError on an address that is none or a secret that cannot be read, OSError
    without a place for snapshots.
    """
    settings = runtime.settings
    assert isinstance(settings, RouterSettings)
    memds = parse_addresses("--memds", settings.memds)
    vault = None
    if settings.auth is Auth.REQUIRED:
        vault = read_vault(settings.cluster_secret_file)
        if vault is None:
            raise KeyplaneError(
                Reason.NO_CLUSTER_SECRET,
                "signatures are verified with the cluster's secret; name its file with"
                " --cluster-secret-file, or run with --auth off",
            )
    return RouterCore(
        RouterConfig(
            seeds=parse_addresses("--seeds", settings.seeds),
            granter=settings.granter and check_address("--granter", settings.granter),
        ),
        ReaderConfig(cluster=settings.cluster, refresh=settings.refresh),
        runtime.clock,
        runtime.transport,
        runtime.server,
        connect_from(runtime, memds, settings.cluster),
        FileDisk(settings.snapshot_dir),
        runtime.rng,
        runtime.metrics,
        vault,
    )
