"""Tools that know nothing of Keyplane work with every process: reflection, health, channelz,
metrics, grpcurl."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from live_tools import cluster_of, create_table, scrape
from prometheus_client.parser import text_string_to_metric_families

from keyplane import Client
from keyplane.cluster import Cluster, ClusterConfig, Kind

pytestmark = pytest.mark.cluster

TABLE = "table-nobody-would-guess"
KEY = "key-nobody-would-guess"

SERVED = {
    "metadata": [
        "keyplane.metadata.v1.MetadataService",
        "keyplane.metadata.v1.TenantService",
    ],
    "router-1": ["keyplane.data.v1.DataService", "keyplane.route.v1.RouteService"],
    "storage-1": [
        "keyplane.storage.v1.OwnershipService",
        "keyplane.storage.v1.StorageService",
        "keyplane.storage.v1.TransferService",
    ],
}
STANDARD = [
    "grpc.channelz.v1.Channelz",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    # Refuses everything unless the process was started with --enable-faults.
    "keyplane.fault.v1.FaultService",
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One process of each kind, and one item."""
    config = ClusterConfig(memds=1, routers=1, storage=1)
    with cluster_of(tmp_path_factory.mktemp("tools"), config) as running:
        create_table(running, TABLE)
        with Client(running.addresses(Kind.ROUTER)) as client:
            client.put_item(TABLE, {"id": KEY, "name": "Ada"})
            client.get_item(TABLE, {"id": "not there"})
            assert list(client.scan(TABLE))
        yield running


@pytest.fixture
def channel(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    """To the process that the test's parameter names."""
    with grpc.insecure_channel(cluster.state().members[request.param].address) as channel:
        yield channel


each_process = pytest.mark.parametrize(
    ("channel", "member"), [(name, name) for name in SERVED], indirect=["channel"], ids=str
)


@each_process
def test_reflection_lists_the_services(channel: grpc.Channel, member: str) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert sorted(database.get_services()) == sorted([*SERVED[member], *STANDARD])
    pool = descriptor_pool.DescriptorPool(database)
    for name in database.get_services():
        assert pool.FindServiceByName(name).methods, name


@pytest.mark.parametrize("channel", ["router-1"], indirect=True)
def test_an_item_is_read_with_nothing_but_reflection(channel: grpc.Channel) -> None:
    """No stub of Keyplane's takes part: types come from the server, the request from JSON."""
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service = pool.FindServiceByName("keyplane.data.v1.DataService")
    method = service.FindMethodByName("GetItem")
    request: Any = message_factory.GetMessageClass(method.input_type)()
    key = {"attributes": {"id": {"s": KEY}}}
    json_format.ParseDict({"table": TABLE, "key": key}, request, descriptor_pool=pool)
    response: Any = channel.unary_unary(
        f"/{service.full_name}/{method.name}",
        lambda message: message.SerializeToString(),
        message_factory.GetMessageClass(method.output_type).FromString,
    )(request, timeout=10)
    told = json_format.MessageToDict(response, descriptor_pool=pool)
    assert told["item"] == {"attributes": {"id": {"s": KEY}, "name": {"s": "Ada"}}}


@each_process
def test_health_is_told_for_the_process_and_for_each_service(
    channel: grpc.Channel, member: str
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ["", *SERVED[member]]:
        request = health_pb2.HealthCheckRequest(service=name)
        checked = health.Check(request, timeout=10)
        assert checked.status == health_pb2.HealthCheckResponse.SERVING, name
        watched = health.Watch(request, timeout=10)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING, name
        watched.cancel()
    with pytest.raises(grpc.RpcError) as unknown:
        health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=10)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_watcher_hears_that_a_router_stops(cluster: Cluster) -> None:
    """NOT_SERVING comes before the connection ends, so that a balancer can take it out in time."""
    router = cluster.add_router()
    with grpc.insecure_channel(router.address) as channel:
        request = health_pb2.HealthCheckRequest(service="keyplane.data.v1.DataService")
        heard = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=30)
        assert next(heard).status == health_pb2.HealthCheckResponse.SERVING
        os.kill(router.pid, signal.SIGTERM)
        assert next(heard).status == health_pb2.HealthCheckResponse.NOT_SERVING


@each_process
def test_channelz_tells_of_servers_and_their_calls(channel: grpc.Channel, member: str) -> None:
    channelz = channelz_pb2_grpc.ChannelzStub(channel)
    (server,) = channelz.GetServers(channelz_pb2.GetServersRequest(), timeout=10).server
    assert server.data.calls_started > 0
    request = channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id)
    assert channelz.GetServerSockets(request, timeout=10).socket_ref, member


@pytest.mark.parametrize("member", SERVED)
def test_metrics_parse_and_name_no_table_and_no_key(cluster: Cluster, member: str) -> None:
    text = scrape(cluster, member)
    families = list(text_string_to_metric_families(text))
    own = [family for family in families if family.name.startswith("keyplane_")]
    assert len(own) > 5
    assert all(family.documentation for family in own)
    labels = {
        value for family in own for sample in family.samples for value in sample.labels.values()
    }
    assert labels
    # Not even as a part of a value, nor anywhere else.
    assert not [each for each in labels if TABLE in each or KEY in each]
    assert TABLE not in text
    assert KEY not in text


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not on PATH")
@pytest.mark.parametrize("member", SERVED)
def test_grpcurl_lists_services(cluster: Cluster, member: str) -> None:
    listed = grpcurl(cluster.state().members[member].address, "list").split()
    assert sorted(listed) == sorted([*SERVED[member], *STANDARD])


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not on PATH")
def test_grpcurl_reads_an_item_and_shows_an_error(cluster: Cluster) -> None:
    (address, *_) = cluster.addresses(Kind.ROUTER)
    request = {"table": TABLE, "key": {"attributes": {"id": {"s": KEY}}}}
    told = grpcurl("-d", json.dumps(request), address, "keyplane.data.v1.DataService/GetItem")
    assert json.loads(told)["item"]["attributes"]["name"] == {"s": "Ada"}

    unknown = json.dumps(request | {"table": "nowhere"})
    told = grpcurl("-d", unknown, address, "keyplane.data.v1.DataService/GetItem", fails=True)
    assert "NotFound" in told
    assert "TABLE_NOT_FOUND" in told


def grpcurl(*arguments: str, fails: bool = False) -> str:
    """What it prints: on stdout, or on stderr where it has to fail."""
    done = subprocess.run(
        ["grpcurl", "-plaintext", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout
