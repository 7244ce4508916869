"""Commands that read and write items, and the one that says where a key lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from keyplane.cli.output import EXIT_NO, EXIT_OK
from keyplane.cli.render import (
    hash_text,
    item_json,
    parse_item,
    parse_key,
    partition_facts,
    plain,
)
from keyplane.cli.session import Session, command
from keyplane.client.capacity import Spent
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.route.v1 import route_pb2 as route
from keyplane.workload.table import find_table

_T = TypeVar("_T")

TableName = Annotated[
    str,
    typer.Option(
        "--table",
        "-t",
        envvar="KEYPLANE_TABLE",
        help="Which table.",
        show_default="the only one there is",
    ),
]
Key = Annotated[
    str,
    typer.Argument(
        help="The partition key's value, or a whole key as JSON: "
        + escape("""'{"artist": "Miles Davis", "song": "So What"}'.""")
    ),
]
SortKey = Annotated[str | None, typer.Option("--sort", help="The sort key's value.")]
Capacity = Annotated[
    bool, typer.Option("--capacity", help="Also say how many capacity units it took.")
]


def register(app: typer.Typer) -> None:
    command(app, "route", _ROUTE_EXAMPLES)(route_)
    command(app, "get", _GET_EXAMPLES)(get)
    command(app, "put", _PUT_EXAMPLES)(put)
    command(app, "delete", _DELETE_EXAMPLES)(delete)


_ROUTE_EXAMPLES = """
    keyplane route user-1                    where this key lives, if there is one table
    keyplane route user-1 --table music
    keyplane route '{"artist": "Miles Davis", "song": "So What"}' -t music
"""


def route_(session: Session, key: Key, table: TableName = "", sort: SortKey = None) -> int:
    """Says where a key lives and how the router knows: hash, partition, epoch, node, source."""
    schema = find_table(session.routers(), table, session.credentials())
    with session.client() as client:
        found = client.explain(schema.name, _argument(lambda: parse_key(key, sort, schema)))
    source = route.RouteSource.Name(found.source).removeprefix("ROUTE_SOURCE_").lower()
    facts = {
        "table": schema.name,
        "key_hash": hash_text(found.key_hash),
        **partition_facts(found.partition),
        "address": found.node.address,
        "source": source,
        "map_version": found.map_version,
        "map_age_ms": found.map_age_ms,
    }
    out = session.out
    out.say(f"key hash   {facts['key_hash']}")
    out.say(
        f"partition  {facts['partition_id']} at epoch {facts['epoch']}, "
        f"hashes {facts['first_hash']} to {facts['last_hash']}"
    )
    out.say(f"node       {facts['leader']} at {facts['address']}")
    out.say(f"known from {source}; map version {found.map_version}, {found.map_age_ms} ms old")
    out.result(facts)
    return EXIT_OK


_GET_EXAMPLES = """
    keyplane get user-1
    keyplane get '{"artist": "Miles Davis", "song": "So What"}' --table music --consistent
    keyplane get user-1 --capacity                     and how many read units that is
"""


def get(
    session: Session,
    key: Key,
    table: TableName = "",
    sort: SortKey = None,
    consistent: Annotated[
        bool, typer.Option("--consistent", help="See every write answered before.")
    ] = False,
    capacity: Capacity = False,
) -> int:
    """Reads an item. Exit code 1 if there is none."""
    schema = find_table(session.routers(), table, session.credentials())
    spent = Spent() if capacity else None
    with session.client() as client:
        wanted = _argument(lambda: parse_key(key, sort, schema))
        found = client.get_versioned(schema.name, wanted, consistent=consistent, spent=spent)
    if found is None:
        session.out.say("there is no such item")
        session.out.result({"item": None, **_told(session, spent)})
        return EXIT_NO
    if not session.as_json:
        session.out.say(escape(item_json(found.item)))
    told = _told(session, spent)
    session.out.result({"item": plain(found.item), "version": found.version, **told})
    return EXIT_OK


_PUT_EXAMPLES = """
    keyplane put '{"id": "user-1", "plan": "free"}'
    keyplane put '{"id": "user-1", "plan": "paid"}' --if-version 1
    keyplane put '{"id": "user-2"}' --if-absent        only if there is none yet
"""


def put(
    session: Session,
    item: Annotated[str, typer.Argument(help="The item as a JSON object.")],
    table: TableName = "",
    if_absent: Annotated[
        bool, typer.Option("--if-absent", help="Only if there is no such item.")
    ] = False,
    if_version: Annotated[
        int | None, typer.Option(help="Only if the item has this version.")
    ] = None,
    capacity: Capacity = False,
) -> int:
    """Writes an item, whole: what was there before is replaced."""
    content = _argument(lambda: parse_item(item))
    schema = find_table(session.routers(), table, session.credentials())
    spent = Spent() if capacity else None
    with session.client() as client:
        version = client.put_item(
            schema.name,
            content,
            if_exists=False if if_absent else None,
            if_version=if_version,
            spent=spent,
        )
    session.out.say(f"written to {schema.name}, version {version}")
    session.out.result({"table": schema.name, "version": version, **_told(session, spent)})
    return EXIT_OK


_DELETE_EXAMPLES = """
    keyplane delete user-1
    keyplane delete user-1 --if-version 3
"""


def delete(
    session: Session,
    key: Key,
    table: TableName = "",
    sort: SortKey = None,
    if_version: Annotated[
        int | None, typer.Option(help="Only if the item has this version.")
    ] = None,
    capacity: Capacity = False,
) -> int:
    """Deletes an item. Exit code 1 if there was none."""
    schema = find_table(session.routers(), table, session.credentials())
    spent = Spent() if capacity else None
    with session.client() as client:
        wanted = _argument(lambda: parse_key(key, sort, schema))
        deleted = client.delete_item(schema.name, wanted, if_version=if_version, spent=spent)
    session.out.say("deleted" if deleted else "there was no such item")
    session.out.result({"table": schema.name, "deleted": deleted, **_told(session, spent)})
    return EXIT_OK if deleted else EXIT_NO


def _told(session: Session, spent: Spent | None) -> dict[str, Any]:
    """Says what was consumed, if that is wanted, and gives what the result has of it."""
    if spent is None:
        return {}
    read, write = spent.total
    session.out.say(f"took {read:g} read units and {write:g} write units")
    return {"read_units": read, "write_units": write}


def _argument(parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except ValueError as error:
        raise KeyplaneError(Reason.INVALID_ARGUMENT, str(error)) from error
