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
from keyplane.model.limits import TABLE_UNITS_MAX, WARM_READ_UNITS, WARM_WRITE_UNITS


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
    "3,000 read and 1,000 write units a second, and the table twice what it did before; "
    "`provisioned`, the table as many as --read-units and --write-units say."
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
_MAX_HELP = (
    "{} units a second that an on-demand table may use at most, up to 40,000; 0 for no maximum."
)
_WARM_HELP = (
    "{} units a second that an on-demand table may use at once, {:,} to 40,000. They only rise."
)

MaxReadUnits = Annotated[
    int | None,
    typer.Option(min=0, max=TABLE_UNITS_MAX, help=_MAX_HELP.format("Read"), show_default=False),
]
MaxWriteUnits = Annotated[
    int | None,
    typer.Option(min=0, max=TABLE_UNITS_MAX, help=_MAX_HELP.format("Write"), show_default=False),
]
WarmReadUnits = Annotated[
    int | None,
    typer.Option(
        min=WARM_READ_UNITS,
        max=TABLE_UNITS_MAX,
        help=_WARM_HELP.format("Read", WARM_READ_UNITS),
        show_default=False,
    ),
]
WarmWriteUnits = Annotated[
    int | None,
    typer.Option(
        min=WARM_WRITE_UNITS,
        max=TABLE_UNITS_MAX,
        help=_WARM_HELP.format("Write", WARM_WRITE_UNITS),
        show_default=False,
    ),
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
    keyplane table create events --capacity on-demand --max-write-units 500
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
    max_read_units: MaxReadUnits = None,
    max_write_units: MaxWriteUnits = None,
    warm_read_units: WarmReadUnits = None,
    warm_write_units: WarmWriteUnits = None,
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
            on_demand=_on_demand(
                max_read_units, max_write_units, warm_read_units, warm_write_units
            ),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return carry_out(session, request, pb.CreateTableResponse, f"creating table {name}")


_UPDATE_EXAMPLES = """
    keyplane table update events --capacity unlimited
    keyplane table update orders --read-units 1000 --write-units 100
    keyplane table update readings --durability process
    keyplane table update events --warm-write-units 20000 --max-write-units 0
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
    max_read_units: MaxReadUnits = None,
    max_write_units: MaxWriteUnits = None,
    warm_read_units: WarmReadUnits = None,
    warm_write_units: WarmWriteUnits = None,
) -> int:
    """Changes a table's settings, while it is used."""
    provisioned = _provisioned(read_units, write_units)
    on_demand = _on_demand(max_read_units, max_write_units, warm_read_units, warm_write_units)
    if durability is None and capacity is None and provisioned is None and on_demand is None:
        raise typer.BadParameter(
            "name what to change: --durability, --capacity, or --read-units and --write-units; of"
            " an on-demand table --max-read-units, --max-write-units, --warm-read-units or"
            " --warm-write-units"
        )
    request = pb.UpdateTableRequest(table=name, provisioned=provisioned, on_demand=on_demand)
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


def _on_demand(
    max_reads: int | None, max_writes: int | None, warm_reads: int | None, warm_writes: int | None
) -> catalog.OnDemandThroughput | None:
    on_demand = catalog.OnDemandThroughput(
        max_read_units=max_reads,
        max_write_units=max_writes,
        warm_read_units=warm_reads,
        warm_write_units=warm_writes,
    )
    return on_demand if on_demand.ListFields() else None


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
