"""Bugs of a move: between its two ends, and in what either keeps of it."""

from __future__ import annotations

from sim.mutants.mutant import Mutant
from sim.mutants.patch import Edit
from storage.executor import Executor
from storage.move_source import MoveSource
from storage.move_stream import MoveStream
from storage.move_target import MoveTarget
from storage.moves import Moves
from storage.shard import Tail
from storage.writes import WriteQueue

MOVES: tuple[Mutant, ...] = (
    Mutant(
        "activates-before-handover",
        "The target is told to serve before the source has recorded that it has stopped.",
        ("I1",),
        (
            Edit(
                MoveSource._hand_over,
                "self._committed = True",
                "self._committed = True\n    self._activate()",
            ),
            Edit(
                MoveSource._hand_over,
                'crashpoints.crashpoint("storage.move.handover")\n            self._activate()',
                'crashpoints.crashpoint("storage.move.handover")',
            ),
        ),
    ),
    Mutant(
        "handover-not-persisted",
        "The source keeps in memory only that it has handed the partition over.",
        ("I1",),
        (Edit(MoveSource._hand_over, "put_holding(batch, holding)", "pass"),),
    ),
    Mutant(
        "activation-not-persisted",
        "The target keeps in memory only that it serves the partition.",
        ("I8", "liveness"),
        (Edit(MoveTarget.activate, "put_holding(batch, serving)", "pass"),),
    ),
    Mutant(
        "fence-not-enforced",
        "Writes are carried out while their partition is fenced.",
        ("I2",),
        (
            Edit(
                Executor._execute,
                "if shard.gate is not None:",
                "if shard.handed_over and shard.gate is not None:",
            ),
            Edit(
                WriteQueue._evaluate,
                "if shard.retired or shard.gate is not None:",
                "if shard.retired or shard.handed_over:",
            ),
        ),
    ),
    Mutant(
        "queued-writes-pass-the-fence",
        "The fence holds back new writes, but not those that are in the queue already.",
        ("I2",),
        (
            Edit(
                WriteQueue._evaluate,
                "if shard.retired or shard.gate is not None:",
                "if shard.retired:",
            ),
        ),
    ),
    Mutant(
        "reads-pass-the-handover",
        "The source answers reads until it has retired, though the target may serve already.",
        ("I2",),
        (
            Edit(
                Executor._execute,
                "elif shard.gate is not None and shard.handed_over:",
                "elif shard.gate is not None and shard.retired:",
            ),
        ),
    ),
    Mutant(
        "tail-forgotten",
        "Writes made while the snapshot is on its way are not sent after it.",
        ("I2",),
        (Edit(Tail.append, "self.entries.append(entry)", "pass"),),
    ),
    Mutant(
        "chunk-loses-an-entry",
        "A chunk of several entries is sent without its last one, and nobody compares the digests.",
        ("I2",),
        (
            Edit(
                MoveStream.take_snapshot,
                "return Chunk(entries, size)",
                "return Chunk(entries[:-1] or entries, size)",
            ),
            Edit(
                MoveTarget.confirm,
                "if (digest.count, digest.to_bytes()) != (request.item_count, request.digest):",
                "if digest.count > request.item_count:",
            ),
        ),
    ),
    Mutant(
        "move-leaves-no-tombstone",
        "The source forgets a partition that has moved away, and does not redirect.",
        ("I8", "liveness"),
        (
            Edit(
                MoveSource._activated,
                "put_holding(batch, retired)",
                "put_holding(batch, retired)\n        batch.writes = dict.fromkeys(batch.writes)",
            ),
            Edit(
                MoveSource._activated,
                "self._state.ownership.install([retired])",
                "self._state.ownership.install([], [self.partition_id])",
            ),
        ),
    ),
    Mutant(
        "abort-leaves-the-fence",
        "A move that is given up leaves its partition fenced.",
        ("liveness", "I8"),
        (
            Edit(
                MoveSource.abort,
                "gate, self._shard.gate = self._shard.gate, None",
                "gate = None",
            ),
        ),
    ),
    Mutant(
        "cancel-is-forgotten",
        "A move that was cancelled before its source had heard of it begins when it hears.",
        ("I8",),
        (
            Edit(
                Moves.cancel,
                "self._keep(request.operation_id, request.partition_id, known)",
                "pass",
            ),
        ),
    ),
    Mutant(
        "aborts-past-the-handover",
        "The timer of the fence gives a move up after the point of no return too.",
        ("I1",),
        (
            Edit(MoveSource._fence_expired, "if self.abortable:", "if not self.ended:"),
            Edit(MoveSource.abort, "if not self.abortable:", "if self.ended:"),
        ),
    ),
    Mutant(
        "move-forgets-tokens",
        "A partition that moves leaves the tokens of its writes behind, and says it has them all.",
        ("I2",),
        (
            Edit(
                MoveTarget.confirm,
                "[*arrival.remembered, *last]",
                "()",
            ),
        ),
    ),
    Mutant(
        "move-restarts-versions",
        "A partition that has moved counts versions from zero.",
        ("I2",),
        (
            Edit(
                MoveTarget.confirm,
                "Progress(request.last_version, digest.count, digest.data_bytes)",
                "Progress(0, digest.count, digest.data_bytes)",
            ),
        ),
    ),
)
