"""The snapshot on disk: what a router boots from with MemDS and the control plane both gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cache.snapshot import Snapshot, decode_snapshot, encode_snapshot
from keyplane.model.errors import KeyplaneError
from router.config import RouterConfig
from router.nodes import StorageNodes
from router.tables import Tables
from wire.metrics import Metrics
from wire.ports import Clock, Disk

FILE = "routes.snapshot"


class SnapshotKeeper:
    """Writes the file some time after anything changed, never twice at once."""

    def __init__(
        self,
        config: RouterConfig,
        clock: Clock,
        disk: Disk,
        tables: Tables,
        nodes: StorageNodes,
        metrics: Metrics,
        tenants: Callable[[], Sequence[bytes]] = tuple,
    ) -> None:
        """tenants: what is known of them, as `TenantKeeper.values`."""
        self._config = config
        self._clock = clock
        self._disk = disk
        self._tables = tables
        self._nodes = nodes
        self._tenants = tenants
        self._changed = False
        self._scheduled = False
        self._writing = False
        self._on_written: list[Callable[[], None]] = []
        self._encode_s = 0.0
        self._written = metrics.counter("router_snapshots", "Snapshots written.", "outcome")
        self._read = metrics.counter("router_snapshot_reads", "Snapshots read.", "outcome")

    def load(self) -> Snapshot | None:
        """What the file holds. None if there is none, or nothing of it can be used."""
        try:
            content = self._disk.read(FILE)
            if content is None:
                self._read.inc("none")
                return None
            snapshot = decode_snapshot(content, self._clock.now())
        except OSError:
            self._read.inc("READ_ERROR")
        except KeyplaneError as error:
            self._read.inc(error.reason.name)
        else:
            self._read.inc("OK")
            return snapshot
        return None

    def changed(self) -> None:
        """Routes or nodes have changed: they are written within a while."""
        self._changed = True
        if not self._scheduled and not self._writing:
            self._scheduled = True
            share = self._config.snapshot_time_share
            wait_s = max(self._config.snapshot_interval_s, self._encode_s / share)
            self._clock.call_later(wait_s, self._on_timer)

    def flush(self, on_done: Callable[[], None]) -> None:
        """Writes what has changed now, then calls back, also if the disk refuses."""
        if not self._changed and not self._writing:
            self._clock.call_soon(on_done)
            return
        self._on_written.append(on_done)
        if not self._writing:
            self._write()

    def _on_timer(self) -> None:
        self._scheduled = False
        if self._changed and not self._writing:
            self._write()

    def _write(self) -> None:
        self._changed = False
        self._writing = True
        began_at = self._clock.now()
        routes = [known.routes for known in self._tables.all()]
        content = encode_snapshot(routes, self._nodes.directory(), self._tenants())
        self._encode_s = self._clock.now() - began_at
        self._disk.write_atomic(FILE, content, self._on_result)

    def _on_result(self, error: OSError | None) -> None:
        self._writing = False
        self._written.inc("OK" if error is None else "WRITE_ERROR")
        waiting, self._on_written = self._on_written, []
        for on_done in waiting:
            on_done()
        if error is not None or self._changed:
            self.changed()
