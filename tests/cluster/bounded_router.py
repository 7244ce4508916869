"""A router that takes four requests at a time, as a process: `python bounded_router.py`.

Told by the environment what `python -m router` is told by flags.
"""

from __future__ import annotations

import sys

from cache.config import ReaderConfig
from cache.live import connect
from router.config import RouterConfig
from router.core import DATA_SERVICE, ROUTE_SERVICE, RouterCore
from router.live import RouterSettings
from wire.files import FileDisk
from wire.service import Runtime, serve

INFLIGHT_MAX = 4


def build(runtime: Runtime) -> RouterCore:
    settings = runtime.settings
    assert isinstance(settings, RouterSettings)
    return RouterCore(
        RouterConfig(seeds=settings.seeds.split(","), inflight_max=INFLIGHT_MAX),
        ReaderConfig(cluster=settings.cluster),
        runtime.clock,
        runtime.transport,
        runtime.server,
        connect(settings.memds.split(","), settings.cluster, runtime.clock.loop),
        FileDisk(settings.snapshot_dir),
        runtime.rng,
        runtime.metrics,
    )


if __name__ == "__main__":
    services = [DATA_SERVICE, ROUTE_SERVICE]
    sys.exit(serve("bounded", RouterSettings(), build, services))
