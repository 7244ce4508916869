"""Runs a workload against a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable
from contextlib import AbstractContextManager

from keyplane.client.aio import AsyncClient
from keyplane.history.operation import Kind
from keyplane.history.recorder import Answer
from keyplane.history.recorder import Recorder as HistoryRecorder
from keyplane.model.errors import KeyplaneError
from keyplane.workload.acklog import AckLog, LoggedWrite
from keyplane.workload.config import WorkloadConfig
from keyplane.workload.items import WriteName, digest_of, make_item, value_named, value_of
from keyplane.workload.keys import chooser, key_name
from keyplane.workload.recorder import OK, Recorder
from keyplane.workload.samples import SampleLog

# Counted under this name where an error's would be: a read that was sent after a write had been
# acknowledged, and did not see it.
STALE_READ = "STALE_READ"


class Workload:
    """One run. `recorder` may be looked at while it goes on."""

    def __init__(
        self,
        config: WorkloadConfig,
        client: AsyncClient,
        key_attribute: str,
        ack_log: AckLog | None = None,
        samples: SampleLog | None = None,
        history: HistoryRecorder | None = None,
    ) -> None:
        """key_attribute: name of the table's partition key."""
        self._config = config
        self._client = client
        self._key_attribute = key_attribute
        self._ack_log = ack_log
        self._samples = samples
        self._history = history
        self._choose = chooser(config)
        self._writer = secrets.token_hex(4)
        self._sequence = 0
        # Of each key: the highest version acknowledged, which later reads have to see.
        self._acknowledged: dict[str, int] = {}
        self._stop = asyncio.Event()
        self._scheduled = 0
        self._started = time.monotonic()
        # Turns monotonic times into wall times, for the samples.
        self._wall_offset = time.time() - time.monotonic()
        self.recorder = Recorder(self._started)
        self.acknowledged_writes = 0
        self.unknown_writes = 0

    def stop(self) -> None:
        """Lets requests under way end, and sends no more."""
        self._stop.set()

    async def run(self) -> None:
        """Returns when the time is up or `stop` was called, and every request has ended."""
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(self._stop_in_time())
            clients = [group.create_task(self._run_client(n)) for n in range(self._config.clients)]
            await asyncio.wait(clients)
            timer.cancel()

    async def _stop_in_time(self) -> None:
        if self._config.duration_s is not None:
            await asyncio.sleep(self._config.duration_s)
            self.stop()

    async def _run_client(self, number: int) -> None:
        rng = random.Random(f"{self._config.seed}/{number}")
        lane = f"{self._writer}/{number}"
        while (due := await self._next_due()) is not None:
            key = key_name(self._choose(rng))
            is_read = rng.random() < self._config.read_share
            request = self._read(lane, key) if is_read else self._write(lane, key)
            await self._timed(due, is_read, request)

    async def _next_due(self) -> float | None:
        """When the next request of any client is due, waiting for it; None when stopped."""
        rate = self._config.rate_per_s
        if rate is None:
            return None if self._stop.is_set() else time.monotonic()
        due = self._started + self._scheduled / rate
        self._scheduled += 1
        delay = due - time.monotonic()
        if delay > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)
        return None if self._stop.is_set() else due

    async def _timed(self, due: float, is_read: bool, request: Awaitable[str]) -> None:
        """Latency counts from when the request was due, also when no client was free to send it."""
        try:
            outcome = await request
        except KeyplaneError as error:
            outcome = error.reason.name
        latency_s = time.monotonic() - due
        self.recorder.record(is_read, latency_s, outcome)
        if self._samples is not None:
            self._samples.append(due + self._wall_offset, latency_s, is_read, outcome)

    async def _read(self, lane: str, key: str) -> str:
        expected = self._acknowledged.get(key, 0)
        with self._recorded(lane, key, Kind.READ) as answer:
            found = await self._client.get_versioned(
                self._config.table,
                {self._key_attribute: key},
                consistent=True,
                timeout_s=self._config.timeout_s,
            )
            if found is not None and self._history is not None:
                answer.value, answer.version = value_of(found.item), found.version
        version = 0 if found is None else found.version
        return OK if version >= expected else STALE_READ

    async def _write(self, lane: str, key: str) -> str:
        self._sequence += 1
        name = WriteName(self._writer, self._sequence)
        item = make_item(self._key_attribute, key, name, self._config.item_bytes)
        table = self._config.table
        try:
            with self._recorded(lane, key, Kind.PUT, value_named(name)) as answer:
                version = await self._client.put_item(table, item, timeout_s=self._config.timeout_s)
                answer.version = version
        except KeyplaneError as error:
            if not error.definite:
                self.unknown_writes += 1
                self._log(LoggedWrite(table, key, name, None, digest_of(item)))
            raise
        self._log(LoggedWrite(table, key, name, version, digest_of(item)))
        self.acknowledged_writes += 1
        if version > self._acknowledged.get(key, 0):
            self._acknowledged[key] = version
        return OK

    def _recorded(
        self, lane: str, key: str, kind: Kind, value: str | None = None
    ) -> AbstractContextManager[Answer]:
        if self._history is None:
            return contextlib.nullcontext(Answer())
        return self._history.call(lane, f"{self._config.table}/{key}", kind, value=value)

    def _log(self, write: LoggedWrite) -> None:
        if self._ack_log is not None:
            self._ack_log.append(write)
