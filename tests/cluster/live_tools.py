"""What the tests of running clusters share: tables, metrics, memcached, waiting and raw calls."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from prometheus_client.parser import text_string_to_metric_families
from pymemcache.client.base import Client as Memcached

from keyplane import AdminClient, Client
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.grpc_failures import DETAILS_KEY

# What the fixture `letters` has: a table, and an item under each key.
TABLE = "letters"
KEYS = [f"key {number}" for number in range(40)]


@contextlib.contextmanager
def cluster_of(home: Path, config: ClusterConfig) -> Iterator[Cluster]:
    running = Cluster(home=home)
    try:
        running.up(config)
        yield running
    finally:
        running.down(wipe=True)


def admin(cluster: Cluster) -> AdminClient:
    return AdminClient(cluster.addresses(Kind.METADATA)[0])


def create_table(cluster: Cluster, name: str, partitions: int = 4) -> None:
    """Items have the key `id`, a string."""
    key = catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING)
    with admin(cluster) as control:
        control.run(
            metadata.CreateTableRequest(table=name, partition_key=key, partitions=partitions)
        )


def routers(cluster: Cluster) -> list[str]:
    """Names of its routers."""
    return [member.name for member in cluster.state().of_kind(Kind.ROUTER)]


def partitions(cluster: Cluster, table: str) -> list[catalog.Partition]:
    with admin(cluster) as control:
        request = metadata.ListPartitionsRequest(table=table)
        return list(control.call(request, metadata.ListPartitionsResponse).partitions)


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Asks again and again. Fails with `what` when it does not come true."""
    limit = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < limit, f"waited in vain until {what}"
        time.sleep(0.02)


class Traffic:
    """Writes and reads of `TABLE` through each router in turn. A call that fails ends the test."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = clients
        self.rounds = 0

    def round(self) -> None:
        self.rounds += 1
        key = KEYS[self.rounds % len(KEYS)]
        for client in self._clients:
            client.put_item(TABLE, {"id": key, "n": self.rounds})
            item = client.get_item(TABLE, {"id": key}, consistent=True)
            assert item == {"id": key, "n": self.rounds}

    def until(self, true: Callable[[], bool], what: str) -> None:
        """At least one round, and as many as it takes."""

        def after_a_round() -> bool:
            self.round()
            return true()

        wait_until(after_a_round, what)


def scrape(cluster: Cluster, member: str) -> str:
    address = cluster.state().members[member].metrics_address
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def counter(cluster: Cluster, member: str, name: str, **labels: str) -> float:
    """A counter's value at one process; 0 before it first rose. name: with prefix and suffix."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(scrape(cluster, member))
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@contextlib.contextmanager
def memcached(cluster: Cluster) -> Iterator[list[Memcached]]:
    """A connection to every memcached node."""
    with contextlib.ExitStack() as open_clients:
        clients = []
        for address in cluster.addresses(Kind.MEMDS):
            host, _, port = address.rpartition(":")
            client = Memcached((host, int(port)), connect_timeout=5, timeout=5)
            clients.append(open_clients.enter_context(contextlib.closing(client)))
        yield clients


def call_raw(channel: grpc.Channel, path: str, payload: bytes, timeout_s: float | None = 15) -> Any:
    """Sends bytes as they are and returns the bytes that come back. Raises grpc.RpcError."""
    return channel.unary_unary(path)(payload, timeout=timeout_s)


def refusal(
    channel: grpc.Channel, path: str, payload: bytes, timeout_s: float | None = 15
) -> tuple[grpc.StatusCode, str]:
    """The status code and the ErrorInfo reason with which a call is refused."""
    try:
        call_raw(channel, path, payload, timeout_s)
    except grpc.RpcError as failure:
        status = Status.FromString(dict(failure.trailing_metadata())[DETAILS_KEY])
        assert status.code == failure.code().value[0]
        info = ErrorInfo()
        assert status.details[0].Unpack(info)
        assert info.domain == "keyplane"
        return failure.code(), info.reason
    raise AssertionError(f"{path} took it")
