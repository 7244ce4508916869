"""Clusters of real processes, each in a directory of its own and gone after its test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_cli import Cli
from live_tools import KEYS, TABLE, Traffic, cluster_of, create_table

from keyplane import Client
from keyplane.cluster import Cluster, ClusterConfig, Kind


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """No cluster yet; the one that the test may start is gone afterwards."""
    yield Cli(tmp_path)
    Cluster(home=tmp_path).down(wipe=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A running cluster of the default size. `cli` in the same test talks to it."""
    running = Cluster(home=tmp_path)
    try:
        running.up(ClusterConfig())
        yield running
    finally:
        running.down(wipe=True)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for a module: two routers, two storage nodes, a table with items in it."""
    with cluster_of(tmp_path_factory.mktemp("letters"), ClusterConfig(storage=2)) as running:
        create_table(running, TABLE)
        with Client(running.addresses(Kind.ROUTER)) as client:
            for key in KEYS:
                client.put_item(TABLE, {"id": key, "n": 0})
        yield running


@pytest.fixture
def traffic(letters: Cluster) -> Iterator[Traffic]:
    """Traffic through each router that there is now."""
    with contextlib.ExitStack() as open_clients:
        clients = [Client([address]) for address in letters.addresses(Kind.ROUTER)]
        yield Traffic([open_clients.enter_context(client) for client in clients])
