"""I2, I3 and I4 on real processes: no write is lost, no map goes back, nobody asks the Metadata
Store."""

from __future__ import annotations

import contextlib
import threading

import psutil
import pytest
from live_tools import (
    TABLE,
    Traffic,
    admin,
    counter,
    memcached,
    partitions,
    routers,
    wait_until,
)

from cache import memds_keys
from keyplane import Client, ClientConfig, ConditionFailed, KeyplaneError, TableNotFound
from keyplane.cluster import Cluster, Kind
from keyplane.metadata.v1 import metadata_pb2 as metadata

pytestmark = pytest.mark.cluster

# What a write may take while its storage node is being started again.
PATIENT = ClientConfig(timeout_s=60.0, attempts_max=200)


# --- I2: an acknowledged write is never lost


class Counting:
    """Adds one to an item again and again, by conditional writes. Notes what was acknowledged."""

    def __init__(self, cluster: Cluster, stop: threading.Event) -> None:
        self._routers = cluster.addresses(Kind.ROUTER)
        self._stop = stop
        self.acknowledged: list[tuple[int, int]] = []
        self.unknown = 0

    def run(self) -> None:
        with Client(self._routers, PATIENT) as client:
            while not self._stop.is_set():
                try:
                    self._add_one(client)
                except ConditionFailed:
                    continue
                except KeyplaneError as error:
                    self.unknown += not error.definite

    def _add_one(self, client: Client) -> None:
        found = client.get_versioned(TABLE, {"id": "counter"}, consistent=True)
        assert found is not None
        count = found.item["n"] + 1
        item = {"id": "counter", "n": count}
        version = client.put_item(TABLE, item, if_version=found.version)
        self.acknowledged.append((count, version))


class Writing:
    """Overwrites keys of its own. Notes the last value of each that was acknowledged."""

    def __init__(self, cluster: Cluster, stop: threading.Event, name: str) -> None:
        self._routers = cluster.addresses(Kind.ROUTER)
        self._stop = stop
        self._name = name
        # By key: the last acknowledged number, and the last that was tried.
        self.acknowledged: dict[str, int] = {}
        self.tried: dict[str, int] = {}

    def run(self) -> None:
        number = 0
        with Client(self._routers, PATIENT) as client:
            while not self._stop.is_set():
                number += 1
                key = f"{self._name} {number % 20}"
                self.tried[key] = number
                with contextlib.suppress(KeyplaneError):
                    client.put_item(TABLE, {"id": key, "n": number})
                    self.acknowledged[key] = number


def test_i2_kill_9_of_a_storage_node_loses_no_acknowledged_write(letters: Cluster) -> None:
    """Four writers count up one item, four overwrite their own, and every node is killed once."""
    stop = threading.Event()
    counting = [Counting(letters, stop) for _ in range(4)]
    writing = [Writing(letters, stop, f"writer {n}") for n in range(4)]
    with Client(letters.addresses(Kind.ROUTER), PATIENT) as client:
        client.put_item(TABLE, {"id": "counter", "n": 0})
        threads = [threading.Thread(target=each.run) for each in (*counting, *writing)]
        for thread in threads:
            thread.start()

        def progress() -> int:
            return sum(len(each.acknowledged) for each in counting)

        try:
            for node in ("storage-1", "storage-2"):
                before = progress()
                wait_until(lambda before=before: progress() > before + 20, "writers go on")
                letters.kill(node)
                letters.restart(node)
            before = progress()
            wait_until(lambda: progress() > before + 20, "writers go on")
        finally:
            stop.set()
            for thread in threads:
                thread.join(timeout=60)

        acknowledged = sorted(pair for each in counting for pair in each.acknowledged)
        counts = [count for count, _ in acknowledged]
        versions = [version for _, version in acknowledged]
        assert len(set(counts)) == len(counts), "two writers made the same count: one was lost"
        assert versions == sorted(set(versions)), "versions do not follow the counts"
        final = client.get_item(TABLE, {"id": "counter"}, consistent=True)
        assert final is not None
        unknown = sum(each.unknown for each in counting)
        assert len(counts) <= final["n"] <= len(counts) + unknown

        for writer in writing:
            assert writer.acknowledged
            for key, number in writer.acknowledged.items():
                item = client.get_item(TABLE, {"id": key}, consistent=True)
                assert item is not None, f"{key} is lost"
                assert number <= item["n"] <= writer.tried[key]


# --- I3: forward only


def map_version(client: Client) -> int:
    (view,) = [view for view in client.describe_router().tables if view.table.name == TABLE]
    return view.map_version


def test_i3_an_old_root_in_memds_takes_no_router_back(letters: Cluster, traffic: Traffic) -> None:
    root = memds_keys.root(letters.name, TABLE)
    seen: dict[str, list[int]] = {name: [] for name in routers(letters)}
    with contextlib.ExitStack() as open_clients:
        nodes = open_clients.enter_context(memcached(letters))
        control = open_clients.enter_context(admin(letters))
        eyes = {
            name: open_clients.enter_context(Client([letters.state().members[name].address]))
            for name in seen
        }

        def look() -> None:
            for name, client in eyes.items():
                seen[name].append(map_version(client))

        def refused(name: str) -> float:
            return counter(letters, name, "keyplane_memds_ignored_total", reason="older_root")

        look()
        old = nodes[0].get(root)
        before = map_version(eyes["router-1"])
        parent = partitions(letters, TABLE)[0].partition_id
        control.run(metadata.SplitPartitionRequest(table=TABLE, partition_id=parent))
        after = control.call(
            metadata.DescribeTableRequest(table=TABLE), metadata.DescribeTableResponse
        ).map_version
        assert after > before

        def arrived() -> bool:
            look()
            return all(versions[-1] >= after for versions in seen.values())

        traffic.until(arrived, "the new map has reached every router")
        refused_before = {name: refused(name) for name in seen}

        def old_root_was_read_often() -> bool:
            """The publisher repairs it on its beat, so it is written again and again."""
            for node in nodes:
                node.set(root, old, noreply=False)
            look()
            return all(refused(name) >= refused_before[name] + 5 for name in seen)

        traffic.until(old_root_was_read_often, "every router has refused the old root five times")
        for versions in seen.values():
            assert versions == sorted(versions)
            assert versions[-1] >= after
        # Left alone, the publisher brings the new one back by itself.
        traffic.until(lambda: all(node.get(root) != old for node in nodes), "the root is repaired")


# --- I4: no router knows the Metadata Store


def test_i4_no_router_is_connected_to_the_metadata_store_or_knows_its_address(
    letters: Cluster, traffic: Traffic
) -> None:
    state = letters.state()
    address = state.members["metadata"].address
    port = int(address.rpartition(":")[2])
    processes = [psutil.Process(state.members[name].pid) for name in routers(letters)]
    storage = {int(each.rpartition(":")[2]) for each in state.addresses(Kind.STORAGE)}
    for router in processes:
        assert not [word for word in router.cmdline() if address in word]
        assert not [value for value in router.environ().values() if address in value]
    reached: set[int] = set()
    with Client(letters.addresses(Kind.ROUTER)) as client:
        for number in range(20):
            traffic.round()
            # What would make a router ask somebody, if anything does.
            with pytest.raises(TableNotFound):
                client.get_item(f"unknown {number % 3}".replace(" ", "-"), {"id": "x"})
            for router in processes:
                peers = {each.raddr.port for each in router.net_connections() if each.raddr}
                assert port not in peers
                reached |= peers
    # The look was worth something: it does show whom routers talk to.
    assert storage <= reached
    for name in routers(letters):
        for file in letters.paths.data(name).iterdir():
            assert address.encode() not in file.read_bytes()
