"""`python -m sim.mutants.record [NAME…]`: hunts mutants and writes down which seed killed each."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sim.mutants import kills
from sim.mutants.hunt import Kill, hunt_all
from sim.mutants.registry import MUTANTS

_TABLE = "KILLED_BY: Mapping[str, tuple[str, int]] = "


def main(names: Sequence[str]) -> None:
    found = {each.mutant: each for each in hunt_all(names)}
    killed = {
        name: (each.profile, each.seed) for name, each in found.items() if isinstance(each, Kill)
    }
    kept = {name: pair for name, pair in kills.KILLED_BY.items() if name not in found}
    write({**kept, **killed})


def write(killed: Mapping[str, tuple[str, int]]) -> None:
    """Replaces the table in `sim/mutants/kills.py`, in the order of the registry."""
    path = Path(kills.__file__)
    head, _, _ = path.read_text().partition(_TABLE)
    rows = [
        f'    "{name}": ("{pair[0]}", {pair[1]}),\n'
        for name in MUTANTS
        if (pair := killed.get(name))
    ]
    path.write_text(head + _TABLE + "{\n" + "".join(rows) + "}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
