"""Split, merge and move, killed at every step: I1, I2 and I8 on real processes.

A process is started with a crash point armed, so that it stops itself (SIGSTOP) just after the
persisted step of that name. Then one participant, it or another, is killed with SIGKILL, what was
stopped goes on, and what was killed is started again. The operation has to end by itself, every
key hash has to have exactly one owner, the Metadata Store has to agree with the nodes, and every
write that was acknowledged meanwhile has to be there. Only a move whose target dies may end in
failure, and then nothing has changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import psutil
import pytest

from keyplane import AdminClient, Client, DeadlineExceeded, KeyplaneError, Reason
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.storage.v1 import storage_pb2, storage_pb2_grpc

Request: TypeAlias = pb.SplitPartitionRequest | pb.MergePartitionsRequest | pb.MovePartitionRequest
_RESPONSES: dict[type, Any] = {
    pb.SplitPartitionRequest: pb.SplitPartitionResponse,
    pb.MergePartitionsRequest: pb.MergePartitionsResponse,
    pb.MovePartitionRequest: pb.MovePartitionResponse,
}

SOURCE, TARGET, METADATA = "source", "target", "metadata"

KEYS = 24
WRITERS = 2
WAIT_S = 30.0


@dataclass(frozen=True)
class Case:
    """point: the crash point. passes: the role of the process that passes it. dies: who is
    killed."""

    kind: str
    point: str
    passes: str
    dies: str

    def __str__(self) -> str:
        return f"{self.point}-{self.dies}-dies"


def _cases() -> Iterator[Case]:
    states = ("pending", "running", "committed", "succeeded")
    participants = {
        "split": (METADATA, SOURCE),
        "merge": (METADATA, SOURCE),
        "distant_merge": (METADATA, SOURCE, TARGET),
        "move": (METADATA, SOURCE, TARGET),
    }
    points = {
        "split": [(f"metadata.split.{state}", METADATA) for state in states]
        + [("storage.split.persisted", SOURCE)],
        "merge": [(f"metadata.merge.{state}", METADATA) for state in states]
        + [("storage.merge.persisted", SOURCE)],
        "distant_merge": [("metadata.merge.moved", METADATA)],
        "move": [(f"metadata.move.{state}", METADATA) for state in states]
        + [
            ("storage.move.started", SOURCE),
            ("storage.move.prepared", TARGET),
            ("storage.move.snapshot_sent", SOURCE),
            ("storage.move.fenced", SOURCE),
            ("storage.move.confirmed", TARGET),
            ("storage.move.handover", SOURCE),
            ("storage.move.activated", TARGET),
            ("storage.move.answered", SOURCE),
            ("storage.move.retired", SOURCE),
            ("storage.move.released", SOURCE),
        ],
    }
    for kind, passed in points.items():
        for point, passes in passed:
            for dies in participants[kind]:
                yield Case(kind, point, passes, dies)


@dataclass
class Writers:
    """Threads that write rising numbers under their own keys and remember what was promised.

    acknowledged: of each key the highest number whose write succeeded. attempted: the highest that
    was ever sent; one whose outcome is unknown may be there or not.
    """

    routers: list[str]
    table: str
    acknowledged: dict[str, int] = field(default_factory=dict)
    attempted: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(WRITERS):
            keys = [f"key-{index}" for index in range(KEYS) if index % WRITERS == number]
            thread = threading.Thread(target=self._write, args=(keys,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "a request outlived its deadline"

    def check(self) -> None:
        """I2: every acknowledged write is there, and nothing that was never written."""
        assert self.acknowledged
        with Client(self.routers) as client:
            for key, least in self.acknowledged.items():
                item = client.get_item(self.table, {"id": key}, consistent=True)
                found = -1 if item is None else item["number"]
                assert least <= found <= self.attempted[key], f"{key}: {least} was acknowledged"

    def _write(self, keys: list[str]) -> None:
        number = 0
        with Client(self.routers) as client:
            while not self._stop.is_set():
                number += 1
                for key in keys:
                    self.attempted[key] = number
                    try:
                        client.put_item(self.table, {"id": key, "number": number}, timeout_s=10)
                    except KeyplaneError:
                        continue
                    self.acknowledged[key] = number


class World:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.admin = AdminClient(cluster.addresses(Kind.METADATA)[0])
        self.routers = cluster.addresses(Kind.ROUTER)

    def create(self, table: str) -> None:
        key = catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING)
        self.admin.run(pb.CreateTableRequest(table=table, partition_key=key, partitions=4))

    def partitions(self, table: str) -> list[Partition]:
        request = pb.ListPartitionsRequest(table=table)
        listed = self.admin.call(request, pb.ListPartitionsResponse).partitions
        return [Partition.from_proto(message) for message in listed]

    def served(self, table: str) -> list[Partition]:
        """What the storage nodes themselves say they serve, in order."""
        found = []
        for member in self.cluster.state().of_kind(Kind.STORAGE):
            with grpc.insecure_channel(member.address) as channel:
                answer = storage_pb2_grpc.StorageServiceStub(channel).DescribePartitions(
                    storage_pb2.DescribePartitionsRequest(table=table), timeout=5
                )
            mine = [Partition.from_proto(message) for message in answer.partitions]
            assert all(partition.leader == member.name for partition in mine)
            found += mine
        return sorted(found, key=lambda partition: partition.start)

    def start_operation(self, request: Request) -> pb.Operation:
        """Under its request id, so that asking again gives the same operation."""
        response = _RESPONSES[type(request)]
        return self.admin.call(request, response, timeout_s=3).operation

    def process(self, member: str) -> psutil.Process:
        return psutil.Process(self.cluster.state().members[member].pid)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    cluster = Cluster(home=Path(tmp_path_factory.mktemp("every-step")))
    try:
        cluster.up(ClusterConfig(memds=1, routers=1, storage=2))
        running = World(cluster)
        yield running
        running.admin.close()
    finally:
        cluster.down(wipe=True)


# Every other case in every check, and all of them with --long.
CASES = [
    pytest.param(case, id=str(case), marks=[pytest.mark.long] if number % 2 else [])
    for number, case in enumerate(_cases())
]


@pytest.mark.cluster
@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_step(world: World, case: Case) -> None:
    table = str(case).replace("_", "-")
    world.create(table)
    writers = Writers(world.routers, table)
    writers.start()
    try:
        members, request = _prepare(world, case, table)
        before = world.partitions(table)
        passes, dies = members[case.passes], members[case.dies]
        world.cluster.restart(passes, env={"KEYPLANE_STOP_AT": case.point})
        asking = threading.Thread(target=_ask, args=(world, request), daemon=True)
        asking.start()
        stopped = world.process(passes)
        _wait_for(
            lambda: stopped.status() == psutil.STATUS_STOPPED, f"{passes} to reach {case.point}"
        )

        world.cluster.kill(dies)
        if dies != passes:
            world.cluster.resume(passes)
        world.cluster.restart(dies)
        asking.join(WAIT_S)

        operation = _ask(world, request)
        succeeded = _end(world, operation)
        _wait_for(lambda: _agreed(world, table), "the nodes and the map to agree")
        if not succeeded:
            assert (case.kind, case.dies) == ("move", TARGET)
            assert world.partitions(table) == before
        writers.stop()
        writers.check()
    finally:
        writers.stop()


def _prepare(world: World, case: Case, table: str) -> tuple[dict[str, str], Request]:
    """Which member plays which role, and the request that starts the operation."""
    first, *_ = world.partitions(table)
    nodes = [member.name for member in world.cluster.state().of_kind(Kind.STORAGE)]
    source = first.leader
    (target,) = [node for node in nodes if node != source]
    members = {METADATA: "metadata", SOURCE: source, TARGET: target}
    request_id = str(case)[:64]
    if case.kind == "split":
        return members, pb.SplitPartitionRequest(
            table=table, partition_id=first.partition_id, request_id=request_id
        )
    if case.kind == "move":
        return members, pb.MovePartitionRequest(
            table=table,
            partition_id=first.partition_id,
            target_node_id=target,
            request_id=request_id,
        )
    split = pb.SplitPartitionRequest(table=table, partition_id=first.partition_id)
    left, right = world.admin.run(split).result_partition_ids
    if case.kind == "distant_merge":
        # The right one comes back to the left one's node, so it is the source of that move.
        world.admin.run(
            pb.MovePartitionRequest(table=table, partition_id=right, target_node_id=target)
        )
        members = {METADATA: "metadata", SOURCE: target, TARGET: source}
    return members, pb.MergePartitionsRequest(
        table=table, left_id=left, right_id=right, request_id=request_id
    )


def _ask(world: World, request: Request) -> pb.Operation | None:
    """Asks until there is an answer, for at most WAIT_S; None if there never was."""
    give_up = time.monotonic() + WAIT_S
    while time.monotonic() < give_up:
        try:
            return world.start_operation(request)
        except KeyplaneError as error:
            if not error.retryable and error.reason is not Reason.DEADLINE_EXCEEDED:
                raise
        time.sleep(0.05)
    return None


def _end(world: World, operation: pb.Operation | None) -> bool:
    """I8: it ends, and so does everything else. Whether it succeeded."""
    assert operation is not None, "the Metadata Store did not answer"
    try:
        world.admin.wait_operation(operation.operation_id, timeout_s=WAIT_S)
        succeeded = True
    except DeadlineExceeded:
        raise
    except KeyplaneError:
        succeeded = False
    active = world.admin.call(pb.ListOperationsRequest(active_only=True), pb.ListOperationsResponse)
    assert not active.operations
    return succeeded


def _agreed(world: World, table: str) -> bool:
    """I1: one owner for every hash; and the Metadata Store knows the same ones."""
    served = world.served(table)
    position = 0
    for partition in served:
        assert partition.start >= position, f"two nodes serve {partition}"
        if partition.start > position:
            return False
        position = partition.end
    return position == KEYSPACE_END and served == world.partitions(table)


def _wait_for(done: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < give_up, f"waited {WAIT_S:.0f} s for {what}"
        time.sleep(0.02)
