"""A router over real storage nodes, in virtual time, while partitions split, merge and move and
nodes die: no acknowledged write is lost, and nothing fails that need not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from google.protobuf.message import Message

from cache.config import ReaderConfig
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.client.call import Call, Wait
from keyplane.client.config import ClientConfig
from keyplane.client.core import ClientCore, scan_request
from keyplane.client.requests import Put
from keyplane.model.errors import KeyplaneError
from keyplane.model.partition import Partition, even_ranges
from keyplane.storage.v1 import storage_pb2 as storage
from router.config import RouterConfig
from router.core import RouterCore
from storage.config import StorageConfig
from storage.memory import MemoryEngine
from storage.node import StorageNode
from wire.memory import MemoryDisk, MemoryNetwork, VirtualClock
from wire.memory_process import MemoryProcess
from wire.metrics import Metrics
from wire.ports import Reply

OWNERSHIP = "/keyplane.storage.v1.OwnershipService/"
ROUTERS = ("router-1:1", "router-2:1")
NODES = ("storage-1", "storage-2", "storage-3")
TABLE = catalog.Table(
    table_id=7,
    name="music",
    partition_key=catalog.KeyAttribute(name="artist", type=catalog.SCALAR_TYPE_STRING),
    hash_seed=42,
    durability=catalog.DURABILITY_PROCESS,
    state=catalog.TABLE_STATE_ACTIVE,
)


@dataclass
class Machine:
    """What a storage node leaves behind when its process dies."""

    engine: MemoryEngine
    process: MemoryProcess


class Fleet:
    """Three storage nodes and two routers that find their way by asking them: there is no MemDS
    and no control plane. The test plays the operator.
    """

    def __init__(self, seed: int) -> None:
        self.clock = VirtualClock()
        self.network = MemoryNetwork(self.clock)
        self.rng = random.Random(seed)
        self.machines: dict[str, Machine] = {}
        self.partitions: list[Partition] = []
        self.next_id = 100
        self.operations = 0
        for name in NODES:
            self.start(name, MemoryEngine(self.clock))
        self._create_table()
        for address in ROUTERS:
            self._start_router(address)
        self.clock.run_for(2.0)

    def start(self, name: str, engine: MemoryEngine) -> None:
        process = MemoryProcess(self.network, f"{name}:1")
        engine.use(process.clock)
        self.machines[name] = Machine(engine, process)
        StorageNode(
            StorageConfig(node_id=name, cluster="test", address=f"{name}:1"),
            process.clock,
            process.transport,
            process.server,
            engine,
            [],
            Metrics(),
            random.Random(self.rng.getrandbits(32)),
            structlog.testing.CapturingLogger(),
        ).start()

    def restart(self, name: str) -> None:
        """kill -9, and a start on what was committed."""
        machine = self.machines[name]
        machine.process.kill()
        machine.engine.crash()
        self.clock.run_for(self.rng.uniform(0, 0.5))
        self.start(name, machine.engine)

    def _start_router(self, address: str) -> None:
        process = MemoryProcess(self.network, address)
        RouterCore(
            RouterConfig(seeds=[f"{name}:1" for name in NODES]),
            ReaderConfig("test"),
            process.clock,
            process.transport,
            process.server,
            [],
            MemoryDisk(self.clock),
            random.Random(self.rng.getrandbits(32)),
            Metrics(),
        ).start()

    def _create_table(self) -> None:
        for number, (start, end) in enumerate(even_ranges(6), 1):
            leader = NODES[number % 3]
            partition = Partition(number, 7, start, end, 1, leader)
            request = storage.OpenPartitionsRequest(
                operation_id=f"create {number}", table=TABLE, partitions=[partition.to_proto()]
            )
            self.operate(leader, "OpenPartitions", request)
            self.partitions.append(partition)

    # --- the operator ---------------------------------------------------------------------------

    def operate(self, node: str, method: str, request: Message) -> Any:
        """Calls until it succeeds, as the Metadata Store does."""
        while True:
            replies: list[Reply] = []
            deadline = self.clock.now() + 5
            self.network.transport("operator").call(
                f"{node}:1",
                OWNERSHIP + method,
                request.SerializeToString(),
                deadline,
                replies.append,
            )
            self.clock.run_until(lambda replies=replies: bool(replies))
            if replies[0].error is None:
                return getattr(storage, f"{method}Response").FromString(replies[0].payload)
            if not replies[0].error.retryable:
                raise replies[0].error
            self.clock.run_for(0.05)

    def change_something(self) -> None:
        """One split, merge or move at random, to its end."""
        self.operations += 1
        operation_id = f"operation {self.operations}"
        partition = self.rng.choice(self.partitions)
        match self.rng.choice(["split", "merge", "move", "move"]):
            case "split" if partition.end - partition.start > 1 << 40:
                self._split(operation_id, partition)
            case "merge":
                self._merge(operation_id, partition)
            case _:
                self._move(operation_id, partition)

    def _split(self, operation_id: str, partition: Partition) -> None:
        left_id, right_id = self._new_id(), self._new_id()
        request = storage.SplitPartitionRequest(
            operation_id=operation_id,
            partition_id=partition.partition_id,
            epoch=partition.epoch,
            split_hash=(partition.start + partition.end) // 2,
            left_id=left_id,
            right_id=right_id,
        )
        made = self.operate(partition.leader, "SplitPartition", request)
        self._replace([partition], [made.left, made.right])

    def _merge(self, operation_id: str, left: Partition) -> None:
        right = next((each for each in self.partitions if each.start == left.end), None)
        if right is None or right.leader != left.leader:
            return
        request = storage.MergePartitionsRequest(
            operation_id=operation_id,
            left_id=left.partition_id,
            left_epoch=left.epoch,
            right_id=right.partition_id,
            right_epoch=right.epoch,
            merged_id=self._new_id(),
        )
        made = self.operate(left.leader, "MergePartitions", request)
        self._replace([left, right], [made.merged])

    def _move(self, operation_id: str, partition: Partition) -> None:
        target = self.rng.choice([name for name in NODES if name != partition.leader])
        request = storage.MovePartitionRequest(
            operation_id=operation_id,
            partition_id=partition.partition_id,
            epoch=partition.epoch,
            target=catalog.Node(node_id=target, address=f"{target}:1"),
        )
        while True:
            progress = self.operate(partition.leader, "MovePartition", request)
            if progress.phase == storage.MOVE_PHASE_ABORTED:
                return
            if progress.phase == storage.MOVE_PHASE_DONE:
                self._replace([partition], [progress.moved])
                return
            self.clock.run_for(0.02)

    def _new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def _replace(self, old: list[Partition], new: list[catalog.Partition]) -> None:
        kept = [each for each in self.partitions if each not in old]
        self.partitions = sorted(
            kept + [Partition.from_proto(each) for each in new], key=lambda each: each.start
        )


class Caller:
    """A client that counts each of its keys up, one write after the other, as the SDK would."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self.keys = [f"{name} {number}" for number in range(5)]
        self.acknowledged: dict[str, int] = {}
        self.attempted: dict[str, int] = {}
        self.failures: list[KeyplaneError] = []
        self.done = 0
        self.stopped = False
        client_id = fleet.rng.randbytes(16)
        self._core = ClientCore(
            ROUTERS, ClientConfig(), random.Random(fleet.rng.getrandbits(32)), client_id, 0.0
        )
        self._next()

    def _next(self) -> None:
        if self.stopped:
            return
        key = self.keys[self.done % len(self.keys)]
        count = self.attempted.get(key, 0) + 1
        self.attempted[key] = count
        now = self.fleet.clock.now()
        call = self._core.put(now, "music", {"artist": key, "count": count}, None, None)

        def ended(outcome: KeyplaneError | int) -> None:
            if isinstance(outcome, KeyplaneError):
                self.failures.append(outcome)
            else:
                self.acknowledged[key] = count
            self.done += 1
            self._next()

        self.drive(call, ended)

    def drive(self, call: Call[Any], on_end: Callable[[Any], None]) -> None:
        """The loop of the SDK's shells, in callbacks."""
        clock = self.fleet.clock
        try:
            step = call.next(clock.now())
        except KeyplaneError as error:
            on_end(error)
            return
        if isinstance(step, Wait):
            clock.call_later(step.seconds, lambda: self.drive(call, on_end))
            return

        def on_reply(reply: Reply) -> None:
            try:
                if reply.error is not None:
                    call.failed(clock.now(), reply.error)
                elif call.answered(
                    clock.now(), call.method.response_type.FromString(reply.payload)
                ):
                    on_end(call.result)
                    return
            except KeyplaneError as error:
                on_end(error)
                return
            self.drive(call, on_end)

        self.fleet.network.transport("caller").call(
            step.router,
            call.method.path,
            call.request.SerializeToString(),
            clock.now() + step.timeout_s,
            on_reply,
        )

    def run(self, call: Call[Any]) -> Any:
        ended: list[Any] = []
        self.drive(call, ended.append)
        self.fleet.clock.run_until(lambda: bool(ended))
        if isinstance(ended[0], KeyplaneError):
            raise ended[0]
        return ended[0]

    def count_of(self, key: str) -> int:
        call = self._core.get(self.fleet.clock.now(), "music", {"artist": key}, True, None)
        found = self.run(call)
        return found.item["count"] if found is not None else 0

    def check(self) -> None:
        """I2: each key holds its last acknowledged count, or one that was attempted after it."""
        for key in self.keys:
            assert self.acknowledged.get(key, 0) <= self.count_of(key) <= self.attempted.get(key, 0)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_fails_while_partitions_split_merge_and_move(seed: int) -> None:
    """Forty changes under load, announced to nobody: every write is acknowledged, and there."""
    fleet = Fleet(seed)
    callers = [Caller(fleet, f"caller {number}") for number in range(4)]
    for _ in range(40):
        fleet.change_something()
        fleet.clock.run_for(0.05)
    for caller in callers:
        caller.stopped = True
    fleet.clock.run_for(10.0)
    assert [str(error) for caller in callers for error in caller.failures] == []
    for caller in callers:
        caller.check()
        assert all(caller.count_of(key) == caller.acknowledged[key] for key in caller.keys)


@pytest.mark.parametrize("seed", range(6))
def test_no_acknowledged_write_is_lost_when_nodes_and_routers_die_as_well(seed: int) -> None:
    """Every write ends definitely: a node that has died knows what it did when it is back."""
    fleet = Fleet(seed)
    callers = [Caller(fleet, f"caller {number}") for number in range(4)]
    for round_ in range(20):
        fleet.change_something()
        fleet.restart(fleet.rng.choice(NODES))
        if round_ % 5 == 2:
            fleet.network.remove("router-1:1")
            fleet.clock.run_for(0.3)
            fleet._start_router("router-1:1")
        fleet.clock.run_for(0.2)
    for caller in callers:
        caller.stopped = True
    fleet.clock.run_for(10.0)
    for caller in callers:
        caller.check()
        assert caller.done > 100
        assert [str(error) for error in caller.failures] == []


def test_a_batch_and_a_scan_see_everything_across_changes() -> None:
    fleet = Fleet(1)
    caller = Caller(fleet, "caller")
    caller.stopped = True
    fleet.clock.run_for(6.0)
    core = caller._core
    artists = [f"artist {number}" for number in range(60)]
    for start in range(0, 60, 20):
        some = artists[start : start + 20]
        puts = [Put({"artist": artist, "count": 1}) for artist in some]
        caller.run(core.batch_write(fleet.clock.now(), {"music": puts}, None))
        fleet.change_something()
    found = caller.run(
        core.batch_get(
            fleet.clock.now(), {"music": [{"artist": each} for each in artists]}, True, None
        )
    )
    assert {item["artist"] for item in found["music"]} == set(artists)

    cursor = core.scan(scan_request("music", 0, 1, 0, None, True), None)
    seen: list[str] = []
    while not cursor.exhausted:
        page = caller.run(cursor.next_page(fleet.clock.now()))
        seen += [item["artist"] for item in page.items]
        fleet.change_something()
    assert set(artists) <= set(seen)
    assert len(seen) == len(set(seen))
