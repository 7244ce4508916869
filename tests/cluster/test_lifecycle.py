"""Clusters start, are shown, lose members and get them back, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest
from live_cli import Cli

from keyplane.cluster import Cluster, Kind, process

pytestmark = pytest.mark.cluster


def test_up_shows_what_runs_revives_what_died_and_keeps_the_data_over_down(cli: Cli) -> None:
    made = cli("up")
    assert made["created"]
    kinds = [member["kind"] for member in made["members"]]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "metadata": 1,
        "granter": 1,
        "memds": 2,
        "storage": 3,
        "router": 2,
    }
    cli("table", "create", "users")
    written = cli("put", '{"id": "user-1", "name": "Ada"}')

    again = cli("up", "--routers", "5")
    assert not again["created"]
    assert again["started"] == []
    assert addresses(again) == addresses(made)

    cli("kill", "storage", "router-1")
    dead = cli("status", code=1)
    conditions = {member["name"]: member["condition"] for member in dead["members"]}
    assert conditions["storage-2"] == conditions["router-1"] == "dead"
    assert conditions["router-2"] != "dead"
    revived = cli("up")
    assert revived["started"] == ["storage-1", "storage-2", "storage-3", "router-1"]
    assert addresses(revived) == addresses(made)
    assert cli("get", "user-1") == {
        "item": {"id": "user-1", "name": "Ada"},
        "version": written["version"],
    }

    assert cli("down")["stopped"] == 9
    assert cli("down")["stopped"] == 0
    assert not cli("up")["created"]
    assert cli("get", "user-1")["item"]["name"] == "Ada"


def addresses(up: dict) -> dict[str, str]:
    return {member["name"]: member["address"] for member in up["members"]}


@pytest.mark.parametrize(
    "moment", ["metadata started", "storage-2 started", "router-2 started", "memds-1 serves"]
)
def test_down_cleans_up_after_a_launcher_that_was_killed_in_the_middle(
    cli: Cli, moment: str
) -> None:
    launcher = cli.start("up")
    assert launcher.stderr is not None
    for line in launcher.stderr:
        if moment in line:
            break
    else:
        pytest.fail(f"up never said {moment!r}")
    launcher.kill()
    launcher.communicate()
    cluster = Cluster(home=cli.home)
    assert process.belonging_to(cluster.paths.cluster_id)
    assert cli("down")["stopped"] >= 1
    assert process.belonging_to(cluster.paths.cluster_id) == []


def test_the_first_ctrl_c_of_up_takes_back_what_it_started(cli: Cli) -> None:
    launcher = cli.start("up")
    assert launcher.stderr is not None
    for line in launcher.stderr:
        if "router-2 started" in line:
            break
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert process.belonging_to(Cluster(home=cli.home).paths.cluster_id) == []


def test_an_ephemeral_cluster_takes_its_data_with_it(cli: Cli) -> None:
    directory = Path(cli("up", "--ephemeral", "--routers", "1", "--storage", "1")["directory"])
    assert directory.exists()
    cli("down")
    assert not directory.exists()


def test_two_clusters_live_beside_each_other(cli: Cli) -> None:
    small = ("--memds", "1", "--routers", "1", "--storage", "1")
    first = cli("up", *small)
    second = Cluster("second", cli.home)
    try:
        beside = cli("up", *small, "--cluster", "second")
        assert not set(addresses(first).values()) & set(addresses(beside).values())
        assert cli("down")["stopped"] == 5
        assert len(cli("status", "--cluster", "second")["members"]) == 5
    finally:
        second.down(wipe=True)


def test_a_port_taken_while_a_member_was_dead_is_named_and_given_up_only_by_a_full_restart(
    cluster: Cluster, cli: Cli
) -> None:
    cluster.kill("router-1")
    host, _, port = cluster.addresses(Kind.ROUTER)[0].rpartition(":")
    with squatting(host, int(port)):
        refused = cli("up", code=3)["error"]
        assert refused["reason"] == "PORT_TAKEN"
        assert f"{host}:{port}" in refused["message"]
        cli("down")
        moved = addresses(cli("up"))
        assert moved["router-1"] != f"{host}:{port}"


@contextlib.contextmanager
def squatting(host: str, port: int):
    with socket.create_server((host, port)):
        yield


def test_pause_and_resume_freeze_a_member_and_let_it_go_on(cluster: Cluster, cli: Cli) -> None:
    cli("pause", "router-1")
    conditions = {m["name"]: m["condition"] for m in cli("status", code=1)["members"]}
    assert conditions["router-1"] == "paused"
    # Down must not wait for one that cannot act on SIGTERM; here it is let go first.
    cli("resume", "router")
    assert {m["condition"] for m in cli("status")["members"]} == {"serving"}
    cli("pause", "storage", "memds")
    assert cli("down")["killed"] == 0


def test_no_process_of_a_cluster_holds_the_launchers_terminal_or_pipes(cli: Cli) -> None:
    """`keyplane up | cat` returns."""
    reader, writer = os.pipe()
    launcher = cli.start("up", "--routers", "1", "--storage", "1", pass_fds=(writer,))
    os.close(writer)
    launcher.communicate(timeout=60)
    assert launcher.returncode == 0
    # The end of the file is there: nobody has inherited the other end.
    assert os.read(reader, 1) == b""
    os.close(reader)
