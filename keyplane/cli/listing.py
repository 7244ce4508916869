"""Everything the Metadata Store lists, over all pages."""

from __future__ import annotations

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.client.admin import AdminClient
from keyplane.metadata.v1 import metadata_pb2 as pb


def all_tables(admin: AdminClient) -> list[catalog.Table]:
    found: list[catalog.Table] = []
    token = ""
    while True:
        page = admin.call(pb.ListTablesRequest(page_token=token), pb.ListTablesResponse)
        found.extend(page.tables)
        token = page.next_page_token
        if not token:
            return found


def all_tenants(admin: AdminClient) -> list[catalog.Tenant]:
    found: list[catalog.Tenant] = []
    token = ""
    while True:
        page = admin.call(pb.ListTenantsRequest(page_token=token), pb.ListTenantsResponse)
        found.extend(page.tenants)
        token = page.next_page_token
        if not token:
            return found


def all_partitions(
    admin: AdminClient, table: str
) -> tuple[list[catalog.Partition], dict[int, pb.PartitionLoad]]:
    """In key-hash order, and the loads by partition id, where one was reported."""
    found: list[catalog.Partition] = []
    loads: dict[int, pb.PartitionLoad] = {}
    token = ""
    while True:
        request = pb.ListPartitionsRequest(table=table, page_token=token)
        page = admin.call(request, pb.ListPartitionsResponse)
        found.extend(page.partitions)
        loads.update({load.partition_id: load for load in page.loads})
        token = page.next_page_token
        if not token:
            return found, loads


def recent_operations(admin: AdminClient, active_only: bool, limit: int) -> list[pb.Operation]:
    """In the order in which the Metadata Store lists them, at most `limit`."""
    found: list[pb.Operation] = []
    token = ""
    while True:
        request = pb.ListOperationsRequest(active_only=active_only, page_token=token)
        page = admin.call(request, pb.ListOperationsResponse)
        found.extend(page.operations)
        token = page.next_page_token
        if not token or len(found) >= limit:
            return found[:limit]
