"""Bugs of the Metadata Store: what it persists before it acts, and what it takes for true."""

from __future__ import annotations

from metadata import database
from metadata.database import Database
from metadata.kinds import begin, script
from metadata.writer import Writer
from sim.mutants.mutant import Mutant
from sim.mutants.patch import Edit

METADATA: tuple[Mutant, ...] = (
    Mutant(
        "partition-ids-reused",
        "After a restart partition ids are counted on from the highest one in the map.",
        ("I8",),
        (
            Edit(
                database._load,
                "ledger.next_partition_id",
                "max(session.scalars(select(PartitionRow.partition_id)), default=0) + 1",
            ),
        ),
    ),
    Mutant(
        "answers-before-commit",
        "A change is installed in memory and answered before the database has it.",
        ("I8",),
        (
            Edit(
                Writer._commit,
                "self._ledger.commit(staged.change, done)",
                "self._catalog.install(staged)\n"
                "    intent.on_done(result)\n"
                "    self._ledger.commit(staged.change, done)",
            ),
            Edit(
                Writer._commit,
                "self._catalog.install(staged)\n        intent.on_done(result)\n        self._idle",
                "self._idle",
            ),
            Edit(
                Writer._commit,
                "self._doubt(error, intent)",
                "self._doubt(error, _Intent(intent.decide, lambda _: None))",
            ),
        ),
    ),
    Mutant(
        "steps-not-persisted",
        "An operation is persisted when it is committed, not before it acts.",
        ("I8",),
        (
            Edit(
                Database._write,
                "[rows.operation_to_row(each) for each in change.operations]",
                "[rows.operation_to_row(each) for each in change.operations"
                " if each.state in (State.COMMITTED, State.SUCCEEDED, State.FAILED)]",
            ),
        ),
    ),
    Mutant(
        "indefinite-answer-ends-operation",
        "An operation is given up when its storage node's answer is lost, which may have acted.",
        ("I8",),
        (
            Edit(
                script.after_error,
                "refused = error.definite and not error.retryable",
                "refused = not (error.definite and error.retryable)",
            ),
        ),
    ),
    Mutant(
        "gives-up-whatever-was-done",
        "An operation that cannot reach its node is given up though the node may have acted.",
        ("I8",),
        (
            Edit(
                script.if_untouched,
                "error.reason is Reason.NODE_UNREACHABLE and not perhaps_done",
                "True",
            ),
        ),
    ),
    Mutant(
        "settles-by-guess",
        "After a failed commit the store takes for granted that the change was not made.",
        ("I8", "liveness"),
        (
            Edit(
                Writer._settle,
                "if outcome is not None:",
                "if outcome is not None and not outcome.counters:",
            ),
        ),
    ),
    Mutant(
        "busy-partitions-not-held",
        "An operation begins on a partition that another operation is about.",
        ("I8", "no-crash"),
        (Edit(begin.require_partitions_free, "if holder is not None:", "if False:"),),
    ),
)
