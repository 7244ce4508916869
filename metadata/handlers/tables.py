"""CreateTable, DescribeTable, UpdateTable, ListTables, DeleteTable."""

from __future__ import annotations

from bisect import bisect_right

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.tenants import Role
from metadata.access import sees
from metadata.handlers.checks import check_new_table, check_settings, invalid, page_size
from metadata.handlers.dispatch import Answer, Handling, Parts
from metadata.handlers.page_tokens import make_token, read_token
from metadata.kinds import create_table, delete_table, update_table


def _create(parts: Parts, request: pb.CreateTableRequest, answer: Answer) -> None:
    check_new_table(request)
    parts.begin(
        lambda catalog: create_table.begin(parts.world, catalog, request),
        answer,
        lambda operation: pb.CreateTableResponse(operation=operation),
    )


def _describe(parts: Parts, request: pb.DescribeTableRequest, answer: Answer) -> None:
    table = parts.world.catalog.table(request.table)
    map_ = parts.world.catalog.maps.get(table.table_id)
    answer(
        pb.DescribeTableResponse(
            table=parts.table_to_proto(table),
            map_version=table.map_version,
            partition_count=map_.count if map_ is not None else 0,
        )
    )


def _update(parts: Parts, request: pb.UpdateTableRequest, answer: Answer) -> None:
    throughput = request.HasField("provisioned") or request.HasField("on_demand")
    if not (request.durability or request.capacity_mode or throughput):
        raise invalid(
            "there is nothing to update; name a durability, a capacity mode or a throughput"
        )
    check_settings(request)
    parts.begin(
        lambda catalog: update_table.begin(parts.world, catalog, request),
        answer,
        lambda operation: pb.UpdateTableResponse(operation=operation),
    )


def _list(parts: Parts, request: pb.ListTablesRequest, answer: Answer) -> None:
    """The caller's, by name. The token is the last name shown."""
    size = page_size(request.page_size)
    after = read_token("tables", request.page_token)
    by_name = parts.world.catalog.by_name
    names = sorted(
        name for name, table in by_name.items() if not table.deleted and sees(parts.caller, name)
    )
    first = bisect_right(names, after.decode(errors="replace")) if after is not None else 0
    page = names[first : first + size]
    more = first + size < len(names)
    answer(
        pb.ListTablesResponse(
            tables=[parts.table_to_proto(by_name[name]) for name in page],
            next_page_token=make_token("tables", page[-1].encode()) if more else "",
        )
    )


def _delete(parts: Parts, request: pb.DeleteTableRequest, answer: Answer) -> None:
    parts.begin(
        lambda catalog: delete_table.begin(parts.world, catalog, request),
        answer,
        lambda operation: pb.DeleteTableResponse(operation=operation),
    )


METHODS = {
    "CreateTable": Handling(pb.CreateTableRequest, _create, Role.ADMIN),
    "DescribeTable": Handling(pb.DescribeTableRequest, _describe, Role.READ),
    "UpdateTable": Handling(pb.UpdateTableRequest, _update, Role.ADMIN),
    "ListTables": Handling(pb.ListTablesRequest, _list, Role.READ),
    "DeleteTable": Handling(pb.DeleteTableRequest, _delete, Role.ADMIN),
}
