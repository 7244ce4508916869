"""Throttling on a live cluster: how much is let through, what callers are told, and the way out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from granter.config import GranterConfig
from keyplane import AdminClient, BatchIncomplete, Client, ClientConfig, Put, Throttled
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.data.v1 import data_pb2 as data
from keyplane.granter.v1 import granter_pb2, granter_pb2_grpc
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import to_item

pytestmark = pytest.mark.cluster

# Every refusal is told to the caller.
NO_RETRIES = ClientConfig(attempts_max=1)

# More than a partition does, where a table may do more.
PARTITION_REASON = "TableWriteKeyRangeThroughputExceeded"

# 100 write units, 25 read units.
LARGE = "x" * (100 * 1024 - 40)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(home=tmp_path_factory.mktemp("throttling"))
    try:
        running.up(ClusterConfig(memds=1, routers=2, storage=1))
        # What is hot here is to stay so.
        with AdminClient(running.addresses(Kind.METADATA)[0]) as admin:
            off = metadata.SetPlannerRequest(mode=metadata.PLANNER_MODE_OFF)
            admin.call(off, metadata.SetPlannerResponse)
        yield running
    finally:
        running.down(wipe=True)


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[AdminClient]:
    with AdminClient(cluster.addresses(Kind.METADATA)[0]) as admin:
        yield admin


def create(
    admin: AdminClient,
    name: str,
    partitions: int = 1,
    provisioned: catalog.ProvisionedThroughput | None = None,
    on_demand: catalog.OnDemandThroughput | None = None,
) -> None:
    """On-demand, unless it is provisioned."""
    is_on_demand = provisioned is None
    admin.run(
        metadata.CreateTableRequest(
            table=name,
            partition_key=catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING),
            partitions=partitions,
            capacity_mode=catalog.CAPACITY_MODE_ON_DEMAND
            if is_on_demand
            else catalog.CAPACITY_MODE_PROVISIONED,
            provisioned=provisioned,
            on_demand=on_demand,
        )
    )


def write(client: Client, table: str, seconds: float, users: int = 1) -> Counter[str]:
    """Writes large items one after the other and counts how each call ended."""
    ends: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            user = f"user-{1 + sum(ends.values()) % users}"
            client.put_item(table, {"id": user, "value": LARGE})
            ends["written"] += 1
        except Throttled as error:
            ends[error.metadata["reason"]] += 1
    return ends


def test_a_partition_lets_as_much_through_as_it_may(cluster: Cluster, admin: AdminClient) -> None:
    """1,000 units a second and those of one second saved up; and only then is it throttled."""
    create(admin, "orders")
    with Client(cluster.addresses(Kind.ROUTER), config=NO_RETRIES) as client:
        began = time.monotonic()
        ends = write(client, "orders", 3.0)
        took_s = time.monotonic() - began
        # The first second of a router's life with the table may go to finding it.
        assert ends["written"] == pytest.approx(10 * (1 + took_s), rel=0.1)
        assert ends[PARTITION_REASON] > ends["written"]
        found = client.get_item("orders", {"id": "user-1"}, consistent=True)
        assert found is not None
        assert found["value"] == LARGE


def test_grpc_callers_get_dynamodbs_reason_and_when_to_come_back(
    cluster: Cluster, admin: AdminClient
) -> None:
    create(admin, "bare")
    address = cluster.addresses(Kind.ROUTER)[0]
    request = data.PutItemRequest(table="bare", item=to_item({"id": "x", "value": LARGE}))
    with grpc.insecure_channel(address) as channel:
        put = channel.unary_unary(
            "/keyplane.data.v1.DataService/PutItem",
            request_serializer=data.PutItemRequest.SerializeToString,
            response_deserializer=data.PutItemResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as raised:
            for _ in range(1000):
                put(request, timeout=5)
    error = raised.value
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert info.metadata["reason"] == PARTITION_REASON
    assert info.metadata["resource"] == "arn:aws:dynamodb:local:000000000000:table/bare"
    assert 0 < retry.retry_delay.ToTimedelta().total_seconds() < 1


def test_the_client_waits_out_what_it_has_retries_for(cluster: Cluster, admin: AdminClient) -> None:
    create(admin, "patient")
    with Client(cluster.addresses(Kind.ROUTER)) as client:
        began = time.monotonic()
        for _ in range(25):
            client.put_item("patient", {"id": "user-1", "value": LARGE})
        assert time.monotonic() - began > 1.0


def test_batches_come_back_in_part(cluster: Cluster, admin: AdminClient) -> None:
    """What went through is there, and what did not is given back."""
    create(admin, "batches")
    puts = [Put({"id": f"user-{number}", "value": LARGE}) for number in range(10)]
    with Client(cluster.addresses(Kind.ROUTER)) as client:
        admin.run(
            metadata.SplitPartitionRequest(table="batches", partition_id=_only(admin, "batches"))
        )
        client.batch_write({"batches": puts})
        with (
            Client(cluster.addresses(Kind.ROUTER), config=NO_RETRIES) as impatient,
            pytest.raises((BatchIncomplete, Throttled)),
        ):
            for _ in range(50):
                impatient.batch_write({"batches": puts})
        found = client.batch_get(
            {"batches": [{"id": f"user-{number}"} for number in range(10)]}, consistent=True
        )
        assert len(found["batches"]) == 10


def test_an_update_lifts_the_limit(cluster: Cluster, admin: AdminClient) -> None:
    create(admin, "lifted")
    with Client(cluster.addresses(Kind.ROUTER), config=NO_RETRIES) as client:
        assert write(client, "lifted", 0.5)[PARTITION_REASON]
        unlimited = catalog.CAPACITY_MODE_UNLIMITED
        admin.run(metadata.UpdateTableRequest(table="lifted", capacity_mode=unlimited))
        # The partition is told at once; routers, which limit the table, hear of it in MemDS.
        time.sleep(1.0)
        assert set(write(client, "lifted", 0.5)) == {"written"}


def test_a_provisioned_table_does_its_rate_over_all_routers_and_without_a_granter_more(
    cluster: Cluster, admin: AdminClient
) -> None:
    """200 units a second are two of the large items, whichever router they come through."""
    units = catalog.ProvisionedThroughput(read_capacity_units=100, write_capacity_units=200)
    create(admin, "provisioned", partitions=8, provisioned=units)
    reason = "TableWriteProvisionedThroughputExceeded"
    with Client(cluster.addresses(Kind.ROUTER), config=NO_RETRIES) as client:
        # What the table has saved up since the granter started.
        _spend(cluster, client, "provisioned")
        ends = write(client, "provisioned", 5.0, users=100)
        assert ends["written"] == pytest.approx(10, abs=3)
        assert ends[reason] > ends["written"]
        # Reads have units of their own.
        assert client.get_item("provisioned", {"id": "user-1"}, consistent=True)

        cluster.kill("granter")
        time.sleep(GranterConfig().valid_s)
        assert set(write(client, "provisioned", 2.0, users=100)) <= {"written", PARTITION_REASON}
        cluster.restart("granter")
        _spend(cluster, client, "provisioned")
        ends = write(client, "provisioned", 5.0, users=100)
        assert ends["written"] == pytest.approx(10, abs=3)


def test_a_new_on_demand_table_does_what_it_starts_with_over_all_its_partitions(
    cluster: Cluster, admin: AdminClient
) -> None:
    """4,000 units a second are 40 of the large items, and eight partitions would do twice that."""
    create(admin, "growing", partitions=8)
    with Client(cluster.addresses(Kind.ROUTER), config=NO_RETRIES) as client:
        write(client, "growing", 2.0, users=100)
        began = time.monotonic()
        ends = write(client, "growing", 4.0, users=100)
        took_s = time.monotonic() - began
        assert ends["written"] == pytest.approx(40 * took_s, rel=0.2)
        # To callers it is one with a limit of partitions, which are what has to grow.
        assert ends[PARTITION_REASON]
        with pytest.raises(Throttled, match="twice its peak"):
            for number in range(1000):
                client.put_item("growing", {"id": f"user-{number % 100}", "value": LARGE})


def test_an_on_demand_table_keeps_to_its_maximum_until_that_is_taken_away(
    cluster: Cluster, admin: AdminClient
) -> None:
    create(admin, "capped", partitions=8, on_demand=catalog.OnDemandThroughput(max_write_units=500))
    reason = "TableWriteMaxOnDemandThroughputExceeded"
    with Client(cluster.addresses(Kind.ROUTER), config=NO_RETRIES) as client:
        write(client, "capped", 2.0, users=100)
        ends = write(client, "capped", 4.0, users=100)
        assert ends["written"] == pytest.approx(5 * 4, abs=4)
        assert ends[reason] > ends["written"]
        # Reads have a maximum of their own, which is none.
        assert client.get_item("capped", {"id": "user-1"}, consistent=True)
        uncapped = catalog.OnDemandThroughput(max_write_units=0)
        admin.run(metadata.UpdateTableRequest(table="capped", on_demand=uncapped))
        # Routers hear of it in MemDS, and of the new rate with the next grant.
        time.sleep(2.0)
        assert reason not in write(client, "capped", 1.0, users=100)


def test_a_granter_that_is_gone_costs_an_on_demand_table_nothing(
    cluster: Cluster, admin: AdminClient
) -> None:
    """The limits of partitions remain; with a new granter its maximum is back."""
    create(admin, "alone", partitions=8, on_demand=catalog.OnDemandThroughput(max_write_units=500))
    reason = "TableWriteMaxOnDemandThroughputExceeded"
    with Client(cluster.addresses(Kind.ROUTER), config=NO_RETRIES) as client:
        assert write(client, "alone", 2.0, users=100)[reason]
        cluster.kill("granter")
        time.sleep(GranterConfig().valid_s)
        assert set(write(client, "alone", 2.0, users=100)) <= {"written", PARTITION_REASON}
        cluster.restart("granter")
        write(client, "alone", 2.0, users=100)
        ends = write(client, "alone", 4.0, users=100)
        assert ends["written"] == pytest.approx(5 * 4, abs=4)
        assert ends[reason]


def test_changing_modes_too_often_is_refused_with_when_it_is_possible_again(
    admin: AdminClient,
) -> None:
    units = catalog.ProvisionedThroughput(read_capacity_units=5, write_capacity_units=5)
    create(admin, "fickle", provisioned=units)
    provisioned = metadata.UpdateTableRequest(
        table="fickle", capacity_mode=catalog.CAPACITY_MODE_PROVISIONED, provisioned=units
    )
    on_demand = metadata.UpdateTableRequest(
        table="fickle", capacity_mode=catalog.CAPACITY_MODE_ON_DEMAND
    )
    for _ in range(4):
        admin.run(on_demand)
        admin.run(provisioned)
    with pytest.raises(KeyplaneError, match="4 times within 24 hours") as raised:
        admin.run(on_demand)
    error = raised.value
    assert error.reason is Reason.LIMIT_EXCEEDED
    assert error.retry_after_s == pytest.approx(24 * 3600, abs=600)
    assert error.metadata["possible_at"] in error.message
    # Everything else goes on.
    units.read_capacity_units = 50
    admin.run(metadata.UpdateTableRequest(table="fickle", provisioned=units))


def _spend(cluster: Cluster, client: Client, table: str) -> None:
    """Writes until nothing is left of a provisioned table, and both routers know it."""
    with grpc.insecure_channel(cluster.addresses(Kind.GRANTER)[0]) as channel:
        granter = granter_pb2_grpc.GranterServiceStub(channel)
        for _ in range(60):
            ends = write(client, table, 0.5, users=100)
            budgets = granter.ListBudgets(granter_pb2.ListBudgetsRequest(), timeout=5).tables
            if any(
                each.writes.routers == 2 and each.writes.level < each.writes.units_per_second
                for each in budgets
            ) and ends["written"] < sum(ends.values()):
                return
    pytest.fail("it was never throttled")


def _only(admin: AdminClient, table: str) -> int:
    listed = admin.call(
        metadata.ListPartitionsRequest(table=table), metadata.ListPartitionsResponse
    )
    (partition,) = listed.partitions
    return partition.partition_id
