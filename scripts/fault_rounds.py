"""Runs the live fault suite in rounds and adds up what it reports. Run by scripts/faults."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Of pytest: tests have failed. Anything higher means that it could not run them.
_SOME_FAILED = 1


def main() -> int:
    arguments = _arguments()
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    began = time.monotonic()
    rounds = []
    for number in range(arguments.rounds):
        rounds.append(_round(arguments, seed + number))
        if arguments.rounds > 1:
            code = rounds[-1]["exit_code"]
            told = "held" if code == 0 else f"FAILED (seed {seed + number})"
            sys.stderr.write(f"round {number + 1} of {arguments.rounds}: {told}\n")
        if rounds[-1]["exit_code"] > _SOME_FAILED:
            break
    result = {
        "rounds": len(rounds),
        "rounds_held": sum(each["exit_code"] == 0 for each in rounds),
        "scenarios": sum(len(each["scenarios"]) for each in rounds),
        "requests": sum(row["requests"] for each in rounds for row in each["scenarios"]),
        "seconds": round(time.monotonic() - began, 1),
        "results": [row for each in rounds for row in each["scenarios"]],
    }
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return max(int(each["exit_code"]) for each in rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--long", action="store_true", help="up to two minutes for each scenario")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="run all of it N times")
    parser.add_argument(
        "--seed", type=int, metavar="S", help="of the first round; later ones add 1"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("-k", dest="keyword", default="", metavar="NAMES", help="as for pytest")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    return arguments


def _round(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.jsonl"
        command = [
            *(sys.executable, "-m", "pytest", "tests/faults", "-q"),
            *("--faults-seed", str(seed), "--faults-report", str(report)),
            *(["--faults-long"] if arguments.long else []),
            *(["-k", arguments.keyword] if arguments.keyword else []),
        ]
        output = sys.stderr if arguments.json else None
        done = subprocess.run(command, cwd=ROOT, stdout=output, check=False)
        lines = report.read_text().splitlines() if report.exists() else []
    return {"exit_code": done.returncode, "scenarios": [json.loads(line) for line in lines]}


if __name__ == "__main__":
    sys.exit(main())
