"""The storage node: its parts, its methods, and its life from start to drain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cache.config import PublisherConfig
from cache.publisher import ReportPublisher
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import Signer
from keyplane.storage.v1 import storage_pb2 as pb
from storage.background import ItemCounter
from storage.changes import Changes
from storage.config import StorageConfig
from storage.executor import Executor
from storage.heartbeat import Heartbeat
from storage.inventory import Inventory
from storage.move_target import MoveTarget
from storage.moves import Moves
from storage.ownership import NodeRef, OwnershipTable, State
from storage.records import (
    FORMAT,
    TOKENS_FORMAT,
    check_node,
    load_holdings,
    load_progress,
    load_tables,
    put_node,
)
from storage.service import OWNERSHIP_SERVICE, STORAGE_SERVICE, TRANSFER_SERVICE, Registrar
from storage.state import Log, NodeState
from storage.suggest import SplitAdvisor
from storage.token_log import SWEPT_PER_BEAT, TokenLog
from storage.writes import Step, WriteQueue
from wire.metrics import Metrics
from wire.ports import Batch, Clock, Engine, MemdsNode, Rng, Server, Timer, Transport


class StorageNode:
    """One storage node over its ports.

    It serves from `start` on: what it owns is on its own disk, so it waits for nobody.
    """

    def __init__(
        self,
        config: StorageConfig,
        clock: Clock,
        transport: Transport,
        server: Server,
        engine: Engine,
        memds: Sequence[MemdsNode],
        metrics: Metrics,
        rng: Rng,
        log: Log,
        signer: Signer | None = None,
    ) -> None:
        """Raises KeyplaneError: FOREIGN_FORMAT, INVALID_ARGUMENT or CORRUPT for data in the engine
        that this node cannot or must not use.
        """
        node = NodeRef(config.node_id, config.address, config.zone)
        data_format = check_node(engine, config.node_id, config.cluster)
        tokens = TokenLog(config.writes, clock)
        self.state = state = NodeState(
            config,
            clock,
            transport,
            engine,
            WriteQueue(config.writes, clock, engine, metrics, tokens),
            metrics,
            rng,
            log,
            OwnershipTable(node),
            tokens,
            signer,
        )
        self._load(data_format)
        if data_format != FORMAT:
            self._introduce(data_format)
        self._moves = Moves(state)
        self._target = MoveTarget(state)
        self._counter = ItemCounter(state)
        self._heartbeat = Heartbeat(state)
        self._inventory = Inventory(state)
        self._reports = ReportPublisher(
            PublisherConfig(config.cluster, beat_s=config.report_s),
            clock,
            memds,
            metrics,
            self._inventory,
        )
        self._timer: Timer | None = None
        self._beat_at = clock.now()
        self._draining: KeyplaneError | None = None
        self._started = False
        self._register(Registrar(server, metrics, lambda: self._draining))
        metrics.gauge(
            "storage_partitions", "Partitions that this node serves", lambda: len(state.shards)
        )
        metrics.gauge(
            "storage_items",
            "Items in them, as far as counted",
            lambda: sum(shard.items for shard in state.shards.values() if shard.counted),
        )
        metrics.gauge(
            "storage_tokens", "Write tokens that are remembered", lambda: len(tokens.memory)
        )

    def start(self) -> None:
        self._started = True
        self._target.forget_idle()
        self._moves.resume()
        self._reports.start()
        self._beat()

    @property
    def ready(self) -> bool:
        return self._started and self._draining is None

    def drain(self, on_done: Callable[[], None]) -> None:
        """Refuses new calls, finishes queued writes, closes the engine. Moves are left as a crash
        would leave them: the next start, here or at the other end, takes care of them.
        """
        self._draining = KeyplaneError(
            Reason.SHUTTING_DOWN,
            f"storage node {self.state.node.node_id} is shutting down; try again shortly",
        )
        if self._timer is not None:
            self._timer.cancel()
        self._reports.stop()
        self._moves.stop()
        for shard in self.state.shards.values():
            if shard.gate is not None:
                shard.gate.refuse(self._draining)

        def idle() -> None:
            self.state.engine.close()
            on_done()

        self.state.queue.when_idle(idle)

    def status(self) -> str:
        state = self.state
        failure = f", {state.queue.failure.message}" if state.queue.failure else ""
        return (
            f"{state.node.node_id}: serves {len(state.shards)} partitions"
            f" of {len(state.tables)} tables, {len(self._moves)} moves{failure}"
        )

    # --- Parts ---------------------------------------------------------------------------------

    def _load(self, data_format: int) -> None:
        """Serves what was served."""
        state = self.state
        state.tables.update((table.table_id, table) for table in load_tables(state.engine))
        holdings = load_holdings(state.engine)
        state.ownership.install(holdings)
        complete = data_format == 0 or data_format >= TOKENS_FORMAT
        state.tokens.load(state.engine, holdings, complete)
        for holding in holdings:
            if holding.state in (State.SERVING, State.HANDOVER):
                partition_id = holding.partition.partition_id
                progress = load_progress(state.engine, partition_id)
                state.open_shard(holding, state.tokens.progress(partition_id, progress))
        state.tokens.resume(state.shards.values())

    def _introduce(self, data_format: int) -> None:
        """Marks data as this node's, and as written by this build."""
        config = self.state.config
        batch = Batch()
        put_node(batch, config.node_id, config.cluster)
        if 0 < data_format < TOKENS_FORMAT:
            self.state.tokens.write_beginning(batch)

        def refused(error: KeyplaneError) -> None:
            self.state.log.warning("cannot write to disk", error=str(error))

        self.state.queue.change(lambda: Step(batch, lambda: None), refused)

    def _beat(self) -> None:
        state = self.state
        self._timer = state.clock.call_later(state.config.heartbeat_s, self._beat)
        now = state.clock.now()
        elapsed_s, self._beat_at = now - self._beat_at, now
        for shard in state.shards.values():
            if elapsed_s > 0:
                shard.beat(elapsed_s)
        self._sweep_tokens()
        self._target.forget_idle()
        self._counter.look()
        self._heartbeat.beat()

    def _sweep_tokens(self) -> None:
        """Forgets old write tokens, and deletes them where no writes do that by the way."""
        tokens = self.state.tokens
        tokens.forget_old()

        def plan() -> Step:
            batch = Batch()
            logged = tokens.write(batch, (), sweep=SWEPT_PER_BEAT)
            return Step(batch, lambda: tokens.written(logged), sync=False)

        if tokens.idle_sweep:
            self.state.queue.change(plan, lambda _: None)

    def _register(self, to: Registrar) -> None:
        changes, moves, target = Changes(self.state), self._moves, self._target
        advisor = SplitAdvisor(self.state)
        storage, ownership, transfer = (
            f"{service}/" for service in (STORAGE_SERVICE, OWNERSHIP_SERVICE, TRANSFER_SERVICE)
        )
        to.raw(storage + "Execute", Executor(self.state).handle)
        to.immediate(
            storage + "DescribePartitions", pb.DescribePartitionsRequest, self._inventory.describe
        )
        to.answered(ownership + "OpenPartitions", pb.OpenPartitionsRequest, changes.open)
        to.answered(ownership + "SplitPartition", pb.SplitPartitionRequest, changes.split)
        to.answered(ownership + "MergePartitions", pb.MergePartitionsRequest, changes.merge)
        to.immediate(ownership + "MovePartition", pb.MovePartitionRequest, moves.move)
        to.immediate(ownership + "CancelMove", pb.CancelMoveRequest, moves.cancel)
        to.answered(ownership + "ReleaseMoved", pb.ReleaseMovedRequest, changes.release)
        to.answered(ownership + "UpdateTable", pb.UpdateTableRequest, changes.update_table)
        to.answered(ownership + "DropTable", pb.DropTableRequest, changes.drop_table)
        to.answered(ownership + "SuggestSplit", pb.SuggestSplitRequest, advisor.suggest)
        to.answered(transfer + "PrepareMove", pb.PrepareMoveRequest, target.prepare)
        to.answered(transfer + "ReceiveItems", pb.ReceiveItemsRequest, target.receive)
        to.answered(transfer + "ConfirmMove", pb.ConfirmMoveRequest, target.confirm)
        to.answered(transfer + "ActivateMove", pb.ActivateMoveRequest, target.activate)
        to.answered(transfer + "AbandonMove", pb.AbandonMoveRequest, target.abandon)
