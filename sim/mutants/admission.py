"""Bugs of admission and of the planner: what is let in, and what is done about load."""

from __future__ import annotations

from granter.budget import Budget
from keyplane.model.bucket import Bucket
from metadata.kinds.map_change import map_changed
from metadata.planner.planner import Planner
from metadata.planner.rules import Rules
from metadata.planner.watch import Watched
from router.admission import Allowance, TableLimits
from sim.mutants.mutant import Mutant
from sim.mutants.patch import Edit
from storage.executor import Executor
from storage.limits import PartitionLimits
from storage.shard import Shard

ADMISSION: tuple[Mutant, ...] = (
    Mutant(
        "writes-spend-reads",
        "A write takes its units from what may be read.",
        ("I11",),
        (Edit(PartitionLimits._take_write, "self.writes.take(units)", "self.reads.take(units)"),),
    ),
    Mutant(
        "reads-cost-nothing",
        "A storage node counts reads, and takes nothing for them.",
        ("I11",),
        (Edit(PartitionLimits.read, "self.reads.take(units)", "pass"),),
    ),
    Mutant(
        "writes-not-admitted",
        "A storage node takes writes in whatever is left of its partition's units.",
        ("I11",),
        (Edit(Executor._enqueue, "limits.admit_write(now)", "None"),),
    ),
    Mutant(
        "saves-up-without-end",
        "A bucket that is not used gets deeper and deeper.",
        ("I11",),
        (
            Edit(
                Bucket.level_at,
                "return level if level < self.depth else self.depth",
                "return level",
            ),
        ),
    ),
    Mutant(
        "heirs-start-full",
        "Children of a split begin with a second's worth of units each.",
        ("I11",),
        (Edit(Shard.replace, "self.limits.start_empty()", "pass"),),
    ),
    Mutant(
        "each-heir-gets-all",
        "Each child of a split gets all that its parent had left.",
        ("I11",),
        (
            Edit(
                Shard.replace,
                "self.limits.inherit(parent.limits, share)",
                "self.limits.inherit(parent.limits, 1.0)",
            ),
        ),
    ),
    Mutant(
        "use-not-taken",
        "The granter hears what routers have used of a table, and does not take it.",
        ("I11",),
        (Edit(Budget.refill, "bucket.take(used)", "pass"),),
    ),
    Mutant(
        "grants-what-is-wanted",
        "The granter grants what a router wants, whatever the table has left.",
        ("I11",),
        (
            Edit(
                Budget.refill,
                "max(0.0, min(enough, left, bucket.level * share))",
                "max(0.0, enough)",
            ),
        ),
    ),
    Mutant(
        "use-not-told",
        "A router tells the granter what it wants, and not what it has used.",
        ("I11",),
        (Edit(Allowance.account, "used=used if watched else 0.0", "used=0.0"),),
    ),
    Mutant(
        "refused-and-sent",
        "A router counts a request as refused, and sends it.",
        ("I11",),
        (Edit(TableLimits.admit, "return refusals.after(RETRY_AFTER_S)", "return None"),),
    ),
    Mutant(
        "splits-the-lukewarm",
        "The planner takes a partition for hot that does a twentieth of what it may.",
        ("I12",),
        (Edit(Watched.take, "self.heat >= config.split_above", "self.heat >= 0.05"),),
    ),
    Mutant(
        "merges-by-the-last-report",
        "The planner merges partitions that were cold a moment ago, whatever they were before.",
        ("I12",),
        (
            Edit(
                Watched.highest,
                "return max(heat for slot, heat in self._maxima if slot >= oldest)",
                "return self.heat",
            ),
        ),
    ),
    Mutant(
        "merges-what-was-asked-for",
        "The planner merges a table down to one partition, however many somebody wanted.",
        ("I12",),
        (
            Edit(Rules._merge, "len(map_) <= table.partitions_min", "len(map_) <= 1"),
            Edit(Planner._spare, "table.partitions_min", "1"),
        ),
    ),
    Mutant(
        "splits-by-hand-not-kept",
        "A split that somebody asked for does not raise what the planner leaves a table at.",
        ("I12",),
        (Edit(map_changed, "0 if operation.why else len(added) - len(removed)", "0"),),
    ),
    Mutant(
        "planner-without-bound",
        "The planner begins operations however many are under way.",
        ("I12",),
        (Edit(Planner._start, "self._config.operations_max - under_way", "100"),),
    ),
    Mutant(
        "planner-without-rate",
        "The planner begins operations however many it has begun.",
        ("I12",),
        (Edit(Planner._start, "if self._rate.level < 1.0:", "if False:"),),
    ),
    Mutant(
        "declined-and-asked-again",
        "The planner asks again at once for a split that would not help.",
        ("I12",),
        (
            Edit(
                Planner._take_end,
                "self._rest(proposal, wait_s, operation.message, declined)",
                "pass",
            ),
        ),
    ),
)
