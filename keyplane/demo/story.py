"""What happens in the demo, in order, to a cluster under load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from google.protobuf.message import Message
from pymemcache.client.base import Client as MemcachedClient

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.client.admin import AdminClient
from keyplane.client.sync import Client
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.demo.figures import Figures
from keyplane.demo.load import Load, LoadConfig, keyplane_command, p99_ms, within
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.workload.acklog import read_ack_log

TABLE = "demo"
PARTITIONS = 8

# Undisturbed load before the first split, after two seconds of warming up.
QUIET_S = 8.0
WARM_UP_S = 2.0
# The control plane is away for at least this long.
OUTAGE_S = 16.0
# Load after each disturbance, for its effects to show.
SETTLE_S = 3.0
# Keys read through the router that starts from nothing.
PROBE_KEYS = 100

Tell = Callable[[str], None]


class Story:
    def __init__(self, cluster: Cluster, directory: Path, tell: Tell) -> None:
        """directory: for the load's logs. tell: hears one line for each thing that happens."""
        self.cluster = cluster
        self.load: Load | None = None
        self.figures = Figures()
        self._directory = directory
        self._tell = tell
        self._admin: AdminClient | None = None
        self._probes_failed = 0

    def run(self) -> Figures:
        """Raises KeyplaneError when a step cannot be taken at all."""
        started = time.monotonic()
        self._start()
        self._change_the_map()
        self._lose_the_control_plane()
        self._lose_a_router()
        self._count()
        self._verify()
        self.figures.seconds = round(time.monotonic() - started, 1)
        return self.figures

    def close(self) -> None:
        """Leaves no process behind, whatever happened."""
        if self.load is not None:
            self.load.kill()
        if self._admin is not None:
            self._admin.close()
        self.cluster.down()

    # --- The chapters

    def _start(self) -> None:
        config = ClusterConfig(ephemeral=True)
        self.cluster.up(config)
        self._tell(
            f"cluster is up: 1 metadata store, {config.memds} memcached, {config.routers} routers, "
            f"{config.storage} storage nodes"
        )
        self._admin = AdminClient(self.cluster.addresses(Kind.METADATA)[0])
        key = catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING)
        self._run(pb.CreateTableRequest(table=TABLE, partition_key=key, partitions=PARTITIONS))
        self._tell(f"table {TABLE!r} has {PARTITIONS} partitions")
        config_of_load = LoadConfig(TABLE)
        self.load = Load(self.cluster, config_of_load, self._directory)
        self.load.wait_started()
        self._tell(
            f"load is on: {config_of_load.clients} clients, {config_of_load.rate_per_s:.0f} "
            "requests a second, half of them writes"
        )
        self._wait(WARM_UP_S)
        quiet_from = time.time()
        self._wait(QUIET_S)
        self.load.poll()
        self.figures.p99_ms_before = p99_ms(within(self.load.samples, quiet_from, time.time()))
        self._tell(f"p99 is {self.figures.p99_ms_before:.1f} ms with everything well")

    def _change_the_map(self) -> None:
        busiest = self._busiest()
        split = self._run(pb.SplitPartitionRequest(table=TABLE, partition_id=busiest.partition_id))
        left, right = split.result_partition_ids
        self.figures.splits += 1
        self._tell(f"split the busiest partition, {busiest.partition_id}, into {left} and {right}")
        self._wait(SETTLE_S)

        target = self._other_node(busiest.leader)
        self._move(right, target)
        self._tell(f"moved partition {right} from {busiest.leader} to {target}")
        self._wait(SETTLE_S)

        merge = self._run(pb.MergePartitionsRequest(table=TABLE, left_id=left, right_id=right))
        self._saw_fence(merge)
        self.figures.merges += 1
        merged = merge.result_partition_ids[-1]
        self._tell(f"merged {left} and {right} into {merged}, moving one of them first")
        self._wait(SETTLE_S)

    def _lose_the_control_plane(self) -> None:
        operation_id = self._kill_in_the_middle_of_a_move()
        down_from = time.time()
        self._wait(SETTLE_S)

        for member in self.cluster.state().of_kind(Kind.MEMDS):
            _flush(member.address)
            self.cluster.restart(member.name)
            self.figures.memcached_emptied += 1
        self._tell("flushed and restarted every memcached node: MemDS is empty")
        self._wait(SETTLE_S)

        started = time.monotonic()
        router = self.cluster.add_router()
        self.figures.router_start_seconds = round(time.monotonic() - started, 2)
        read = self._read_through(router.address)
        self.figures.router_started_without_control_plane = read == PROBE_KEYS
        self._tell(
            f"{router.name} started from nothing in {self.figures.router_start_seconds:.1f} s and "
            f"read {read} of {PROBE_KEYS} keys"
        )
        self._wait(down_from + OUTAGE_S - time.time())
        self._count_outage(down_from, time.time())

        self.cluster.restart("metadata")
        operation = self._the_admin.wait_operation(operation_id)
        self._saw_fence(operation)
        self.figures.moves += 1
        self.figures.operations_resumed += operation.resumed_count > 0
        self._tell("metadata store is back, took the move up again and finished it")
        self._wait(SETTLE_S)

    def _lose_a_router(self) -> None:
        self.cluster.kill("router-1")
        self.figures.routers_killed += 1
        self._tell("kill -9 router-1: clients go on through the others")
        self._wait(SETTLE_S)

    # --- Steps

    def _kill_in_the_middle_of_a_move(self) -> str:
        """Kills the Metadata Store right after it has promised a move, and returns the move.

        The kill is a signal to a pid known beforehand: anything slower, and the move may be over.
        """
        busiest = self._busiest()
        target = self._other_node(busiest.leader)
        pid = self.cluster.state().members["metadata"].pid
        request = _move_request(busiest.partition_id, target)
        operation = self._the_admin.call(request, pb.MovePartitionResponse).operation
        os.kill(pid, signal.SIGKILL)
        self.cluster.kill("metadata")
        self._tell(
            f"kill -9 metadata, just after it promised to move {busiest.partition_id} to {target}"
        )
        return operation.operation_id

    def _run(self, request: Message) -> pb.Operation:
        return self._the_admin.run(request)

    def _move(self, partition_id: int, target: str) -> None:
        self._saw_fence(self._run(_move_request(partition_id, target)))
        self.figures.moves += 1

    def _saw_fence(self, operation: pb.Operation) -> None:
        self.figures.max_fence_ms = max(self.figures.max_fence_ms, round(operation.fence_ms, 2))

    def _busiest(self) -> catalog.Partition:
        answer = self._the_admin.call(
            pb.ListPartitionsRequest(table=TABLE, page_size=1000), pb.ListPartitionsResponse
        )
        load = {
            load.partition_id: load.reads_per_second + load.writes_per_second
            for load in answer.loads
        }
        return max(answer.partitions, key=lambda p: load.get(p.partition_id, 0.0))

    def _other_node(self, leader: str) -> str:
        """The storage node with the fewest partitions, besides this one."""
        nodes = self._the_admin.call(pb.ListNodesRequest(), pb.ListNodesResponse).nodes
        others = [status for status in nodes if status.node.node_id != leader]
        return min(others, key=lambda status: status.partition_count).node.node_id

    def _read_through(self, address: str) -> int:
        """How many of some acknowledged keys one router alone finds."""
        keys = list({write.key: None for write in read_ack_log(self._the_load.ack_log)})[
            -PROBE_KEYS:
        ]
        read = 0
        with Client([address]) as client:
            for key in keys:
                try:
                    read += client.get_item(TABLE, {"id": key}) is not None
                except KeyplaneError:
                    self._probes_failed += 1
        return read

    def _wait(self, seconds: float) -> None:
        """Lets the load run on, which stops only this story."""
        time.sleep(max(0.0, seconds))

    # --- The sums

    def _count_outage(self, down_from: float, down_until: float) -> None:
        self._the_load.poll()
        meanwhile = within(self._the_load.samples, down_from, down_until)
        failed = sum(sample.outcome != "ok" for sample in meanwhile)
        figures = self.figures
        figures.control_plane_down_seconds = round(down_until - down_from, 1)
        figures.requests_while_control_plane_down = len(meanwhile)
        figures.failed_while_control_plane_down = failed
        figures.p99_ms_while_control_plane_down = p99_ms(meanwhile)
        self._tell(
            f"{figures.control_plane_down_seconds:.0f} s without a control plane: "
            f"{len(meanwhile):,} requests, {failed} failed, "
            f"p99 {figures.p99_ms_while_control_plane_down:.1f} ms"
        )

    def _count(self) -> None:
        summary = self._the_load.stop()
        self.figures.requests = summary["requests"]
        self.figures.failed_requests = summary["failed"] + self._probes_failed
        self._tell("load is off; reading every acknowledged write back")

    def _verify(self) -> None:
        options = {
            "--cluster": self.cluster.name,
            "--data-dir": self.cluster.paths.root.parent,
            "--ack-log": self._the_load.ack_log,
        }
        done = subprocess.run(
            keyplane_command("workload", "verify", "--json", options=options),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        lines = done.stdout.splitlines()
        if not lines or "lost_writes" not in lines[-1]:
            raise KeyplaneError(Reason.INTERNAL, f"could not verify: {done.stderr[-500:]}")
        report = json.loads(lines[-1])
        self.figures.acknowledged_writes = report["acknowledged_writes"]
        self.figures.lost_writes = report["lost_writes"]
        self.figures.applied_twice = report["applied_twice"]
        self.figures.unread_keys = report["unread_keys"]

    @property
    def _the_load(self) -> Load:
        assert self.load is not None
        return self.load

    @property
    def _the_admin(self) -> AdminClient:
        assert self._admin is not None
        return self._admin


def _move_request(partition_id: int, target: str) -> pb.MovePartitionRequest:
    return pb.MovePartitionRequest(table=TABLE, partition_id=partition_id, target_node_id=target)


def _flush(address: str) -> None:
    host, port = address.rsplit(":", 1)
    with closing(MemcachedClient((host, int(port)), connect_timeout=2, timeout=2)) as memcached:
        memcached.flush_all(noreply=False)
