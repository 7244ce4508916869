"""The commands against a running cluster, as a person or a script uses them."""

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

from keyplane.cli.main import main
from keyplane.cluster import Cluster, ClusterConfig
from keyplane.workload.acklog import read_ack_log
from keyplane.workload.samples import read_samples

pytestmark = pytest.mark.cluster


class HereCli(Cli):
    """Runs commands in this process, which saves starting an interpreter for each."""

    def __call__(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            exited = main([*arguments, "--json", "--data-dir", str(self.home)])
        printed = err.getvalue() + out.getvalue()
        assert exited == code, f"{arguments} exited {exited}:\n{printed}"
        result: dict[str, Any] = json.loads(out.getvalue().splitlines()[-1])
        return result


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """Commands on one cluster, which all tests of this file share."""
    home = tmp_path_factory.mktemp("home")
    cluster = Cluster(home=home)
    try:
        cluster.up(ClusterConfig())
        yield HereCli(home)
    finally:
        cluster.down(wipe=True)


def test_items_are_written_read_and_deleted_under_conditions(cli: Cli) -> None:
    cli("table", "create", "music", "--partition-key", "artist", "--sort-key", "year:number")
    key = ("Can", "--sort", "1971", "--table", "music")
    assert cli("get", *key, code=1) == {"item": None}
    item = '{"artist": "Can", "year": 1971, "title": "Tago Mago", "minutes": 73.5}'
    first = cli("put", item, "-t", "music", "--if-absent")["version"]
    assert cli("put", item, "-t", "music", "--if-absent", code=3)["error"]["reason"] == (
        "CONDITION_FAILED"
    )
    second = cli("put", item, "-t", "music", "--if-version", str(first))["version"]
    assert second > first
    found = cli("get", '{"artist": "Can", "year": 1971}', "-t", "music", "--consistent")
    assert found["item"] == {"artist": "Can", "year": 1971, "title": "Tago Mago", "minutes": 73.5}
    assert found["version"] == second
    assert cli("delete", *key)["deleted"]
    assert not cli("delete", *key, code=1)["deleted"]
    assert cli("put", "{}", "-t", "music", code=3)["error"]["reason"] == "MISSING_KEY"
    assert cli("put", "[1]", "-t", "music", code=3)["error"]["reason"] == "INVALID_ARGUMENT"
    missing = cli("get", "x", "-t", "nothing", code=3)["error"]
    assert missing["reason"] == "TABLE_NOT_FOUND"
    assert "keyplane table create nothing" in missing["message"]


def test_tables_are_listed_described_and_deleted(cli: Cli) -> None:
    made = cli("table", "create", "readings", "--partitions", "3", "--durability", "power")
    assert made["operation"]["state"] == "succeeded"
    assert cli("table", "create", "readings", code=3)["error"]["reason"] == "TABLE_EXISTS"
    described = cli("table", "describe", "readings")
    assert described["partitions"] == 3
    assert described["durability"] == "power"
    assert described["partition_key"] == "id"
    assert "readings" in {table["table"] for table in cli("table", "list")["tables"]}
    rows = cli("table", "partitions", "readings")["partitions"]
    assert rows[0]["first_hash"] == "0" * 16
    assert rows[-1]["last_hash"] == "f" * 16
    assert len({row["leader"] for row in rows}) == 3
    assert cli("table", "delete", "readings")["operation"]["state"] == "succeeded"
    assert cli("table", "describe", "readings", code=3)["error"]["reason"] == "TABLE_NOT_FOUND"


def test_settings_of_a_table_are_changed_one_by_one(cli: Cli) -> None:
    cli("table", "create", "events", "--capacity", "on-demand")
    assert cli("table", "describe", "events")["capacity"] == "on-demand"
    updated = cli("table", "update", "events", "--durability", "power")
    assert updated["operation"]["state"] == "succeeded"
    described = cli("table", "describe", "events")
    assert (described["durability"], described["capacity"]) == ("power", "on-demand")
    cli("table", "update", "events", "--capacity", "unlimited")
    described = cli("table", "describe", "events")
    assert (described["durability"], described["capacity"]) == ("power", "unlimited")
    error = cli("table", "update", "events", code=2)["error"]
    assert "--durability, --capacity, or" in error["message"]
    cli("table", "delete", "events")


def test_a_provisioned_table_is_made_and_changed_by_its_units(cli: Cli) -> None:
    def units(table: str) -> tuple[str, int, int]:
        described = cli("table", "describe", table)
        return described["capacity"], described["read_units"], described["write_units"]

    provisioned = ("--capacity", "provisioned", "--read-units", "500", "--write-units", "100")
    cli("table", "create", "billing", *provisioned)
    assert units("billing") == ("provisioned", 500, 100)
    cli("table", "update", "billing", "--read-units", "1000", "--write-units", "100")
    assert units("billing") == ("provisioned", 1000, 100)
    cli("table", "update", "billing", "--capacity", "on-demand")
    assert units("billing") == ("on-demand", 0, 0)
    for arguments, says in (
        (("--read-units", "10"), "give both"),
        (("--read-units", "0", "--write-units", "1"), "greater than or equal to 1"),
    ):
        error = cli("table", "update", "billing", *arguments, code=2)["error"]
        assert says in error["message"]
    for arguments, says in (
        (("--read-units", "10", "--write-units", "1"), "not PROVISIONED"),
        (("--capacity", "provisioned"), "needs provisioned throughput"),
    ):
        error = cli("table", "update", "billing", *arguments, code=3)["error"]
        assert error["reason"] == "INVALID_ARGUMENT"
        assert says in error["message"]
    cli("table", "delete", "billing")


def test_an_on_demand_table_has_a_maximum_and_is_made_warm(cli: Cli) -> None:
    def limits(table: str) -> dict[str, int]:
        described = cli("table", "describe", table)
        return {
            name: units
            for name, units in described.items()
            if name.startswith(("max_", "warm_")) and units
        }

    cli("table", "create", "clicks", "--capacity", "on-demand", "--max-write-units", "500")
    assert limits("clicks") == {"max_write_units": 500}
    cli("table", "update", "clicks", "--warm-read-units", "20000", "--max-write-units", "0")
    assert limits("clicks") == {"warm_read_units": 20_000}
    for arguments, says in (
        (("--max-read-units", "-1"), "greater than or equal to 0"),
        (("--max-read-units", "40001"), "less than or equal to 40000"),
        (("--warm-write-units", "3999"), "greater than or equal to 4000"),
    ):
        error = cli("table", "update", "clicks", *arguments, code=2)["error"]
        assert says in error["message"]
    for arguments, says in (
        (("--warm-read-units", "19999"), "only rises"),
        (("--max-read-units", "13000", "--warm-read-units", "30000"), "of no use"),
        (("--capacity", "unlimited", "--max-read-units", "5"), "capacity mode ON_DEMAND"),
    ):
        error = cli("table", "update", "clicks", *arguments, code=3)["error"]
        assert error["reason"] == "INVALID_ARGUMENT"
        assert says in error["message"]
    cli("table", "delete", "clicks")


def test_partitions_split_merge_move_and_leave_a_node(cli: Cli) -> None:
    cli("table", "create", "users", "--partitions", "1")
    (whole,) = cli("table", "partitions", "users")["partitions"]
    split = cli("split", "-t", "users", "--at", "8000000000000000")["operation"]
    left, right = split["result_partition_ids"]
    assert split["partition_ids"] == [whole["partition_id"]]

    target = next(n for n in ("storage-1", "storage-2") if n != whole["leader"])
    moved = cli("move", str(right), target, "-t", "users")["operation"]
    assert moved["state"] == "succeeded"
    routed = cli("route", "user-1", "-t", "users")
    expected = (right, target) if routed["key_hash"] >= "8" else (left, whole["leader"])
    assert cli("put", '{"id": "user-1"}', "-t", "users")["version"] == 1
    # Routers learn of it from a request that goes astray, or on their next beat.
    give_up = time.monotonic() + 30
    while (routed["partition_id"], routed["leader"]) != expected:
        assert time.monotonic() < give_up, routed
        routed = cli("route", "user-1", "-t", "users")

    merged = cli("merge", str(left), "-t", "users")["operation"]
    assert merged["partition_ids"] == [left, right]
    (again,) = cli("table", "partitions", "users")["partitions"]
    assert again["epoch"] > whole["epoch"]
    assert cli("get", "user-1", "-t", "users")["item"] == {"id": "user-1"}

    cli("drain", again["leader"])
    (elsewhere,) = cli("table", "partitions", "users")["partitions"]
    assert elsewhere["leader"] != again["leader"]
    known = cli("operation", "list")["operations"]
    assert {"split", "move", "merge", "drain"} <= {row["kind"] for row in known}
    shown = cli("operation", "show", split["operation_id"])["operation"]
    assert shown == next(row for row in known if row["operation_id"] == split["operation_id"])
    assert cli("operation", "list", "--active")["operations"] == []

    for arguments, reason in (
        (("merge", str(elsewhere["partition_id"]), "-t", "users"), "NOT_NEIGHBOURS"),
        (("split", "4711", "-t", "users"), "PARTITION_NOT_FOUND"),
        (("move", str(elsewhere["partition_id"]), "storage-9", "-t", "users"), "NODE_NOT_FOUND"),
        (("drain", "storage-9"), "NODE_NOT_FOUND"),
        (("operation", "show", "none"), "OPERATION_NOT_FOUND"),
    ):
        assert cli(*arguments, code=3)["error"]["reason"] == reason


def test_a_workload_logs_what_was_acknowledged_and_verify_finds_what_is_missing(
    cli: Cli, tmp_path: Path
) -> None:
    acks, samples = tmp_path / "acks.jsonl", tmp_path / "samples.csv"
    logs = ("--ack-log", str(acks), "--samples", str(samples))
    ran = cli("workload", "run", "--duration", "2", "--rate", "200", "--keys", "50", *logs)
    assert ran["failed"] == 0
    written = list(read_ack_log(acks))
    assert len(written) == ran["acknowledged_writes"] == ran["writes"] > 0
    assert sum(1 for _ in read_samples(samples)) == ran["requests"]
    kept = cli("workload", "verify", "--ack-log", str(acks))
    assert kept["acknowledged_writes"] == len(written)
    assert (kept["lost_writes"], kept["applied_twice"], kept["unread_keys"]) == (0, 0, 0)

    # Verification is worth something only if it notices.
    cli("delete", written[0].key, "-t", "workload")
    lost = cli("workload", "verify", "--ack-log", str(acks), code=1)
    assert lost["lost_writes"] == 1
    assert lost["violations"][0]["key"] == written[0].key


def test_ctrl_c_ends_a_workload_with_its_figures(cli: Cli, tmp_path: Path) -> None:
    acks = tmp_path / "acks.jsonl"
    running = cli.start("workload", "run", "--duration", "600", "--ack-log", str(acks), "--json")
    while not acks.exists() or not acks.stat().st_size:
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert '"interrupted": true' in out.splitlines()[-1]


def test_logs_are_shown_and_followed(cli: Cli) -> None:
    shown = cli("logs", "router", "--lines", "3")["logs"]
    assert set(shown) >= {"router-1", "router-2"}
    assert 1 <= len(shown["router-1"]["lines"]) <= 3
    following = cli.start("logs", "router-2", "--follow", "--lines", "1")
    assert following.stdout is not None
    # It has read to the end by now, so what comes next cannot be missed.
    following.stdout.readline()
    cli("restart", "router-2")
    for line in following.stdout:
        if "listening" in line:
            break
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=60)
    assert following.returncode == 130


def test_a_router_is_added_and_serves_while_the_control_plane_is_dead(cli: Cli) -> None:
    """I6."""
    cli("table", "create", "kept")
    cli("put", '{"id": "a"}', "-t", "kept")
    cli("kill", "metadata")
    added = cli("add-router")
    assert added["name"] == "router-3"
    refused = cli("table", "list", code=3)["error"]["reason"]
    assert refused == "NODE_UNREACHABLE"
    assert cli("get", "a", "-t", "kept")["item"] == {"id": "a"}
    cli("restart", "metadata")
    assert "kept" in {table["table"] for table in cli("table", "list")["tables"]}
