"""All mutants, by name."""

from __future__ import annotations

from collections.abc import Mapping

from sim.mutants.cache import CACHE
from sim.mutants.metadata import METADATA
from sim.mutants.moves import MOVES
from sim.mutants.mutant import Mutant
from sim.mutants.router import ROUTER
from sim.mutants.storage import STORAGE

MUTANTS: Mapping[str, Mutant] = {
    mutant.name: mutant for mutant in (*STORAGE, *MOVES, *ROUTER, *CACHE, *METADATA)
}
