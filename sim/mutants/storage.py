"""Bugs of the storage node: what it acknowledges, what it keeps, and what it says it serves."""

from __future__ import annotations

from metadata.kinds import merge as merge_kind
from metadata.kinds import split as split_kind
from sim.mutants.mutant import Mutant
from sim.mutants.patch import Edit
from storage.changes import Changes
from storage.executor import Executor
from storage.gate import Gate
from storage.group import Group
from storage.heartbeat import Heartbeat
from storage.token_log import TokenLog
from storage.writes import WriteQueue

WRITES: tuple[Mutant, ...] = (
    Mutant(
        "epoch-not-checked",
        "A storage node looks at the partition id of a request and not at its epoch.",
        ("I1",),
        (
            Edit(
                Executor._execute,
                "if shard is None or shard.epoch != message.epoch:",
                "if shard is None:",
            ),
        ),
    ),
    Mutant(
        "ack-before-commit",
        "Writes are answered when their batch is handed to the engine, not when it is committed.",
        ("I2",),
        (
            Edit(
                WriteQueue._commit_group,
                "self._commit(group.batch, group.sync, partial(self._committed, group))",
                "group.learn()\n"
                "    group.answer()\n"
                "    self._commit(group.batch, group.sync, lambda error: None)",
            ),
        ),
    ),
    Mutant(
        "ack-before-sync",
        "Writes to tables that promise to survive a loss of power are not synced.",
        ("I2",),
        (
            Edit(
                WriteQueue._evaluate_one,
                "group.sync = group.sync or shard.synced",
                "group.sync = False",
            ),
        ),
    ),
    Mutant(
        "ownership-not-synced",
        "Records of what a node serves are written as items are, without a sync.",
        ("I1", "I2", "I8"),
        (
            Edit(
                WriteQueue._make,
                "self._commit(step.batch, step.sync, committed)",
                "self._commit(step.batch, False, committed)",
            ),
        ),
    ),
    Mutant(
        "version-not-persisted",
        "The last version given out is kept in memory only.",
        ("I2",),
        (
            Edit(
                TokenLog.write,
                "shard.partition_id, shard.version,",
                "shard.partition_id, 0,",
            ),
        ),
    ),
    Mutant(
        "conditions-miss-own-batch",
        "Conditions are judged by what is committed, without the writes before them in the batch.",
        ("I2",),
        (
            Edit(
                WriteQueue._evaluate_one,
                "current = writes[key] if key in writes else self._engine.get(key)",
                "current = self._engine.get(key)",
            ),
        ),
    ),
    Mutant(
        "write-error-told-as-definite",
        "A write whose commit failed is answered as if it had certainly not been made.",
        ("I2",),
        (
            Edit(
                WriteQueue._committed,
                "group.answer(_write_error(error))",
                "group.answer(self._failure)",
            ),
        ),
    ),
    Mutant(
        "learns-from-failed-commit",
        "Memory takes over the results of a batch although its commit failed.",
        ("I2",),
        (
            Edit(
                WriteQueue._committed,
                "self._fail(group.batch, error)",
                "self._fail(group.batch, error)\n        group.learn()",
            ),
        ),
    ),
    Mutant(
        "queue-without-bound",
        "Writes are taken into the queue however many wait there.",
        ("I9",),
        (
            Edit(
                WriteQueue.write,
                "self._queued_writes >= self._config.queue_writes_max",
                "False",
            ),
        ),
    ),
    Mutant(
        "fence-queue-without-bound",
        "Requests wait at a fence however many wait there.",
        ("I9",),
        (
            Edit(
                Gate.wait,
                "now >= give_up_at or len(self._waiting) >= self._waiting_max",
                "now >= give_up_at",
            ),
        ),
    ),
    Mutant(
        "serves-by-leave-of-control-plane",
        "A storage node that cannot reach the Metadata Store takes no writes until it can.",
        ("I6",),
        (
            Edit(
                Heartbeat._ended,
                "self._waiting = False",
                "self._waiting = False\n    self._state.queue._failure = reply.error",
            ),
        ),
    ),
)

CHANGES: tuple[Mutant, ...] = (
    Mutant(
        "split-keeps-epoch",
        "The children of a split keep the epoch of their parent, at the node and in the map.",
        ("I1", "I3"),
        (
            Edit(
                Changes.split,
                "left = _heir(parent, request.left_id, parent.start, request.split_hash,"
                " parent.epoch)",
                "left = _heir(parent, request.left_id, parent.start, request.split_hash,"
                " parent.epoch - 1)",
            ),
            Edit(
                Changes.split,
                "right = _heir(parent, request.right_id, request.split_hash, parent.end,"
                " parent.epoch)",
                "right = _heir(parent, request.right_id, request.split_hash, parent.end,"
                " parent.epoch - 1)",
            ),
            Edit(split_kind._children, "epoch = parent.epoch + 1", "epoch = parent.epoch"),
        ),
    ),
    Mutant(
        "merge-takes-lower-epoch",
        "A merged partition follows the lower epoch of the two, at the node and in the map.",
        ("I1", "I3"),
        (
            Edit(Changes.merge, "max(one.epoch, other.epoch)", "min(one.epoch, other.epoch)"),
            Edit(
                merge_kind._merge,
                "max(left.epoch, right.epoch) + 1",
                "min(left.epoch, right.epoch) + 1",
            ),
        ),
    ),
    Mutant(
        "merge-without-neighbours",
        "Nobody checks that the two partitions of a merge are neighbours.",
        ("I8", "I1"),
        (
            Edit(
                Changes.merge,
                "one.table_id != other.table_id or one.end != other.start",
                "one.table_id != other.table_id",
            ),
            Edit(merge_kind.begin, "if left.end != right.start:", "if left is right:"),
        ),
    ),
    Mutant(
        "split-applied-twice",
        "A storage node does not recognise a split or merge that it has made already.",
        ("I8",),
        (
            Edit(
                Changes._retired_by,
                "and holding.operation_id == operation_id",
                "and not operation_id",
            ),
        ),
    ),
    Mutant(
        "split-leaves-no-tombstone",
        "The parent of a split or merge is removed instead of retired.",
        ("I8", "liveness"),
        (
            Edit(
                Changes._replace,
                "for holding in [*retired, *opened]:",
                "for holding in retired:\n"
                "        delete_holding(batch, holding.partition.partition_id)\n"
                "    for holding in opened:",
            ),
        ),
    ),
    Mutant(
        "heirs-start-versions-anew",
        "The children of a split and the result of a merge count versions from zero.",
        ("I2",),
        (
            Edit(
                Changes._replace,
                "batch = Batch()",
                "batch, progress = Batch(), Progress(0, progress.items, progress.data_bytes,"
                " progress.counted)",
            ),
        ),
    ),
)

TOKENS: tuple[Mutant, ...] = (
    Mutant(
        "tokens-not-remembered",
        "Results of writes are not remembered by their tokens.",
        ("I2",),
        (
            Edit(
                Group.learn,
                "self.tokens.learn(self.results)",
                "pass",
            ),
        ),
    ),
    Mutant(
        "refusals-not-remembered",
        "A failed condition is answered and forgotten, so a late copy of it may be carried out.",
        ("I2",),
        (
            Edit(
                WriteQueue._evaluate_one,
                "group.remember(Remembered(name, group.now, 0, False, refused=True))",
                "pass",
            ),
        ),
    ),
    Mutant(
        "split-forgets-tokens",
        "The children of a split are taken for arrivals, and what is remembered of them dropped.",
        ("I2",),
        (
            Edit(
                Changes._replace,
                "state.open_shard(holding, progress)",
                "state.open_shard(holding, progress),"
                " len(parents) > 1 or state.tokens.drop(holding.partition)",
            ),
        ),
    ),
    Mutant(
        "merge-forgets-tokens",
        "The result of a merge is taken for an arrival, and what is remembered of it dropped.",
        ("I2",),
        (
            Edit(
                Changes._replace,
                "state.open_shard(holding, progress)",
                "state.open_shard(holding, progress),"
                " len(parents) == 1 or state.tokens.drop(holding.partition)",
            ),
        ),
    ),
    Mutant(
        "tokens-not-on-disk",
        "Tokens are remembered in memory only, and the memory is thought complete after a restart.",
        ("I2",),
        (Edit(Group.close, "self.results", "()"),),
    ),
    Mutant(
        "progress-in-the-log-is-overlooked",
        "A node that starts goes by what is under the partitions' own keys, however old it is.",
        ("I2",),
        (Edit(TokenLog.progress, "found[1].version > own.version", "False"),),
    ),
)

STORAGE = WRITES + CHANGES + TOKENS
