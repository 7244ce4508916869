"""All mutants, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sim.mutants.admission import ADMISSION
from sim.mutants.cache import CACHE
from sim.mutants.kills import KILLED_BY
from sim.mutants.metadata import METADATA
from sim.mutants.moves import MOVES
from sim.mutants.mutant import Mutant
from sim.mutants.router import ROUTER
from sim.mutants.storage import STORAGE
from sim.mutants.tenants import TENANTS

MUTANTS: Mapping[str, Mutant] = {
    mutant.name: replace(mutant, killed_by=KILLED_BY.get(mutant.name))
    for mutant in (*STORAGE, *MOVES, *ROUTER, *CACHE, *METADATA, *ADMISSION, *TENANTS)
}
