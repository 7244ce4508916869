"""The table a workload runs on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.client.admin import AsyncAdminClient
from keyplane.client.aio import AsyncClient
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.errors import KeyplaneError, Reason

_KEY = "id"

# Seconds that routers have to learn of a new table. One that was asked for it before it was made
# says for half a second that there is none.
_KNOWN_WITHIN_S = 10.0
_POLL_S = 0.05

# What a router answers about a key that does not fit the table, once it knows the table.
_WRONG_KEY = (Reason.MISSING_KEY, Reason.WRONG_KEY_TYPE, Reason.INVALID_ARGUMENT)


async def ensure_table(
    routers: Sequence[str], metadata_address: Callable[[], str], name: str, partitions: int
) -> str:
    """Makes the table if there is none, and returns the name of its partition key.

    The Metadata Store is asked only when a table has to be made: a workload on an existing one
    starts without it. Raises KeyplaneError: INVALID_ARGUMENT for a table with another kind of key,
    and what creating one can fail with.
    """
    async with AsyncClient(routers) as client:
        table = await _find(client, name)
    if table is not None:
        return _key_of(table)
    async with AsyncAdminClient(metadata_address()) as admin:
        request = metadata.CreateTableRequest(
            table=name,
            partition_key=catalog.KeyAttribute(name=_KEY, type=catalog.SCALAR_TYPE_STRING),
            partitions=partitions,
        )
        try:
            await admin.run(request)
        except KeyplaneError as error:
            # Made a moment ago by somebody else, and no router has heard of it yet.
            if error.reason is not Reason.TABLE_EXISTS:
                raise
    await asyncio.gather(*(_wait_known(router, name) for router in routers))
    async with AsyncClient(routers) as client:
        return await find_key_attribute(client, name)


async def _wait_known(router: str, name: str) -> None:
    """Returns when a router knows the table, or cannot be asked. Raises TABLE_NOT_FOUND."""
    give_up = time.monotonic() + _KNOWN_WITHIN_S
    async with AsyncClient([router]) as client:
        while True:
            try:
                await client.explain(name, {_KEY: "-"})
                return
            except KeyplaneError as error:
                if error.reason is not Reason.TABLE_NOT_FOUND:
                    return
                if time.monotonic() > give_up:
                    raise
            await asyncio.sleep(_POLL_S)


async def find_key_attribute(client: AsyncClient, name: str) -> str:
    """Name of the partition key of a table that is there. Raises KeyplaneError(TABLE_NOT_FOUND)."""
    table = await _find(client, name)
    if table is None:
        raise KeyplaneError(Reason.TABLE_NOT_FOUND, f"table {name!r} does not exist any more")
    return _key_of(table)


def _key_of(table: catalog.Table) -> str:
    if table.HasField("sort_key") or table.partition_key.type != catalog.SCALAR_TYPE_STRING:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"a workload needs a string partition key and no sort key, which {table.name!r} does "
            "not have; name another table with --table, and it is made if it is missing",
        )
    return table.partition_key.name


async def _find(client: AsyncClient, name: str) -> catalog.Table | None:
    try:
        # Makes the router look the table up; the key is wrong unless it happens to be named so.
        await client.explain(name, {_KEY: "-"})
    except KeyplaneError as error:
        if error.reason is Reason.TABLE_NOT_FOUND:
            return None
        if error.reason not in _WRONG_KEY:
            raise
    for view in (await client.describe_router()).tables:
        if view.table.name == name:
            return view.table
    return None
