"""Runs of scenarios: a directory for each, what was asked in it, and going on where one stopped.

<data dir>/fleet/<time>-<what>/     and `latest` beside it
    run.json                        what was asked
    summary.json                    what `--json` prints, once all is done
    report.html                     everything in one document
    <scenario>/                     see fleet.store, and report.html of it alone
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet.answer import Answer, Progress, ask
from fleet.catalogue import find
from fleet.store import OUTCOME, read_answer, write_answer
from keyplane.lock import exclusive
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.rundir import LATEST, make_run_directory, stamped
from wire.files import replace_file

FORMAT = 1
ABOUT = "run.json"
SUMMARY = "summary.json"
REPORT = "report.html"
LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Request:
    """scenarios: names, or paths of files. chosen: parameters by name, by scenario. calibration:
    the values of the preset `measured`, None for `paper`.
    """

    scenarios: tuple[str, ...]
    seed: int
    chosen: Mapping[str, Mapping[str, float]]
    calibration: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A scenario that ended in an error. error: what escaped from it."""

    scenario: str
    error: Exception

    def __str__(self) -> str:
        if isinstance(self.error, KeyplaneError):
            return self.error.message
        return f"{type(self.error).__name__}: {self.error}"


@dataclass(frozen=True, slots=True)
class Run:
    path: Path
    request: Request

    def directory_of(self, scenario: str) -> Path:
        """scenario: its name; of one in a file, the name that it has in there."""
        return self.path / scenario


def fleet_home(home: Path) -> Path:
    return home / "fleet"


def begin(home: Path, what: str, request: Request) -> Run:
    path = begin_directory(home, what, "run", asdict(request))
    return Run(path, request)


def begin_directory(home: Path, what: str, kind: str, asked: Mapping[str, Any]) -> Path:
    path = make_run_directory(fleet_home(home), stamped(what))
    facts = {"format": FORMAT, "kind": kind, "asked": asked}
    replace_file(path / ABOUT, (json.dumps(facts, indent=1) + "\n").encode())
    return path


def working_in(directory: Path) -> AbstractContextManager[None]:
    """To be held while anything is computed for it. Raises RUN_BUSY if another command does."""
    return exclusive(directory / LOCK, 0.0, Reason.RUN_BUSY, f"at work in {directory}")


def latest(home: Path, kind: str, asked: Mapping[str, Any] | None = None) -> Path | None:
    """The newest directory of this kind, in which just this was asked; None: whatever was."""
    wanted = None if asked is None else json.loads(json.dumps(asked))
    for path in sorted(fleet_home(home).glob(f"*/{ABOUT}"), reverse=True):
        if path.parent.name == LATEST:
            continue
        try:
            facts = read_about(path.parent)
        except KeyplaneError:
            # Damaged, or of another version: none that could be gone on with.
            continue
        if facts["kind"] == kind and wanted in (None, facts["asked"]):
            return path.parent
    return None


def read_about(directory: Path) -> dict[str, Any]:
    """Of run.json. Raises INVALID_ARGUMENT where there is none, or it is of another format."""
    path = directory / ABOUT
    try:
        facts = json.loads(path.read_bytes())
    except OSError as error:
        message = f"{directory} is no directory of a run: {path.name}: {error.strerror}"
        raise KeyplaneError(Reason.INVALID_ARGUMENT, message) from error
    except ValueError as error:
        message = f"{path} is damaged: {error}; remove its directory"
        raise KeyplaneError(Reason.INVALID_ARGUMENT, message) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise KeyplaneError(Reason.INVALID_ARGUMENT, f"{path} is of another version; run it again")
    return facts


def resume(home: Path, request: Request) -> Run | None:
    """The newest run in which the same was asked."""
    path = latest(home, "run", asdict(request))
    return None if path is None else Run(path, request)


def answers(
    run: Run, progress_of: Callable[[str], Progress]
) -> Iterator[tuple[Answer | Failure, bool]]:
    """One after another, each kept as soon as it is there, and whether it was there before.

    Only errors in what was asked of all end it; one in a scenario is its Failure.
    progress_of: called with a scenario's name before it is run.
    """
    for name in run.request.scenarios:
        try:
            scenario = find(name)
            directory = run.directory_of(scenario.name)
            if (directory / OUTCOME).exists():
                yield read_answer(directory), True
                continue
            answer = ask(
                name,
                scenario,
                run.request.calibration,
                run.request.chosen.get(name, {}),
                run.request.seed,
                progress_of(scenario.name),
            )
            write_answer(directory, answer)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # noqa: BLE001 - the others are to be answered all the same
            yield Failure(name, error), False
        else:
            yield answer, False


def answers_of(directory: Path) -> list[Answer]:
    """What a run has answered, in the order asked. Raises INVALID_ARGUMENT if that is nothing."""
    asked = read_about(directory)["asked"]
    found = {
        answer.scenario: answer
        for path in sorted(directory.glob(f"*/{OUTCOME}"))
        for answer in [read_answer(path.parent)]
    }
    if not found:
        raise KeyplaneError(Reason.INVALID_ARGUMENT, f"no scenario is finished in {directory}")
    order = [name for name in asked.get("scenarios", ()) if name in found]
    return [found[name] for name in dict.fromkeys([*order, *found])]


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    replace_file(path, (json.dumps(facts, indent=1) + "\n").encode())
