"""Recorded load: lanes that read and write a few keys, and write down what they were answered.

It runs on a thread of its own, so that a scenario is plain code from top to bottom.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

from keyplane import AsyncClient, KeyplaneError, Reason
from keyplane.client.config import ClientConfig
from keyplane.history.operation import Kind, Operation, Outcome

LANES = 12
# Between two requests of a lane.
PAUSE_S = 0.012

# Long enough to outlive a router that hangs, and to be tried again after a process has come back.
CONFIG = ClientConfig(timeout_s=3.0, attempt_timeout_s=0.6)

_VALUE = "v"

# What a lane does, and how often.
_READ, _STALE_READ, _PUT, _CREATE, _REPLACE, _DELETE = range(6)
_MIX = [_READ] * 9 + [_STALE_READ] * 1 + [_PUT] * 5 + [_CREATE] * 2 + [_REPLACE] * 2 + [_DELETE]


class Load:
    """Call `start`, then `stop`. `operations` may be looked at all the time.

    routers: addresses of those to go through.
    """

    def __init__(
        self, routers: Sequence[str], table: str, keys: Sequence[str], seed: int, lanes: int = LANES
    ) -> None:
        self.operations: list[Operation] = []
        # When what has not been answered yet was asked for, by lane.
        self.in_flight: dict[str, float] = {}
        self._routers = routers
        self._table = table
        self._keys = keys
        self._seed = seed
        self._lanes = lanes
        # The last version seen of each key, for conditions.
        self._versions: dict[str, int] = {}
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns once every request has ended. Raises what a lane raised that is no answer."""
        self._stopping = True
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), "a request never ended"
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._all_lanes())
        except BaseException as failure:  # noqa: BLE001 - told by `stop`
            self._failure = failure

    async def _all_lanes(self) -> None:
        async with AsyncClient(self._routers, CONFIG) as client:
            await asyncio.gather(*(self._lane(client, number) for number in range(self._lanes)))
            # What is there in the end is part of the history: it has to be explained too.
            for key in self._keys:
                await self._read(client, "end", key, consistent=True)

    async def _lane(self, client: AsyncClient, number: int) -> None:
        rng = random.Random(f"{self._seed}/{number}")
        lane = f"lane-{number}"
        count = 0
        while not self._stopping:
            count += 1
            await self._one(client, rng, lane, f"{lane}/{count}")
            await asyncio.sleep(PAUSE_S)

    async def _one(self, client: AsyncClient, rng: random.Random, lane: str, value: str) -> None:
        key = rng.choice(self._keys)
        what = rng.choice(_MIX)
        version = self._versions.get(key)
        if what in (_READ, _STALE_READ):
            await self._read(client, lane, key, consistent=what == _READ)
        elif what == _PUT:
            await self._put(client, lane, key, value)
        elif what == _CREATE:
            await self._put(client, lane, key, value, exists=False)
        elif what == _REPLACE and version is not None:
            await self._put(client, lane, key, value, version_equals=version)
        else:
            await self._delete(client, lane, key)

    async def _read(self, client: AsyncClient, lane: str, key: str, consistent: bool) -> None:
        kind = Kind.READ if consistent else Kind.STALE_READ

        async def read() -> dict[str, object]:
            found = await client.get_versioned(self._table, {"id": key}, consistent=consistent)
            if found is None:
                return {}
            self._versions[key] = found.version
            return {"value": str(found.item[_VALUE]), "version": found.version}

        await self._record(lane, key, kind, read)

    async def _put(
        self,
        client: AsyncClient,
        lane: str,
        key: str,
        value: str,
        exists: bool | None = None,
        version_equals: int | None = None,
    ) -> None:
        async def put() -> dict[str, object]:
            item = {"id": key, _VALUE: value}
            version = await client.put_item(
                self._table, item, if_exists=exists, if_version=version_equals
            )
            self._versions[key] = version
            return {"version": version}

        await self._record(
            lane, key, Kind.PUT, put, value=value, exists=exists, version_equals=version_equals
        )

    async def _delete(self, client: AsyncClient, lane: str, key: str) -> None:
        async def delete() -> dict[str, object]:
            return {"existed": await client.delete_item(self._table, {"id": key})}

        await self._record(lane, key, Kind.DELETE, delete)

    async def _record(
        self,
        lane: str,
        key: str,
        kind: Kind,
        call: Callable[[], Awaitable[dict[str, object]]],
        **asked: object,
    ) -> None:
        invoked_at = self.in_flight[lane] = time.monotonic()
        outcome, reason, answer = Outcome.OK, "", {}
        try:
            answer = await call()
        except KeyplaneError as error:
            outcome, reason = _outcome(error), error.reason.name
        self.operations.append(
            Operation(
                lane, key, kind, invoked_at, time.monotonic(), outcome,
                reason=reason, **(asked | answer),
            )
        )  # fmt: skip
        del self.in_flight[lane]


def _outcome(error: KeyplaneError) -> Outcome:
    if error.reason is Reason.CONDITION_FAILED:
        return Outcome.CONDITION_FAILED
    return Outcome.FAILED if error.definite else Outcome.UNKNOWN
