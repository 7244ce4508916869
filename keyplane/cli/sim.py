"""`keyplane sim …`: seeds of the simulated world, their replay, and the bugs planted to test it."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from keyplane.cli.output import EXIT_NO, EXIT_OK, Output
from keyplane.cli.session import DataDir, command_without_cluster
from keyplane.cluster.cluster import default_home
from keyplane.model.errors import KeyplaneError, Reason

# The simulator and the services it is made of are imported by the commands that run it: they take
# longer to load than any other command takes to run.

# As Maelstrom has it: 0 held, 1 violated, 2 could not tell.
EXIT_UNDECIDED = 2

PROFILE_DEFAULT = "swarm"

Profile = Annotated[
    str,
    typer.Option(
        "--profile", "-p", help="Which faults and operations; see `keyplane sim profiles`."
    ),
]
Workers = Annotated[int, typer.Option(min=0, max=256, help="Processes; 0: one for each processor.")]

# Seconds between two lines of progress, where nobody watches a terminal.
_BEAT_S = 5.0


def register(app: typer.Typer) -> None:
    sim = typer.Typer(
        no_args_is_help=True,
        help="Run whole clusters in virtual time, from one seed: faults, load, and every "
        "invariant watched.",
    )
    command_without_cluster(sim, "run", _RUN_EXAMPLES)(run)
    command_without_cluster(sim, "replay", _REPLAY_EXAMPLES)(replay)
    command_without_cluster(sim, "mutants", _MUTANTS_EXAMPLES)(mutants)
    command_without_cluster(sim, "profiles", _PROFILES_EXAMPLES)(profiles)
    app.add_typer(sim, name="sim")


# --- run ----------------------------------------------------------------------------------------

_RUN_EXAMPLES = """
    keyplane sim run                              twenty seeds of profile `swarm`
    keyplane sim run --seeds 200 --profile gray
    keyplane sim run --seed 7                     one seed
    keyplane sim run --fresh --seeds 50           seeds that nobody has run before
"""


def run(
    out: Output,
    seeds: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="How many, from --from on.")
    ] = 20,
    seed: Annotated[int | None, typer.Option(min=0, help="This one alone.")] = None,
    first: Annotated[int, typer.Option("--from", min=0, help="The first seed.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from a random seed.")] = False,
    profile: Profile = PROFILE_DEFAULT,
    workers: Workers = 0,
    data_dir: DataDir = None,
) -> int:
    """Runs seeds, each a minute of virtual time, and says whether every invariant held.

    Exit code: 0 all held; 1 one was violated; 2 it could not be told. What is found is kept in a
    directory of its own, and `latest` beside it points there.
    """
    from sim.batch import run_seeds
    from sim.rundir import RunDirectory

    _check_profile(profile)
    if seed is not None:
        first, seeds = seed, 1
    elif fresh:
        first = random.SystemRandom().randrange(1 << 40)
    directory = RunDirectory(data_dir or default_home(), profile)
    tally = _Tally(out, seeds)
    chosen = ((profile, each) for each in range(first, first + seeds))
    for result in run_seeds(chosen, 1 if seeds == 1 else workers):
        tally.add(result)
        directory.add_result(_facts(result))
        if result.violation is not None:
            path = _explain(result, profile, directory)
            out.note(
                f"written to {path}; look closer: keyplane sim replay {result.seed} -p {profile}"
            )
    facts = {
        "profile": profile,
        "first_seed": first,
        **tally.facts(),
        "directory": str(directory.path),
    }
    directory.write_summary(facts)
    out.say()
    out.table(_COLUMNS, [_row(facts)])
    out.say(f"[dim]details in {escape(str(directory.path))}[/dim]")
    out.result(facts)
    return tally.exit_code()


_COLUMNS = (
    "profile",
    "seeds",
    "violations",
    "undecided",
    "requests",
    "failed",
    "virtual s",
    "wall s",
    "virtual s/s",
)


def _row(facts: dict[str, Any]) -> list[object]:
    speed = facts["virtual_seconds"] / facts["wall_seconds"] if facts["wall_seconds"] else 0.0
    names = (
        "profile",
        "seeds",
        "violations",
        "undecided",
        "operations",
        "failed",
        "virtual_seconds",
        "wall_seconds",
    )
    return [*(facts[name] for name in names), speed]


class _Tally:
    """Counts results, and says how far the run is."""

    def __init__(self, out: Output, wanted: int) -> None:
        self._out = out
        self._wanted = wanted
        self._began_at = self._said_at = time.monotonic()
        self._hashes: list[str] = []
        self._figures: Counter[str] = Counter()
        self._virtual_s = 0.0
        self._failures: Counter[str] = Counter()
        self.violated: list[str] = []

    def add(self, result: Any) -> None:
        self._hashes.append(result.trace_hash)
        self._virtual_s += result.virtual_seconds
        self._figures["seeds"] += 1
        self._figures["operations"] += result.requests
        self._figures["failed"] += result.failed
        self._figures["undecided"] += bool(result.undecided)
        self._failures.update(result.failures)
        if result.violation is not None:
            self.violated.append(f"{result.seed}")
            self._out.progress.print(f"[red]{escape(str(result))}[/red]")
        elif result.undecided:
            self._out.progress.print(f"[yellow]{escape(str(result))}[/yellow]")
        now = time.monotonic()
        if now - self._said_at >= _BEAT_S or self._out.progress.is_terminal:
            self._said_at = now
            self._progress(now)

    def _progress(self, now: float) -> None:
        done = self._figures["seeds"]
        rate = done / max(1e-9, now - self._began_at)
        left_s = (self._wanted - done) / rate
        line = (
            f"{done} of {self._wanted} seeds, {len(self.violated)} violated,"
            f" {rate:.1f} a second, {left_s:.0f} s left"
        )
        end = "\r" if self._out.progress.is_terminal and done < self._wanted else "\n"
        self._out.progress.print(f"[dim]{line}[/dim]", end=end)

    def facts(self) -> dict[str, Any]:
        from sim.run import joined_hash

        return {
            "seeds": self._figures["seeds"],
            "violations": len(self.violated),
            "violated_seeds": self.violated,
            "undecided": self._figures["undecided"],
            "operations": self._figures["operations"],
            "failed": self._figures["failed"],
            "failures": dict(self._failures),
            "virtual_seconds": round(self._virtual_s, 3),
            "wall_seconds": round(time.monotonic() - self._began_at, 3),
            "trace_hash": joined_hash(self._hashes),
        }

    def exit_code(self) -> int:
        if self.violated:
            return EXIT_NO
        return EXIT_UNDECIDED if self._figures["undecided"] else EXIT_OK


def _facts(result: Any) -> dict[str, Any]:
    violation = result.violation
    return {
        "seed": result.seed,
        "held": result.held,
        "invariant": violation.invariant if violation else None,
        "message": violation.message if violation else result.undecided,
        "requests": result.requests,
        "failures": result.failures,
        "latency_ms_p99": round(result.latency_s_p99 * 1e3, 3),
        "virtual_seconds": round(result.virtual_seconds, 3),
        "trace_hash": result.trace_hash,
    }


def _explain(result: Any, profile: str, directory: Any) -> Path:
    """Runs a seed that failed again with a full trace, and keeps what it says."""
    from sim.plan import draw_plan
    from sim.report import describe_plan, describe_violation
    from sim.run import run_seed

    plan = draw_plan(result.seed, profile)
    again = run_seed(plan, full_trace=True)
    lines = [*describe_violation(again, everything=False), "", "the plan:", *describe_plan(plan)]
    path: Path = directory.write_violation(result.seed, plan, lines)
    return path


# --- replay -------------------------------------------------------------------------------------

_REPLAY_EXAMPLES = """
    keyplane sim replay 12                  the same run again, with the trace of what went wrong
    keyplane sim replay 12 --shrink         the fewest faults and requests that still fail
    keyplane sim replay 12 -p gray --everything     every event, of everybody
    keyplane sim replay .keyplane/sim/latest/seed-12.plan.json
    keyplane sim replay 9 -p lite --plant tail-forgotten   what a known bug looks like
"""


def replay(
    out: Output,
    seed: Annotated[str, typer.Argument(metavar="SEED", help="A seed, or the file of a plan.")],
    profile: Profile = PROFILE_DEFAULT,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Drop faults and requests that are not needed to fail.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--everything", help="Show the whole trace, not only what is concerned.")
    ] = False,
    plant: Annotated[
        str, typer.Option(metavar="BUG", help="Plant one of the bugs of `keyplane sim mutants`.")
    ] = "",
    data_dir: DataDir = None,
) -> int:
    """Runs one seed again and shows what happened, event by event, to what a violation concerns.

    Exit code: 0 held; 1 violated; 2 it could not be told.
    """
    from sim.report import describe_plan, describe_violation
    from sim.run import run_seed
    from sim.rundir import RunDirectory

    plan = _plan_of(seed, profile)
    runs = 1
    with _planted(plant):
        if shrink:
            plan, runs = _shrunk(out, plan)
        result = run_seed(plan, full_trace=True)
    for line in describe_violation(result, everything):
        out.say(escape(line))
    out.say()
    out.say("the plan:")
    for line in describe_plan(plan):
        out.say(escape(line))
    facts = {**_facts(result), "runs": runs, "faults": len(plan.faults), "plan": None}
    if result.violation is not None:
        directory = RunDirectory(data_dir or default_home(), f"replay-{plan.profile}")
        lines = [*describe_violation(result, everything), "", "the plan:", *describe_plan(plan)]
        path = directory.write_violation(result.seed, plan, lines)
        facts["plan"] = str(path.with_name(f"seed-{result.seed}.plan.json"))
        out.say(f"[dim]written to {escape(str(path))}[/dim]")
    out.result(facts)
    if result.violation is not None:
        return EXIT_NO
    return EXIT_UNDECIDED if result.undecided else EXIT_OK


def _plan_of(seed: str, profile: str) -> Any:
    from sim.plan import draw_plan
    from sim.rundir import read_plan

    if seed.isdecimal():
        _check_profile(profile)
        return draw_plan(int(seed), profile)
    path = Path(seed)
    if not path.exists():
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"{seed!r} is neither a seed, which is a number, nor a file"
        )
    return read_plan(path)


def _planted(name: str) -> AbstractContextManager[object]:
    """The planted bug of this name, or none."""
    if not name:
        return nullcontext()
    from sim.mutants.registry import MUTANTS

    _check_mutants([name])
    return MUTANTS[name].apply()


def _check_mutants(names: list[str]) -> None:
    from sim.mutants.registry import MUTANTS

    for name in names:
        if name not in MUTANTS:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"no planted bug is called {name!r}; there are: {', '.join(MUTANTS)}",
            )


def _shrunk(out: Output, plan: Any) -> tuple[Any, int]:
    from sim.shrink import Progress, Shrinker

    said_at = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal said_at
        now = time.monotonic()
        if now - said_at >= 1.0:
            said_at = now
            out.note(f"{progress.runs} runs; {progress.left} {progress.what} left")

    try:
        shrinker = Shrinker(plan, on_progress)
    except ValueError as error:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"{error}; there is nothing to shrink"
        ) from error
    return shrinker.shrink(), shrinker.runs


# --- mutants, profiles --------------------------------------------------------------------------

_MUTANTS_EXAMPLES = """
    keyplane sim mutants                    plants each known bug in turn, and looks for it
    keyplane sim mutants tail-forgotten     only that one
"""


def mutants(
    out: Output,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Of these only.")
    ] = None,
    workers: Workers = 0,
) -> int:
    """Plants bugs in the protocols, one at a time, and runs seeds until an invariant fails.

    What measures the simulator: a bug that no seed finds is a hole in the world. Exit code: 0 all
    were found; 1 one survived.
    """
    from sim.mutants.hunt import Kill, hunt_all
    from sim.mutants.registry import MUTANTS

    _check_mutants(names or [])
    began_at = time.monotonic()
    found = hunt_all(names or (), workers, lambda outcome: out.note(str(outcome)))
    details = [
        {
            "name": each.mutant,
            "what": MUTANTS[each.mutant].what,
            "invariant": each.invariant if isinstance(each, Kill) else None,
            "profile": each.profile if isinstance(each, Kill) else None,
            "seed": each.seed if isinstance(each, Kill) else None,
            "seeds_tried": each.seeds_tried,
            "wall_seconds": round(each.wall_seconds, 3),
        }
        for each in found
    ]
    columns = ("name", "invariant", "profile", "seed", "seeds_tried", "wall_seconds")
    out.table(
        ("planted bug", "violated", "profile", "seed", "seeds tried", "seconds"),
        [["survived" if row[name] is None else row[name] for name in columns] for row in details],
    )
    survivors = [each.mutant for each in found if not each.killed]
    out.result(
        {
            "mutants": len(found),
            "killed": len(found) - len(survivors),
            "survivors": survivors,
            "wall_seconds": round(time.monotonic() - began_at, 3),
            "details": details,
        }
    )
    return EXIT_NO if survivors else EXIT_OK


_PROFILES_EXAMPLES = """
    keyplane sim profiles
"""


def profiles(out: Output) -> int:
    """Says which profiles there are, and what each is made of."""
    from sim.profiles import PROFILES

    out.table(
        ("profile", "what it does"), [(name, profile.what) for name, profile in PROFILES.items()]
    )
    out.result(
        {
            "profiles": [
                {"name": name, "what": profile.what, **profile.topology.describe()}
                for name, profile in PROFILES.items()
            ]
        }
    )
    return EXIT_OK


def _check_profile(name: str) -> None:
    from sim.profiles import PROFILES

    if name not in PROFILES:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"no profile is called {name!r}; there are: {', '.join(PROFILES)}",
        )
