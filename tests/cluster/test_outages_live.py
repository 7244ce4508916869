"""I6, I7 and I9 on real processes: what a router does does not depend on who else is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from bounded_router import INFLIGHT_MAX
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from live_tools import KEYS, TABLE, Traffic, memcached, partitions, wait_until

from keyplane import Client, TableNotFound
from keyplane.cluster import Cluster, Kind, process
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.grpc_failures import DETAILS_KEY
from keyplane.model.items import to_item

pytestmark = pytest.mark.cluster

# Beats of a router in one measurement, and the requests of each.
BEATS = 8
REQUESTS_PER_BEAT = 4

# Each state is measured so often, in turns.
TURNS = 2


# --- I7: constant work


def memds_requests(client: Client) -> int:
    return sum(view.requests for view in client.describe_router().memds)


def requests_per_second(client: Client, work: Callable[[], None]) -> float:
    """Of the router to memcached, from the beginning of one beat to that of another, with `work`
    done again and again meanwhile."""

    def next_beat() -> tuple[int, float]:
        before = memds_requests(client)
        wait_until(lambda: memds_requests(client) >= before + REQUESTS_PER_BEAT, "a beat came")
        return memds_requests(client), time.monotonic()

    first, began_at = next_beat()
    while memds_requests(client) < first + (BEATS - 1) * REQUESTS_PER_BEAT:
        work()
    last, ended_at = next_beat()
    return (last - first) / (ended_at - began_at)


def test_i7_requests_to_memds_are_as_many_whatever_happens(letters: Cluster) -> None:
    """Idle, all hit, all miss, and with the control plane dead: within 10 % of each other.

    A busy machine makes beats late, and never early: each state counts by its best measurement.
    """
    with Client(letters.addresses(Kind.ROUTER)[:1]) as client:
        missed = 0

        def idle() -> None:
            time.sleep(0.05)

        def all_hit() -> None:
            for key in KEYS:
                client.get_item(TABLE, {"id": key})

        def all_miss() -> None:
            """Each name is new, so that nothing remembers that there is no such table."""
            nonlocal missed
            missed += 1
            with pytest.raises(TableNotFound):
                client.get_item(f"unknown-{missed}", {"id": "x"})

        best: dict[str, float] = {}

        def measure(state: str, work: Callable[[], None]) -> None:
            best[state] = max(best.get(state, 0.0), requests_per_second(client, work))

        for _ in range(TURNS):
            measure("idle", idle)
            measure("all hit", all_hit)
            measure("all miss", all_miss)
        letters.kill("metadata")
        try:
            for _ in range(TURNS):
                measure("control plane dead", idle)
                measure("control plane dead, all hit", all_hit)
        finally:
            letters.restart("metadata")
        assert missed >= 2 * TURNS
        assert max(best.values()) / min(best.values()) < 1.1, best


# --- I6: static stability


def test_i6_without_control_plane_and_memds_requests_go_on_and_routers_start(
    letters: Cluster, traffic: Traffic
) -> None:
    reads = 0
    letters.kill("metadata")
    try:
        for _ in range(20):
            traffic.round()
        # A new router with nothing but an address list; memcached is filled by nobody any more.
        reads += reads_through_new_router(letters)
        with memcached(letters) as nodes:
            for node in nodes:
                node.flush_all(noreply=False)
        for member in letters.state().of_kind(Kind.MEMDS):
            letters.kill(member.name)
        for _ in range(20):
            traffic.round()
        # Only storage nodes are left to ask.
        reads += reads_through_new_router(letters)
        for _ in range(20):
            traffic.round()
    finally:
        for member in letters.state().of_kind(Kind.MEMDS):
            letters.restart(member.name)
        letters.restart("metadata")
    assert reads == 2 * len(KEYS)
    assert partitions(letters, TABLE)


def reads_through_new_router(cluster: Cluster) -> int:
    """Starts a router in an empty directory and reads every key through it alone."""
    router = cluster.add_router()
    with Client([router.address]) as client:
        client.put_item(TABLE, {"id": KEYS[0], "n": -1})
        found = [client.get_item(TABLE, {"id": key}, consistent=True) for key in KEYS]
        assert found[0] == {"id": KEYS[0], "n": -1}
    return sum(item is not None for item in found)


# --- I9: bounds


@pytest.fixture
def bounded(letters: Cluster, tmp_path: Path) -> Iterator[str]:
    """Address of a router that takes INFLIGHT_MAX requests at a time."""
    run_file = tmp_path / "run.json"
    env = os.environ | {
        "KEYPLANE_MEMDS": ",".join(letters.addresses(Kind.MEMDS)),
        "KEYPLANE_SEEDS": ",".join(letters.addresses(Kind.STORAGE)),
        "KEYPLANE_CLUSTER": letters.name,
        "KEYPLANE_SNAPSHOT_DIR": str(tmp_path / "snapshots"),
        "KEYPLANE_RUN_FILE": str(run_file),
        # Ends with the cluster, should this test be killed.
        process.CLUSTER_ID: letters.paths.cluster_id,
        process.MEMBER: "bounded",
    }
    script = Path(__file__).with_name("bounded_router.py")
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, str(script)],
            env=env | {"PYTHONPATH": str(script.parents[2])}, stderr=log,
        )  # fmt: skip
    try:
        wait_until(run_file.exists, "the router listens")
        yield json.loads(run_file.read_text())["address"]
    finally:
        running.terminate()
        assert running.wait(timeout=30) == 0, (tmp_path / "log").read_text()


def test_i9_past_its_bound_a_router_sheds_at_once_and_says_when_to_return(
    letters: Cluster, bounded: str
) -> None:
    """Storage stands still, so requests pile up: four wait, the others are refused. Then it goes
    on, and those that waited are answered."""
    with Client([bounded]) as client:
        assert client.get_item(TABLE, {"id": KEYS[1]}) is not None
    key = to_item({"id": KEYS[1]})
    request = data.GetItemRequest(table=TABLE, key=key, consistent_read=True).SerializeToString()
    storage = [member.name for member in letters.state().of_kind(Kind.STORAGE)]
    with grpc.insecure_channel(bounded) as channel:
        get = channel.unary_unary("/keyplane.data.v1.DataService/GetItem")
        for name in storage:
            letters.pause(name)
        try:
            calls = [get.future(request, timeout=60) for _ in range(50)]
            refused = len(calls) - INFLIGHT_MAX
            wait_until(lambda: sum(call.done() for call in calls) == refused, "46 are refused")
            for call in calls:
                if call.done():
                    assert_overloaded(call)
        finally:
            for name in storage:
                letters.resume(name)
        answers = [call.result() for call in calls if not is_refused(call)]
        assert len(answers) == INFLIGHT_MAX
        for answer in answers:
            assert data.GetItemResponse.FromString(answer).item.attributes["id"].s == KEYS[1]


def is_refused(call: Any) -> bool:
    code: grpc.StatusCode = call.code()
    return code is grpc.StatusCode.RESOURCE_EXHAUSTED


def assert_overloaded(call: Any) -> None:
    assert is_refused(call), call
    info, retry = ErrorInfo(), RetryInfo()
    details = Status.FromString(dict(call.trailing_metadata())[DETAILS_KEY]).details
    assert details[0].Unpack(info)
    assert info.reason == "OVERLOADED"
    assert details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() > 0
