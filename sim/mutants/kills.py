"""Which seed kills which mutant, as recorded last: `python -m sim.mutants.record` writes this file.

It saves the tests the hunt. A kill that no longer holds, because seeds mean something else by now
or the code has changed, is no failure of anything: record it anew.
"""

from __future__ import annotations

from collections.abc import Mapping

KILLED_BY: Mapping[str, tuple[str, int]] = {}
