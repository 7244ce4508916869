"""`keyplane table …`: what tables there are and how they are partitioned."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cli.listing import all_partitions, all_tables
from keyplane.cli.operations import carry_out
from keyplane.cli.output import EXIT_OK
from keyplane.cli.render import key_attribute, partition_facts, table_facts
from keyplane.cli.session import Session, command
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.limits import TABLE_UNITS_MAX


class Durability(enum.StrEnum):
    PROCESS = "process"
    POWER = "power"


class Capacity(enum.StrEnum):
    UNLIMITED = "unlimited"
    ON_DEMAND = "on-demand"
    PROVISIONED = "provisioned"


_DURABILITIES = {
    Durability.PROCESS: catalog.DURABILITY_PROCESS,
    Durability.POWER: catalog.DURABILITY_POWER,
}
_CAPACITY_MODES = {
    Capacity.UNLIMITED: catalog.CAPACITY_MODE_UNLIMITED,
    Capacity.ON_DEMAND: catalog.CAPACITY_MODE_ON_DEMAND,
    Capacity.PROVISIONED: catalog.CAPACITY_MODE_PROVISIONED,
}
_DURABILITY_HELP = (
    "When a write is acknowledged: `process`, it survives kill -9; `power`, it survives power loss."
)
_CAPACITY_HELP = (
    "What it may be used: `unlimited`, as much as the machine does; `on-demand`, each partition "
    "3,000 read and 1,000 write units a second, and throttled past that; `provisioned`, the table "
    "as many as --read-units and --write-units say, too."
)
_UNITS_HELP = "{} capacity units a second of a provisioned table, 1 to 40,000."

ReadUnits = Annotated[
    int | None,
    typer.Option(min=1, max=TABLE_UNITS_MAX, help=_UNITS_HELP.format("Read"), show_default=False),
]
WriteUnits = Annotated[
    int | None,
    typer.Option(min=1, max=TABLE_UNITS_MAX, help=_UNITS_HELP.format("Write"), show_default=False),
]
Name = Annotated[str, typer.Argument(help="The table's name.", show_default=False)]


def register(app: typer.Typer) -> None:
    table = typer.Typer(no_args_is_help=True, help="Create, look at, change and delete tables.")
    command(table, "create", _CREATE_EXAMPLES)(create)
    command(table, "update", _UPDATE_EXAMPLES)(update)
    command(table, "list", "keyplane table list")(list_)
    command(table, "describe", "keyplane table describe music")(describe)
    command(table, "delete", "keyplane table delete music")(delete)
    command(table, "partitions", _PARTITIONS_EXAMPLES)(partitions)
    app.add_typer(table, name="table")


_CREATE_EXAMPLES = """
    keyplane table create users
    keyplane table create music --partition-key artist --sort-key song --partitions 8
    keyplane table create readings --sort-key at:number --durability power
    keyplane table create events --capacity on-demand
    keyplane table create orders --capacity provisioned --read-units 500 --write-units 100
"""


def create(
    session: Session,
    name: Name,
    partition_key: Annotated[
        str, typer.Option(help="NAME or NAME:TYPE; types: string, number, binary.")
    ] = "id",
    sort_key: Annotated[str, typer.Option(help="As --partition-key.", show_default="none")] = "",
    partitions: Annotated[int, typer.Option(min=1, help="How many to start with.")] = 4,
    durability: Annotated[Durability, typer.Option(help=_DURABILITY_HELP)] = Durability.PROCESS,
    capacity: Annotated[Capacity, typer.Option(help=_CAPACITY_HELP)] = Capacity.UNLIMITED,
    read_units: ReadUnits = None,
    write_units: WriteUnits = None,
) -> int:
    """Creates a table, its partitions spread over the storage nodes."""
    try:
        request = pb.CreateTableRequest(
            table=name,
            partition_key=key_attribute(partition_key),
            sort_key=key_attribute(sort_key) if sort_key else None,
            partitions=partitions,
            durability=_DURABILITIES[durability],
            capacity_mode=_CAPACITY_MODES[capacity],
            provisioned=_provisioned(read_units, write_units),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return carry_out(session, request, pb.CreateTableResponse, f"creating table {name}")


_UPDATE_EXAMPLES = """
    keyplane table update events --capacity unlimited
    keyplane table update orders --read-units 1000 --write-units 100
    keyplane table update readings --durability process
"""


def update(
    session: Session,
    name: Name,
    durability: Annotated[
        Durability | None, typer.Option(help=_DURABILITY_HELP, show_default="as it is")
    ] = None,
    capacity: Annotated[
        Capacity | None, typer.Option(help=_CAPACITY_HELP, show_default="as it is")
    ] = None,
    read_units: ReadUnits = None,
    write_units: WriteUnits = None,
) -> int:
    """Changes a table's settings, while it is used."""
    provisioned = _provisioned(read_units, write_units)
    if durability is None and capacity is None and provisioned is None:
        raise typer.BadParameter(
            "name what to change: --durability, --capacity, or --read-units and --write-units"
        )
    request = pb.UpdateTableRequest(table=name, provisioned=provisioned)
    if durability is not None:
        request.durability = _DURABILITIES[durability]
    if capacity is not None:
        request.capacity_mode = _CAPACITY_MODES[capacity]
    return carry_out(session, request, pb.UpdateTableResponse, f"updating table {name}")


def _provisioned(
    read_units: int | None, write_units: int | None
) -> catalog.ProvisionedThroughput | None:
    if read_units is None and write_units is None:
        return None
    if read_units is None or write_units is None:
        raise typer.BadParameter("--read-units and --write-units go together; give both")
    return catalog.ProvisionedThroughput(
        read_capacity_units=read_units, write_capacity_units=write_units
    )


def list_(session: Session) -> int:
    """Lists the tables."""
    with session.admin() as admin:
        facts = [table_facts(table) for table in all_tables(admin)]
    columns = ("table", "state", "partition_key", "sort_key", "durability", "capacity")
    session.out.table(
        [column.replace("_", " ") for column in columns],
        ([row[column] for column in columns] for row in facts),
    )
    session.out.result({"tables": facts})
    return EXIT_OK


def describe(session: Session, name: Name) -> int:
    """Shows a table: keys, settings, number of partitions, version of its map."""
    with session.admin() as admin:
        answer = admin.call(pb.DescribeTableRequest(table=name), pb.DescribeTableResponse)
    facts = {
        **table_facts(answer.table),
        "partitions": answer.partition_count,
        "map_version": answer.map_version,
    }
    for fact, value in facts.items():
        session.out.say(f"{fact.replace('_', ' '):<19}{value}")
    session.out.result(facts)
    return EXIT_OK


def delete(session: Session, name: Name) -> int:
    """Deletes a table and every item in it."""
    request = pb.DeleteTableRequest(table=name)
    return carry_out(session, request, pb.DeleteTableResponse, f"deleting table {name}")


_PARTITIONS_EXAMPLES = """
    keyplane table partitions music
    keyplane table partitions music --json | jq '.partitions[0].partition_id'
"""


def partitions(session: Session, name: Name) -> int:
    """Lists a table's partitions in key-hash order, with their nodes and load."""
    with session.admin() as admin:
        found, loads = all_partitions(admin, name)
    facts = []
    for partition in found:
        load = loads.get(partition.partition_id, pb.PartitionLoad())
        facts.append(
            partition_facts(partition)
            | {
                "reads_per_s": round(load.reads_per_second, 1),
                "writes_per_s": round(load.writes_per_second, 1),
                "items": load.item_count,
                "bytes": load.bytes,
            }
        )
    columns = list(facts[0]) if facts else ["partition_id"]
    session.out.table(
        [column.replace("_", " ") for column in columns], (list(row.values()) for row in facts)
    )
    session.out.result({"table": name, "partitions": facts})
    return EXIT_OK
