"""I10: bad input is refused with a reason that every gRPC tool can read, counted, and changes
nothing."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from live_tools import admin, cluster_of, counter, create_table, partitions, refusal

from keyplane import Client
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.data.v1 import data_pb2 as data
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.items import to_item
from keyplane.route.v1 import route_pb2 as route
from keyplane.storage.v1 import storage_pb2 as storage

pytestmark = pytest.mark.cluster

INVALID = grpc.StatusCode.INVALID_ARGUMENT
DATA = "/keyplane.data.v1.DataService"
METADATA = "/keyplane.metadata.v1.MetadataService"

# A field of wire type 7, which there is none of.
GARBAGE = b"\xff\xff\xff\xff\x07garbage"

SERVICES = {
    "router-1": (data.DESCRIPTOR, ["DataService"]),
    "router-1 (routes)": (route.DESCRIPTOR, ["RouteService"]),
    "storage-1": (
        storage.DESCRIPTOR,
        ["StorageService", "OwnershipService", "TransferService"],
    ),
    "metadata": (metadata.DESCRIPTOR, ["MetadataService"]),
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    config = ClusterConfig(memds=1, routers=1, storage=1)
    with cluster_of(tmp_path_factory.mktemp("bad-input"), config) as running:
        create_table(running, "good")
        with Client(running.addresses(Kind.ROUTER)) as client:
            for number in range(10):
                client.put_item("good", {"id": str(number), "number": number})
        yield running


@pytest.fixture(autouse=True)
def nothing_changes(cluster: Cluster) -> Iterator[None]:
    """Items, partitions and operations are afterwards what they were."""
    before = everything(cluster)
    yield
    assert everything(cluster) == before


def everything(cluster: Cluster) -> tuple[object, ...]:
    with admin(cluster) as control, Client(cluster.addresses(Kind.ROUTER)) as client:
        listed = control.call(metadata.ListOperationsRequest(), metadata.ListOperationsResponse)
        nodes = control.call(metadata.ListNodesRequest(), metadata.ListNodesResponse).nodes
        items = sorted(client.scan("good", consistent=True), key=lambda item: str(item["id"]))
        return (
            [operation.operation_id for operation in listed.operations],
            [each.node for each in nodes],
            partitions(cluster, "good"),
            items,
        )


@pytest.fixture
def router(cluster: Cluster) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(cluster.addresses(Kind.ROUTER)[0]) as channel:
        yield channel


@pytest.mark.parametrize("place", SERVICES)
def test_bytes_that_are_no_message_are_malformed_for_every_method(
    cluster: Cluster, place: str
) -> None:
    member = place.split()[0]
    file, names = SERVICES[place]
    paths = [
        f"/{service.full_name}/{method.name}"
        for service in map(file.services_by_name.__getitem__, names)
        for method in service.methods
    ]
    labels = {"reason": "MALFORMED_REQUEST"}
    before = counter(cluster, member, "keyplane_rpc_errors_total", **labels)
    with grpc.insecure_channel(cluster.state().members[member].address) as channel:
        answers = {path: refusal(channel, path, GARBAGE) for path in paths}
    assert answers == dict.fromkeys(paths, (INVALID, "MALFORMED_REQUEST"))
    counted = counter(cluster, member, "keyplane_rpc_errors_total", **labels) - before
    assert counted == len(paths)


def put(item: dict[str, object], table: str = "good") -> tuple[str, bytes]:
    request = data.PutItemRequest(table=table, item=to_item(item))
    return f"{DATA}/PutItem", request.SerializeToString()


def batch_of(count: int) -> tuple[str, bytes]:
    writes = [data.WriteRequest(put=to_item({"id": f"batch {n}"})) for n in range(count)]
    request = data.BatchWriteItemRequest(requests={"good": data.TableWrites(writes=writes)})
    return f"{DATA}/BatchWriteItem", request.SerializeToString()


def batch_get_of(count: int) -> tuple[str, bytes]:
    keys = [to_item({"id": f"batch {n}"}) for n in range(count)]
    request = data.BatchGetItemRequest(requests={"good": data.TableKeys(keys=keys)})
    return f"{DATA}/BatchGetItem", request.SerializeToString()


def bad_token() -> tuple[str, bytes]:
    token = data.WriteToken(client_id=b"short", sequence=1)
    request = data.PutItemRequest(table="good", item=to_item({"id": "token"}), token=token)
    return f"{DATA}/PutItem", request.SerializeToString()


REFUSED = {
    "oversized item": (put({"id": "1", "data": b"." * 410_000}), INVALID, "ITEM_TOO_LARGE"),
    "oversized batch of writes": (batch_of(26), INVALID, "BATCH_TOO_LARGE"),
    "oversized batch of reads": (batch_get_of(101), INVALID, "BATCH_TOO_LARGE"),
    "wrong key type": (put({"id": 1}), INVALID, "WRONG_KEY_TYPE"),
    "missing key": (put({"name": "Ada"}), INVALID, "MISSING_KEY"),
    "token of another length": (bad_token(), INVALID, "INVALID_ARGUMENT"),
    "unknown table": (
        put({"id": "1"}, "nowhere"),
        grpc.StatusCode.NOT_FOUND,
        "TABLE_NOT_FOUND",
    ),
    "unknown method": (
        (f"{DATA}/DropEverything", b""),
        grpc.StatusCode.UNIMPLEMENTED,
        "UNKNOWN_METHOD",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_router_refuses_by_name(cluster: Cluster, router: grpc.Channel, case: str) -> None:
    (path, payload), code, reason = REFUSED[case]
    before = counter(cluster, "router-1", "keyplane_rpc_errors_total", reason=reason)
    assert refusal(router, path, payload) == (code, reason)
    after = counter(cluster, "router-1", "keyplane_rpc_errors_total", reason=reason)
    assert after == before + 1


def test_a_deadline_that_passes_is_named_by_the_router_and_kept_by_the_caller(
    cluster: Cluster, router: grpc.Channel
) -> None:
    """A storage node that stands still: the router gives up in its own time and says why."""
    request = data.GetItemRequest(table="good", key=to_item({"id": "1"})).SerializeToString()
    labels = {"reason": "DEADLINE_EXCEEDED"}
    before = counter(cluster, "router-1", "keyplane_rpc_errors_total", **labels)
    cluster.pause("storage-1")
    try:
        # A caller's own deadline ends the call at the caller.
        with pytest.raises(grpc.RpcError) as late:
            router.unary_unary(f"{DATA}/GetItem")(request, timeout=0.05)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # Without one, the router's default holds.
        answer = refusal(router, f"{DATA}/GetItem", request, timeout_s=None)
        assert answer == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    finally:
        cluster.resume("storage-1")
    assert counter(cluster, "router-1", "keyplane_rpc_errors_total", **labels) > before


def test_the_metadata_store_refuses_by_name(cluster: Cluster) -> None:
    first, *_, last = partitions(cluster, "good")
    outside = metadata.SplitPartitionRequest(
        table="good", partition_id=first.partition_id, split_hash=last.start + 1
    )
    strangers = metadata.MergePartitionsRequest(
        table="good", left_id=first.partition_id, right_id=last.partition_id
    )
    nowhere = metadata.MovePartitionRequest(
        table="good", partition_id=first.partition_id, target_node_id="storage-9"
    )
    refused = {
        "SplitPartition": (outside, INVALID, "SPLIT_KEY_OUTSIDE_RANGE"),
        "MergePartitions": (strangers, INVALID, "NOT_NEIGHBOURS"),
        "MovePartition": (nowhere, grpc.StatusCode.NOT_FOUND, "NODE_NOT_FOUND"),
        "DescribeTable": (
            metadata.DescribeTableRequest(table="nowhere"),
            grpc.StatusCode.NOT_FOUND,
            "TABLE_NOT_FOUND",
        ),
    }
    with grpc.insecure_channel(cluster.addresses(Kind.METADATA)[0]) as channel:
        for method, (request, code, reason) in refused.items():
            before = counter(cluster, "metadata", "keyplane_rpc_errors_total", reason=reason)
            answer = refusal(channel, f"{METADATA}/{method}", request.SerializeToString())
            assert answer == (code, reason)
            after = counter(cluster, "metadata", "keyplane_rpc_errors_total", reason=reason)
            assert after == before + 1
