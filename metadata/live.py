"""The Metadata Store as a real process: a database on a thread of its own, memcached, gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from cache.config import PublisherConfig
from cache.live import MemcachedConfig, connect_from
from cache.settings import MemdsSettings
from keyplane.model.errors import KeyplaneError, Reason
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.config import MetadataConfig, PlannerConfig
from metadata.core import MetadataCore
from metadata.database import Database
from metadata.lag import LaggingLedger
from metadata.ledger import Ledger
from wire.addresses import parse_addresses
from wire.auth import Auth
from wire.secret_file import read_vault
from wire.service import Runtime

_T = TypeVar("_T")

DEFAULT_DATABASE_URL = "sqlite:///keyplane-metadata.db"


class MetadataSettings(MemdsSettings):
    """What the Metadata Store can be told beyond what every server can."""

    # sqlite:///file or postgresql://user@host/database.
    database_url: str = DEFAULT_DATABASE_URL
    # Of the planner; see `PlannerConfig`.
    split_bytes: int = PlannerConfig().split_bytes
    hot_for_s: float = PlannerConfig().hot_for_s
    cold_s: float = PlannerConfig().cold_s

    def planner(self) -> PlannerConfig:
        return PlannerConfig(
            split_bytes=self.split_bytes, hot_for_s=self.hot_for_s, cold_s=self.cold_s
        )

    # Whether callers must sign their calls.
    auth: Auth = Auth.OFF


class ThreadLedger:
    """Implements `metadata.ledger.Ledger` on one thread, in the order of the calls.

    How many calls may wait is bounded by the writer, which makes one at a time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, database: Database) -> None:
        self._loop = loop
        self._database = database
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="metadata-ledger", daemon=True)
        self._thread.start()

    def open(self, on_done: Callable[[Catalog | KeyplaneError], None]) -> None:
        self._submit(self._database.open, on_done)

    def settle(self, on_done: Callable[[Catalog | KeyplaneError | None], None]) -> None:
        self._submit(self._database.settle, on_done)

    def commit(self, change: Change, on_done: Callable[[KeyplaneError | None], None]) -> None:
        self._submit(lambda: self._database.write(change), on_done)

    def close(self) -> None:
        """Ends the thread after what it is doing, and gives the connection back."""
        self._jobs.put(None)

    def _submit(
        self, work: Callable[[], _T], on_done: Callable[[_T | KeyplaneError], None]
    ) -> None:
        def job() -> None:
            outcome = _outcome(work)
            # A loop that was closed meanwhile has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(on_done, outcome)

        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        self._database.close()


def _outcome(work: Callable[[], _T]) -> _T | KeyplaneError:
    try:
        return work()
    except KeyplaneError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a dead thread would leave every caller waiting
        return KeyplaneError(
            Reason.DATABASE_ERROR, f"unexpected {type(error).__name__} in the database: {error}"
        )


def build(runtime: Runtime) -> MetadataCore:
    """Raises KeyplaneError on an address that is none, a secret that cannot be read, or a database
    that cannot be used.
    """
    settings = runtime.settings
    assert isinstance(settings, MetadataSettings)
    memds = parse_addresses("--memds", settings.memds)
    vault = read_vault(settings.cluster_secret_file)
    database = Database(settings.database_url)
    database.migrate()
    ledger: Ledger = ThreadLedger(runtime.clock.loop, database)
    if runtime.faults is not None:
        ledger = LaggingLedger(ledger, runtime.faults, runtime.clock)
    return MetadataCore(
        MetadataConfig(planner=settings.planner()),
        PublisherConfig(cluster=settings.cluster),
        runtime.clock,
        runtime.transport,
        runtime.server,
        ledger,
        connect_from(runtime, memds, settings.cluster, MemcachedConfig.for_publisher()),
        runtime.rng,
        runtime.metrics,
        vault,
        settings.auth is Auth.REQUIRED,
    )
