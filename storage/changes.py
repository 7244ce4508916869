"""Changes of what this node serves that involve no other node: open, split, merge, drop, release.

Each is one step of the write queue: checked at its turn, one synced batch, then memory. Each is
idempotent by its operation id, so a caller that missed the answer simply asks again.
"""

from __future__ import annotations

from collections.abc import Callable

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as pb
from storage.answer import Answer
from storage.layout import item_range, progress_key, table_items
from storage.ownership import Holding, State
from storage.records import (
    Progress,
    delete_holding,
    delete_table,
    put_holding,
    put_progress,
    put_table,
)
from storage.shard import Shard
from storage.state import NodeState
from storage.writes import Step
from wire import crashpoints
from wire.ports import Batch

crashpoints.declare(
    "storage.open.persisted",
    "storage.split.persisted",
    "storage.merge.persisted",
    "storage.drop.persisted",
    "storage.move.released",
)


class Changes:
    def __init__(self, state: NodeState) -> None:
        self._state = state

    def open(
        self, request: pb.OpenPartitionsRequest, answer: Answer[pb.OpenPartitionsResponse]
    ) -> None:
        """Starts to serve new, empty partitions. Ids that are known already are left alone."""
        state = self._state
        asked = [Partition.from_proto(each) for each in request.partitions]

        def plan() -> Step:
            table = request.table
            self._check_table_alive(table.table_id)
            new = [each for each in asked if state.ownership.get(each.partition_id) is None]
            for partition in new:
                self._check_own(partition, table.table_id)
            holdings = [Holding.opened(each, request.operation_id) for each in new]
            state.ownership.check(holdings)
            batch = Batch()
            if holdings and table.table_id not in state.tables:
                put_table(batch, table)
            for holding in holdings:
                put_holding(batch, holding)
                put_progress(batch, holding.partition.partition_id, Progress())

            def apply() -> None:
                if holdings:
                    state.tables.setdefault(table.table_id, table)
                state.ownership.install(holdings)
                for holding in holdings:
                    state.open_shard(holding, Progress())
                crashpoints.crashpoint("storage.open.persisted")
                answer.ok(pb.OpenPartitionsResponse())

            return Step(batch, apply)

        state.queue.change(plan, answer.fail)

    def split(
        self, request: pb.SplitPartitionRequest, answer: Answer[pb.SplitPartitionResponse]
    ) -> None:
        """Replaces a partition by two, at the next epoch. Their items stay where they are."""
        state = self._state

        def respond(left: Partition, right: Partition) -> Callable[[], None]:
            response = pb.SplitPartitionResponse(left=left.to_proto(), right=right.to_proto())
            return lambda: answer.ok(response)

        def plan() -> Step:
            done = self._retired_by(request.partition_id, request.operation_id)
            if done is not None:
                return Step(Batch(), respond(*done.successors))
            shard = self._divisible(request.partition_id, request.epoch)
            parent = shard.partition
            if not parent.start < request.split_hash < parent.end:
                raise KeyplaneError(
                    Reason.SPLIT_KEY_OUTSIDE_RANGE,
                    f"hash {request.split_hash:#018x} does not cut partition"
                    f" {parent.partition_id} [{parent.start:#018x}, {parent.end:#018x}) in two",
                )
            left = _heir(parent, request.left_id, parent.start, request.split_hash, parent.epoch)
            right = _heir(parent, request.right_id, request.split_hash, parent.end, parent.epoch)
            empty = shard.counted and not shard.items
            progress = Progress(shard.version, counted=empty)
            step = self._replace([shard], [left, right], progress, request.operation_id)

            def apply() -> None:
                step.apply()
                for child in (left, right):
                    state.shards[child.partition_id].replace([shard])
                crashpoints.crashpoint("storage.split.persisted")
                respond(left, right)()

            return Step(step.batch, apply)

        state.queue.change(plan, answer.fail)

    def merge(
        self, request: pb.MergePartitionsRequest, answer: Answer[pb.MergePartitionsResponse]
    ) -> None:
        """Replaces two neighbours by one, at the next epoch after both."""
        state = self._state

        def respond(merged: Partition) -> Callable[[], None]:
            return lambda: answer.ok(pb.MergePartitionsResponse(merged=merged.to_proto()))

        def plan() -> Step:
            done = self._retired_by(request.left_id, request.operation_id)
            if done is not None:
                return Step(Batch(), respond(*done.successors))
            left = self._divisible(request.left_id, request.left_epoch)
            right = self._divisible(request.right_id, request.right_epoch)
            one, other = left.partition, right.partition
            if one.table_id != other.table_id or one.end != other.start:
                raise KeyplaneError(
                    Reason.NOT_NEIGHBOURS,
                    f"partition {other.partition_id} does not begin where partition"
                    f" {one.partition_id} ends: name two neighbours, the left one first",
                )
            epoch = max(one.epoch, other.epoch)
            merged = _heir(one, request.merged_id, one.start, other.end, epoch)
            progress = Progress(
                max(left.version, right.version),
                left.items + right.items,
                left.data_bytes + right.data_bytes,
                left.counted and right.counted,
            )
            step = self._replace([left, right], [merged], progress, request.operation_id)

            def apply() -> None:
                step.apply()
                state.shards[merged.partition_id].replace([left, right])
                crashpoints.crashpoint("storage.merge.persisted")
                respond(merged)()

            return Step(step.batch, apply)

        state.queue.change(plan, answer.fail)

    def update_table(
        self, request: pb.UpdateTableRequest, answer: Answer[pb.UpdateTableResponse]
    ) -> None:
        """Takes a table's new settings over. Its name, keys and hash seed never change."""
        state = self._state
        table = request.table

        def plan() -> Step:
            self._check_table_alive(table.table_id)
            batch = Batch()
            put_table(batch, table)

            def apply() -> None:
                state.tables[table.table_id] = table
                now = state.clock.now()
                for shard in state.shards.values():
                    if shard.partition.table_id == table.table_id:
                        shard.take(table, now)
                state.generation += 1
                answer.ok(pb.UpdateTableResponse())

            return Step(batch, apply)

        state.queue.change(plan, answer.fail)

    def drop_table(
        self, request: pb.DropTableRequest, answer: Answer[pb.DropTableResponse]
    ) -> None:
        """Ends every partition of a table, whatever it is doing, and deletes its items."""
        state = self._state

        def plan() -> Step:
            known = state.tables.get(request.table_id)
            if known is not None and known.state == catalog.TABLE_STATE_DELETED:
                return Step(Batch(), lambda: answer.ok(pb.DropTableResponse()))
            table = catalog.Table(table_id=request.table_id, name=request.name)
            if known is not None:
                table.CopyFrom(known)
            table.state = catalog.TABLE_STATE_DELETED
            dropped = [
                holding.become_dropped(request.operation_id)
                for holding in state.ownership
                if holding.partition.table_id == request.table_id
            ]
            tables, forgotten = self._surplus_tombstones(arriving=len(dropped))
            batch = Batch(delete_ranges=[table_items(request.table_id)])
            put_table(batch, table)
            for table_id in tables:
                delete_table(batch, table_id)
            for partition_id in forgotten:
                delete_holding(batch, partition_id)
            for holding in dropped:
                delete_holding(batch, holding.partition.partition_id)
                put_holding(batch, holding)

            def apply() -> None:
                for table_id in (*tables, request.table_id):
                    state.tables.pop(table_id, None)
                # At the end: they are in the order in which they were dropped.
                state.tables[request.table_id] = table
                state.ownership.install(dropped, forgotten)
                for holding in dropped:
                    if holding.partition.partition_id in state.shards:
                        state.close_shard(holding.partition.partition_id)
                crashpoints.crashpoint("storage.drop.persisted")
                answer.ok(pb.DropTableResponse())

            return Step(batch, apply)

        state.queue.change(plan, answer.fail)

    def release(
        self, request: pb.ReleaseMovedRequest, answer: Answer[pb.ReleaseMovedResponse]
    ) -> None:
        """Deletes what is left of a partition that moved away, except where something else of this
        node lives by now.
        """
        state = self._state

        def plan() -> Step:
            holding = self._retired_by(request.partition_id, request.operation_id)
            if holding is None or holding.released:
                return Step(Batch(), lambda: answer.ok(pb.ReleaseMovedResponse()))
            partition = holding.partition
            released = holding.become_released()
            batch = Batch(
                delete_ranges=[
                    item_range(partition.table_id, start, end)
                    for start, end in state.ownership.gaps(
                        partition.table_id, partition.start, partition.end
                    )
                ]
            )
            put_holding(batch, released)

            def apply() -> None:
                state.ownership.install([released])
                crashpoints.crashpoint("storage.move.released")
                answer.ok(pb.ReleaseMovedResponse())

            return Step(batch, apply)

        state.queue.change(plan, answer.fail)

    def _surplus_tombstones(self, arriving: int) -> tuple[list[int], list[int]]:
        """Ids of tables and partitions whose tombstones make room for those of another table."""
        state = self._state
        deleted = [
            table_id
            for table_id, table in state.tables.items()
            if table.state == catalog.TABLE_STATE_DELETED
        ]
        tables = deleted[: max(0, len(deleted) + 1 - state.config.dropped_tables_max)]
        gone = set(tables)
        surplus = state.ownership.surplus_tombstones(state.config.tombstones_max, arriving)
        theirs = [
            each.partition.partition_id
            for each in state.ownership
            if each.partition.table_id in gone
        ]
        return tables, sorted({*surplus, *theirs})

    # --- Shared --------------------------------------------------------------------------------

    def _replace(
        self,
        parents: list[Shard],
        heirs: list[Partition],
        progress: Progress,
        operation_id: str,
    ) -> Step:
        """Retires partitions in favour of others that cover the same hashes."""
        state = self._state
        for heir in heirs:
            if not heir.partition_id or state.ownership.get(heir.partition_id) is not None:
                raise KeyplaneError(
                    Reason.ILLEGAL_TRANSITION,
                    f"partition id {heir.partition_id} is taken; ids are given out once",
                )
        serving = [state.ownership.serving(each.partition.partition_id) for each in parents]
        retired = [each.become_retired(operation_id, tuple(heirs)) for each in serving]
        remembers_since = max(each.remembers_since for each in serving)
        opened = [Holding.opened(heir, operation_id, remembers_since) for heir in heirs]
        most = state.config.tombstones_max
        forgotten = state.ownership.surplus_tombstones(most, arriving=len(parents))
        state.ownership.check([*retired, *opened], forgotten)
        batch = Batch()
        for holding in [*retired, *opened]:
            put_holding(batch, holding)
        for parent in parents:
            batch.writes[progress_key(parent.partition.partition_id)] = None
        for heir in heirs:
            put_progress(batch, heir.partition_id, progress)
        for partition_id in forgotten:
            delete_holding(batch, partition_id)

        def apply() -> None:
            state.ownership.install([*retired, *opened], forgotten)
            for parent in parents:
                state.close_shard(parent.partition.partition_id)
            for holding in opened:
                state.open_shard(holding, progress)

        return Step(batch, apply)

    def _retired_by(self, partition_id: int, operation_id: str) -> Holding | None:
        """The tombstone, if the operation has been carried out already."""
        holding = self._state.ownership.get(partition_id)
        if (
            holding is not None
            and holding.state is State.RETIRED
            and holding.operation_id == operation_id
        ):
            return holding
        return None

    def _divisible(self, partition_id: int, epoch: int) -> Shard:
        """Raises KeyplaneError: PARTITION_NOT_FOUND, PARTITION_BUSY or STALE_ROUTE."""
        shard = self._state.serving_shard(partition_id)
        if shard.moving:
            raise KeyplaneError(
                Reason.PARTITION_BUSY,
                f"partition {partition_id} is being moved; try again when the move has ended",
            )
        if shard.partition.epoch != epoch:
            raise KeyplaneError(
                Reason.STALE_ROUTE,
                f"partition {partition_id} is at epoch {shard.partition.epoch}, not {epoch}",
                details=(self._state.ownership.hint(self._state.ownership.serving(partition_id)),),
            )
        return shard

    def _check_table_alive(self, table_id: int) -> None:
        """Raises KeyplaneError: MALFORMED_REQUEST without an id, TABLE_NOT_FOUND if deleted."""
        if not table_id:
            raise KeyplaneError(Reason.MALFORMED_REQUEST, "the table has no id")
        if table_id in self._state.tables:
            self._state.table(table_id)

    def _check_own(self, partition: Partition, table_id: int) -> None:
        node_id = self._state.node.node_id
        if partition.leader != node_id or partition.table_id != table_id:
            raise KeyplaneError(
                Reason.MALFORMED_REQUEST,
                f"partition {partition.partition_id} is of table {partition.table_id} on node"
                f" {partition.leader!r}, but was sent to node {node_id!r} for table {table_id}",
            )


def _heir(like: Partition, partition_id: int, start: int, end: int, epoch: int) -> Partition:
    """A successor on the same nodes, at the epoch after `epoch`."""
    return Partition(partition_id, like.table_id, start, end, epoch + 1, like.leader, like.replicas)
