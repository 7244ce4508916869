"""Small clusters for benchmarks of the request path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyplane import AdminClient
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.metadata.v1 import metadata_pb2 as metadata

# With its key and framing an item of about 200 bytes, as measured elsewhere in Keyplane.
TEXT = "." * 190

# One process of each kind: the least that serves a request.
SMALLEST = ClusterConfig(memds=1, routers=1, storage=1, ephemeral=True)


@contextmanager
def small_cluster(table: str, partitions: int = 1) -> Iterator[Cluster]:
    """One process of each kind, and a table whose partition key is the string `id`."""
    with cluster_of(SMALLEST) as cluster:
        create_table(cluster, table, partitions)
        yield cluster


@contextmanager
def cluster_of(config: ClusterConfig) -> Iterator[Cluster]:
    """A cluster in a directory of its own, which goes with it."""
    with tempfile.TemporaryDirectory() as home:
        cluster = Cluster(home=Path(home))
        try:
            cluster.up(config)
            yield cluster
        finally:
            cluster.down(wipe=True)


def create_table(cluster: Cluster, table: str, partitions: int = 1) -> None:
    """A table whose partition key is the string `id`. Returns when it serves."""
    address = cluster.addresses(Kind.METADATA)[0]
    with AdminClient(address, credentials=cluster.credentials()) as admin:
        key = catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING)
        admin.run(
            metadata.CreateTableRequest(table=table, partition_key=key, partitions=partitions)
        )
