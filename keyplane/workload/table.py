"""Tables as routers know them, and the table that a workload runs on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.client.admin import AdminClient
from keyplane.client.sync import Client
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.credentials import Credentials
from keyplane.model.errors import KeyplaneError, Reason

_KEY = "id"

# Seconds that routers have to learn of a new table. One that was asked for it before it was made
# says for half a second that there is none.
_KNOWN_WITHIN_S = 10.0
_POLL_S = 0.05

# Seconds in which routers learn of a table that nobody has asked them for: some beats of MemDS.
_HEARD_WITHIN_S = 2.0

# What a router answers about a key that does not fit the table, once it knows the table.
_WRONG_KEY = (Reason.MISSING_KEY, Reason.WRONG_KEY_TYPE, Reason.INVALID_ARGUMENT)

# Why another router is asked instead.
_NOBODY_THERE = (Reason.NODE_UNREACHABLE, Reason.CONNECTION_LOST, Reason.DEADLINE_EXCEEDED)


def find_table(
    routers: Sequence[str], name: str, credentials: Credentials | None = None
) -> catalog.Table:
    """A table's record; without a name, of the only table there is, which may be a new one.

    credentials: as of `Client`, here and below.

    Raises KeyplaneError(TABLE_NOT_FOUND), INVALID_ARGUMENT if there are several to choose from,
    and what asking can fail with.
    """
    known = known_tables(routers, name, credentials)
    give_up = time.monotonic() + _HEARD_WITHIN_S
    while not (known or name) and time.monotonic() < give_up:
        time.sleep(_POLL_S)
        known = known_tables(routers, "", credentials)
    if name in known or (len(known) == 1 and not name):
        return known[name or next(iter(known))]
    if known and not name:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"there are several tables; name one with --table: {', '.join(sorted(known))}",
        )
    raise KeyplaneError(
        Reason.TABLE_NOT_FOUND,
        f"there is no table{f' {name!r}' if name else ''}; make one with `keyplane table create "
        f"{name or 'music'}`",
    )


def known_tables(
    routers: Sequence[str], wanted: str = "", credentials: Credentials | None = None
) -> dict[str, catalog.Table]:
    """The tables that the first router which answers knows, by name.

    wanted: a table that it looks for first, since routers learn tables as they are asked for.
    """
    failure = KeyplaneError(Reason.INVALID_ARGUMENT, "there is no router to ask")
    for router in routers:
        # One router, not a client of all: what one has just learned another may not know.
        with Client([router], credentials=credentials) as client:
            try:
                if wanted:
                    _look_for(client, wanted)
                return {view.table.name: view.table for view in client.describe_router().tables}
            except KeyplaneError as error:
                if error.reason not in _NOBODY_THERE:
                    raise
                failure = error
    raise failure


def ensure_table(
    routers: Sequence[str],
    metadata_address: Callable[[], str],
    name: str,
    partitions: int,
    credentials: Credentials | None = None,
) -> str:
    """Makes the table if there is none, and returns the name of its partition key.

    The Metadata Store is asked only when a table has to be made: a workload on an existing one
    starts without it. Raises KeyplaneError: INVALID_ARGUMENT for a table with another kind of key,
    and what creating one can fail with.
    """
    table = known_tables(routers, name, credentials).get(name)
    if table is not None:
        return key_attribute(table)
    with AdminClient(metadata_address(), credentials=credentials) as admin:
        request = metadata.CreateTableRequest(
            table=name,
            partition_key=catalog.KeyAttribute(name=_KEY, type=catalog.SCALAR_TYPE_STRING),
            partitions=partitions,
        )
        try:
            admin.run(request)
        except KeyplaneError as error:
            # Somebody made it just now, or a router that has just started has not read of it yet.
            if error.reason is not Reason.TABLE_EXISTS:
                raise
    for router in routers:
        _wait_known(router, name, credentials)
    return key_attribute(known_tables(routers, name, credentials)[name])


def key_attribute(table: catalog.Table) -> str:
    """Name of the partition key of a table that a workload can run on.

    Raises KeyplaneError(INVALID_ARGUMENT) for one with another kind of key.
    """
    if table.HasField("sort_key") or table.partition_key.type != catalog.SCALAR_TYPE_STRING:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"a workload needs a string partition key and no sort key, which {table.name!r} does "
            "not have; name another table with --table, and it is made if it is missing",
        )
    return table.partition_key.name


def _wait_known(router: str, name: str, credentials: Credentials | None) -> None:
    """Returns when a router knows the table, or cannot be asked. Raises TABLE_NOT_FOUND."""
    give_up = time.monotonic() + _KNOWN_WITHIN_S
    with Client([router], credentials=credentials) as client:
        while not _look_for(client, name):
            if time.monotonic() > give_up:
                raise KeyplaneError(
                    Reason.TABLE_NOT_FOUND, f"router {router} does not learn of table {name!r}"
                )
            time.sleep(_POLL_S)


def _look_for(client: Client, table: str) -> bool:
    """Makes a router look for a table. False if there is none."""
    try:
        # The key may be wrong: its name is not known yet.
        client.explain(table, {_KEY: "-"})
    except KeyplaneError as error:
        if error.reason is Reason.TABLE_NOT_FOUND:
            return False
        if error.reason not in _WRONG_KEY:
            raise
    return True
