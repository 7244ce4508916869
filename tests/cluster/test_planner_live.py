"""The planner on a live cluster: hot partitions are split unasked, cold ones merged again."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live_cli import Cli

from keyplane import AdminClient, Client, ClientConfig, Throttled
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.metadata.v1 import metadata_pb2 as pb

pytestmark = pytest.mark.cluster

# 100 write units.
LARGE = "x" * (100 * 1024 - 40)

# 1,700 units: more than one partition does, and less than two.
WRITES_PER_S = 17.0

# Seconds, far shorter than the defaults so that a test sees everything.
PLANNER = {"KEYPLANE_HOT_FOR_S": "2", "KEYPLANE_COLD_S": "15"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planner")


@pytest.fixture(scope="module")
def planned(home: Path) -> Iterator[Cluster]:
    """A cluster whose planner is in a hurry."""
    cluster = Cluster(home=home)
    try:
        cluster.up(ClusterConfig(memds=1, routers=1, storage=2))
        cluster.restart("metadata", PLANNER)
        yield cluster
    finally:
        cluster.down(wipe=True)


@pytest.fixture
def cli(home: Path) -> Cli:
    return Cli(home)


class Load:
    """Writes of large items at a steady rate."""

    def __init__(self, cluster: Cluster, table: str, users: int) -> None:
        self.ends: Counter[str] = Counter()
        self.stopping = False
        self._cluster = cluster
        self._table = table
        self._users = users

    def of_next(self, seconds: float) -> Counter[str]:
        """How the writes of so long end."""
        before = Counter(self.ends)
        time.sleep(seconds)
        return self.ends - before

    def write(self) -> None:
        config = ClientConfig(attempts_max=1)
        with Client(self._cluster.addresses(Kind.ROUTER), config=config) as client:
            number, due = 0, time.monotonic()
            while not self.stopping:
                number += 1
                # Whatever the machine is busy with besides.
                due += 1 / WRITES_PER_S
                time.sleep(max(0.0, due - time.monotonic()))
                item = {"id": f"user-{number % self._users}", "value": LARGE}
                try:
                    client.put_item(self._table, item)
                    self.ends["written"] += 1
                except Throttled as error:
                    self.ends[error.metadata["reason"]] += 1


@contextmanager
def loaded(cluster: Cluster, table: str, users: int) -> Iterator[Load]:
    load = Load(cluster, table, users)
    thread = threading.Thread(target=load.write)
    thread.start()
    try:
        yield load
    finally:
        load.stopping = True
        thread.join()


def create(admin: AdminClient, name: str) -> None:
    key = catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING)
    mode = catalog.CAPACITY_MODE_ON_DEMAND
    admin.run(pb.CreateTableRequest(table=name, partition_key=key, capacity_mode=mode))


def partitions(admin: AdminClient, table: str) -> int:
    request = pb.DescribeTableRequest(table=table)
    return admin.call(request, pb.DescribeTableResponse).partition_count


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def test_a_hot_partition_is_split_and_merged_again_when_it_is_cold(
    planned: Cluster, cli: Cli
) -> None:
    """A dry run first shows what will be done, and does not do it."""
    assert cli("plan", "--mode", "dry-run")["mode"] == "dry-run"
    with AdminClient(planned.addresses(Kind.METADATA)[0]) as admin:
        create(admin, "orders")
        with loaded(planned, "orders", users=200) as load:
            wait_for(lambda: bool(cli("plan")["changes"]))
            (change,) = cli("plan")["changes"]
            assert (change["kind"], change["state"]) == ("split", "waiting")
            assert change["detail"] == "dry run"
            assert partitions(admin, "orders") == 1
            assert load.ends["TableWriteKeyRangeThroughputExceeded"] > 0
            seen = cli("top")
            assert seen["partitions"][0]["table"] == "orders"
            assert seen["partitions"][0]["heat"] > 0.5
            assert seen["throttled_per_second"]["TableWriteKeyRangeThroughputExceeded"] > 0
            assert sum(map(bool, seen["bins"])) == len(seen["bins"])
            cli("plan", "--mode", "on")
            wait_for(lambda: partitions(admin, "orders") > 1)
            # Until the last split that it takes has had its effect.
            wait_for(lambda: set(load.of_next(3.0)) == {"written"})
        operations = cli("operation", "list")["operations"]
        because = [each["planned_because"] for each in operations if each["kind"] == "split"]
        assert because
        assert all("of 1,000 write units a second" in each for each in because)
        wait_for(lambda: partitions(admin, "orders") == 1, 90)


def test_one_hot_item_is_not_split_and_the_reason_is_shown(planned: Cluster, cli: Cli) -> None:
    with AdminClient(planned.addresses(Kind.METADATA)[0]) as admin:
        create(admin, "celebrities")
        with loaded(planned, "celebrities", users=1):
            wait_for(lambda: any(each["state"] == "declined" for each in cli("plan")["changes"]))
        assert partitions(admin, "celebrities") == 1
        shown, _ = cli.start("plan").communicate(timeout=60)
        assert "of celebrities: " in shown
        assert "of the load is on one partition key" in shown
        failed = [e for e in cli("operation", "list")["operations"] if e["state"] == "failed"]
        assert [each["reason"] for each in failed] == ["SPLIT_WOULD_NOT_HELP"]


def test_top_shows_where_the_load_is_until_it_is_interrupted(planned: Cluster, cli: Cli) -> None:
    running = cli.start("top", "--count", "1000", "--interval", "0.2")
    assert running.stdout is not None
    seen = ""
    while "storage-1" not in seen:
        line = running.stdout.readline()
        assert line, seen
        seen += line
    assert "requests a second" in seen
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 0
    assert "Traceback" not in errors
    assert cli("top", "--table", "no-such", code=3)["error"]["reason"] == "TABLE_NOT_FOUND"


def test_off_is_off_and_remembered(planned: Cluster, cli: Cli) -> None:
    assert cli("plan", "--mode", "off")["changes"] == []
    planned.restart("metadata")
    assert cli("plan")["mode"] == "off"
    assert cli("plan", "--mode", "sideways", code=2)["error"]["reason"] == "USAGE"
