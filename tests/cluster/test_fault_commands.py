"""`keyplane fault …` on a running cluster: each family does what it says, and heals."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_cli import Cli
from live_tools import create_table, memcached, wait_until

from keyplane import Client
from keyplane.cli.main import main
from keyplane.cluster import Cluster, ClusterConfig, Faults, Kind
from keyplane.model.errors import KeyplaneError, Reason

pytestmark = pytest.mark.cluster

TABLE = "letters"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(home=tmp_path_factory.mktemp("faults"))
    try:
        running.up(ClusterConfig(storage=2, enable_faults=True))
        create_table(running, TABLE)
        yield running
    finally:
        running.down(wipe=True)


class FaultCli(Cli):
    """`keyplane fault`, in this process."""

    def __call__(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            exited = main(["fault", *arguments, "--json", "--data-dir", str(self.home)])
        assert exited == code, f"{arguments} exited {exited}:\n{err.getvalue()}{out.getvalue()}"
        result: dict[str, Any] = json.loads(out.getvalue().splitlines()[-1])
        return result

    def begin(self, *arguments: str) -> str:
        """The id of the new fault, which the command says how to heal."""
        begun = self(*arguments)
        assert f"fault heal {begun['fault']['id']}" in begun["heal"]
        fault_id: str = begun["fault"]["id"]
        return fault_id

    def members(self, fault_id: str) -> list[str]:
        """The processes where it is on."""
        return [
            member
            for each in self("list")["faults"]
            if each["id"] == fault_id
            for member in each["members"]
        ]


@pytest.fixture
def fault(cluster: Cluster) -> Iterator[FaultCli]:
    yield FaultCli(cluster.paths.root.parent)
    Faults(cluster).heal_all()


def put(cluster: Cluster, router: str, key: str, timeout_s: float = 5.0) -> float:
    """Writes through one router; returns how long it took. Raises KeyplaneError."""
    began = time.monotonic()
    with Client([cluster.state().members[router].address]) as client:
        client.put_item(TABLE, {"id": key}, timeout_s=timeout_s)
    return time.monotonic() - began


def key_on(cluster: Cluster, node: str) -> str:
    """A key that this storage node has."""
    with Client(cluster.addresses(Kind.ROUTER)) as client:
        for number in range(100):
            if client.explain(TABLE, {"id": f"k{number}"}).node.node_id == node:
                return f"k{number}"
    raise AssertionError(f"nothing is on {node}")


def refusal(cluster: Cluster, router: str, key: str, timeout_s: float = 1.0) -> KeyplaneError:
    with pytest.raises(KeyplaneError) as caught:
        put(cluster, router, key, timeout_s)
    return caught.value


def test_a_router_cut_from_one_storage_node_reaches_the_other_and_the_other_router_both(
    cluster: Cluster, fault: FaultCli
) -> None:
    cut = fault.begin("partition", "router-1", "storage-1")
    assert fault.members(cut) == ["router-1"]
    lost = refusal(cluster, "router-1", key_on(cluster, "storage-1"))
    assert not lost.definite
    put(cluster, "router-1", key_on(cluster, "storage-2"))
    put(cluster, "router-2", key_on(cluster, "storage-1"))
    assert fault("heal", cut) == {"healed": [cut]}
    put(cluster, "router-1", key_on(cluster, "storage-1"))


def test_latency_and_drop_are_done_between_kinds(cluster: Cluster, fault: FaultCli) -> None:
    late = fault.begin("latency", "router", "storage", "--delay", "150", "--one-way")
    assert fault.members(late) == ["router-1", "router-2"]
    assert put(cluster, "router-1", "a") >= 0.15
    fault("heal", late)
    lossy = fault.begin("drop", "router-1", "storage", "-p", "1", "--for", "1")
    refusal(cluster, "router-1", "a", timeout_s=0.3)
    wait_until(lambda: fault.members(lossy) == [], "it has healed by itself")
    put(cluster, "router-1", "a")


def test_a_slow_disk_makes_writes_late_and_a_full_one_refuses_them(
    cluster: Cluster, fault: FaultCli
) -> None:
    key = key_on(cluster, "storage-2")
    slow = fault.begin("slow-disk", "storage-2", "--delay", "200")
    assert put(cluster, "router-1", key) >= 0.2
    fault("heal", slow)
    full = fault.begin("full-disk", "storage-2")
    # The first write to fail may have been done; of what comes later nothing has.
    refusal(cluster, "router-1", key)
    with Client(cluster.addresses(Kind.ROUTER)) as client:
        assert client.get_item(TABLE, {"id": key}, consistent=True) == {"id": key}
    fault("heal", full)
    put(cluster, "router-1", key, timeout_s=20.0)


def test_memds_can_be_emptied_stale_corrupt_and_gone(cluster: Cluster, fault: FaultCli) -> None:
    flushed = fault("memds", "flush", "all")
    assert flushed["heal"] == ""
    with memcached(cluster) as nodes:
        for node in nodes:
            wait_until(lambda node=node: node.stats()[b"curr_items"] > 0, "it is filled again")
    users = ["metadata", "router-1", "router-2", "storage-1", "storage-2"]
    for family in ("stale", "corrupt"):
        begun = fault.begin("memds", family, "all")
        assert sorted(fault.members(begun)) == users
        put(cluster, "router-1", "a")
    down = fault.begin("memds", "down", "memds-2")
    assert fault.members(down) == ["memds-2"]
    assert cluster.life()["memds-2"] == "dead"
    put(cluster, "router-2", "a")
    fault("heal", "--all")
    assert cluster.life()["memds-2"] == "running"
    assert fault("list") == {"faults": []}


def test_the_metadata_store_can_lag_and_be_down(cluster: Cluster, fault: FaultCli) -> None:
    lag = fault.begin("metadata", "lag", "--delay", "400")
    began = time.monotonic()
    create_table(cluster, "late", partitions=1)
    assert time.monotonic() - began >= 0.4
    fault("heal", lag)
    down = fault.begin("metadata", "down")
    put(cluster, "router-1", "a")
    fault("heal", down)
    create_table(cluster, "later", partitions=1)


def test_killed_and_paused_processes_are_known_and_come_back(
    cluster: Cluster, fault: FaultCli
) -> None:
    killed = fault.begin("kill", "router-2")
    paused = fault.begin("pause", "router-1")
    listed = {each["id"]: each["members"] for each in fault("list")["faults"]}
    assert listed == {killed: ["router-2"], paused: ["router-1"]}
    fault("heal", "--all")
    assert {cluster.life()[name] for name in ("router-1", "router-2")} == {"running"}
    before = cluster.state().members["router-2"].pid
    assert fault("restart", "router-2")["heal"] == ""
    assert cluster.state().members["router-2"].pid != before


def test_what_somebody_else_has_healed_is_not_listed_and_not_healed_again(
    cluster: Cluster, fault: FaultCli
) -> None:
    killed = fault.begin("kill", "router-2")
    cluster.restart("router-2")
    assert fault("list") == {"faults": []}
    assert fault("heal", killed, code=3)["error"]["reason"] == "FAULT_NOT_FOUND"


def test_ctrl_c_during_a_pause_lets_the_process_go_on(cluster: Cluster, fault: FaultCli) -> None:
    running = fault.start("fault", "pause", "router-1", "--for", "100", "--json")
    wait_until(lambda: cluster.life()["router-1"] == "paused", "router-1 is paused")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert cluster.life()["router-1"] == "running"
    assert fault("list") == {"faults": []}


@pytest.mark.parametrize(
    ("arguments", "reason", "remedy"),
    [
        (("partition", "router-1", "metadata"), "INVALID_ARGUMENT", "no router ever calls"),
        (("partition", "router-1", "storage-9"), "NODE_NOT_FOUND", "it has: metadata"),
        (("kill", "router-9"), "NODE_NOT_FOUND", "it has: metadata"),
        (("slow-disk", "router-1"), "INVALID_ARGUMENT", "name: storage-1"),
        (("memds", "down", "router-1"), "INVALID_ARGUMENT", "name: memds-1"),
        (("drop", "router-1", "storage", "-p", "2"), "INVALID_ARGUMENT", "at most 1"),
        (("latency", "router-1", "--one-way"), "INVALID_ARGUMENT", "needs a peer"),
        (("full-disk", "storage-1", "--for", "999999"), "INVALID_ARGUMENT", "up to 3600"),
        (("heal",), "INVALID_ARGUMENT", "--all"),
        (("heal", "kill-99"), "FAULT_NOT_FOUND", "none is on"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_done_is_refused_with_what_can_and_nothing_is_on(
    fault: FaultCli, arguments: tuple[str, ...], reason: str, remedy: str
) -> None:
    error = fault(*arguments, code=3)["error"]
    assert error["reason"] == reason
    assert remedy in error["message"]
    assert fault("list") == {"faults": []}


def test_a_cluster_without_faults_says_how_to_get_them_and_keeps_them_over_restarts(
    cluster: Cluster, fault: FaultCli, tmp_path: Path
) -> None:
    cluster.restart("router-1")
    added = cluster.add_router().name
    assert fault.members(fault.begin("partition", added, "storage-1")) == [added]
    plain = Cluster("plain", tmp_path)
    try:
        plain.up(ClusterConfig(memds=1, routers=1, storage=1))
        without = FaultCli(tmp_path)
        refused = without("full-disk", "storage-1", "--cluster", "plain", code=3)["error"]
        assert refused["reason"] == "FAULTS_DISABLED"
        assert "keyplane up --enable-faults" in refused["message"]
        without("restart", "router-1", "--cluster", "plain")
        with pytest.raises(KeyplaneError, match="keyplane down") as caught:
            plain.up(ClusterConfig(enable_faults=True))
        assert caught.value.reason is Reason.INVALID_ARGUMENT
        plain.down()
        plain.up(ClusterConfig(enable_faults=True))
        without("full-disk", "storage-1", "--cluster", "plain", "--for", "1")
    finally:
        plain.down(wipe=True)
