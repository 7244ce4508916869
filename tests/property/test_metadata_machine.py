"""I8 for any mix of operations, deaths and time: each ends once, and all agree afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from metadata_world import World

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError
from keyplane.model.partition import KEYSPACE_END
from wire import crashpoints
from wire.memory_process import step_through_deaths

NODES = ("a", "b", "c")
TABLES = ("orders", "users")

# Refusals are part of the story; what they leave behind is checked at the end.
_POSITION = st.floats(0, 0.999, allow_nan=False)


class Operations(RuleBasedStateMachine):
    """Requests of every kind while the store and the storage nodes die and come back."""

    @initialize()
    def begin(self) -> None:
        crashpoints.disarm()
        self.directory = Path(tempfile.mkdtemp())
        self.world = World(self.directory, nodes=NODES)
        self.world.done(self.world.create("orders", 3))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for peer in self.world.fleet.nodes.values():
            if not peer.alive:
                peer.start()
            peer.forget_reply.clear()
        self.world.run(3)
        self.world.settle(600)
        self.world.run(3)
        self.world.check()
        self.world.database.close()
        shutil.rmtree(self.directory)

    # --- Requests --------------------------------------------------------------------------------

    @rule(table=st.sampled_from(TABLES), partitions=st.integers(1, 6))
    def create(self, table: str, partitions: int) -> None:
        self.ask(lambda: self.world.create(table, partitions))

    @rule(table=st.sampled_from(TABLES))
    def delete(self, table: str) -> None:
        self.ask(lambda: self.world.delete(table))

    @rule(
        table=st.sampled_from(TABLES),
        durability=st.sampled_from([catalog.DURABILITY_PROCESS, catalog.DURABILITY_POWER]),
    )
    def update(self, table: str, durability: int) -> None:
        self.ask(lambda: self.world.update(durability, table))

    @rule(table=st.sampled_from(TABLES), where=_POSITION, named=st.booleans())
    def split(self, table: str, where: float, named: bool) -> None:
        partition_id = self.partition_at(table, where)
        split_hash = int(where * KEYSPACE_END) + 1 if named else None
        self.ask(lambda: self.world.split(partition_id, split_hash, table))

    @rule(table=st.sampled_from(TABLES), where=_POSITION)
    def merge(self, table: str, where: float) -> None:
        left = self.partition_at(table, where)
        right = self.partition_at(table, where, following=True)
        self.ask(lambda: self.world.merge(left, right, table))

    @rule(table=st.sampled_from(TABLES), where=_POSITION, to=st.sampled_from(NODES))
    def move(self, table: str, where: float, to: str) -> None:
        partition_id = self.partition_at(table, where)
        self.ask(lambda: self.world.move(partition_id, to, table))

    @rule(node_id=st.sampled_from(NODES))
    def drain(self, node_id: str) -> None:
        self.ask(lambda: self.world.drain(node_id))

    @rule(node_id=st.sampled_from(NODES))
    def bring_back(self, node_id: str) -> None:
        self.ask(lambda: self.world.register(node_id))

    @rule(which=st.integers(0, 10))
    def cancel(self, which: int) -> None:
        active = list(self.world.core.catalog.active)
        if active:
            self.ask(lambda: self.world.cancel(active[which % len(active)]))

    # --- Trouble ---------------------------------------------------------------------------------

    @rule(seconds=st.floats(0.001, 15))
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(events=st.integers(0, 60))
    def store_dies(self, events: int) -> None:
        """After any number of events, in the middle of whatever it is doing."""
        for _ in range(events):
            step_through_deaths(self.world.clock)
        self.world.restart()

    @rule(point=st.sampled_from(sorted(p for p in crashpoints.POINTS if "metadata" in p)))
    def store_will_die_at(self, point: str) -> None:
        crashpoints.disarm()
        self.world.crash_at(point)

    @rule(node_id=st.sampled_from(NODES))
    def node_dies_or_returns(self, node_id: str) -> None:
        peer = self.world.fleet.nodes[node_id]
        peer.kill() if peer.alive else peer.start()

    @rule(
        node_id=st.sampled_from(NODES),
        method=st.sampled_from(["SplitPartition", "MergePartitions", "MovePartition"]),
    )
    def answers_get_lost_or_through(self, node_id: str, method: str) -> None:
        self.world.fleet.nodes[node_id].forget_reply ^= {method}

    # --- Help ------------------------------------------------------------------------------------

    def ask(self, request: Callable[[], object]) -> None:
        """A refusal, and a store that dies before it answers, are both fine."""
        with suppress(KeyplaneError):
            request()

    def partition_at(self, table: str, where: float, following: bool = False) -> int:
        """Id of the partition at this place of the keyspace; a made-up one if there is no map."""
        record = self.world.core.catalog.by_name.get(table)
        map_ = self.world.core.catalog.maps.get(record.table_id) if record else None
        if map_ is None:
            return 9999
        partition = map_.floor(int(where * KEYSPACE_END))
        return (
            map_.floor(partition.end % KEYSPACE_END).partition_id
            if following
            else (partition.partition_id)
        )


TestOperations = Operations.TestCase
TestOperations.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
