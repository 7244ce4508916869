"""How the tests share a machine: live ones run one after the other, beside the rest.

Tests with real processes mostly wait, the others mostly compute. Run by two workers, as
`scripts/test` does, the first kind is a lane of its own, so that no live test finds another's
processes on its cores.
"""

from __future__ import annotations

import pytest

# Of pytest-xdist's `--dist loadgroup`: tests of one group run on one worker, in order.
LIVE = "live"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    live = [item for item in items if any(item.iter_markers("cluster"))]
    for item in live:
        item.add_marker(pytest.mark.xdist_group(LIVE))
    # First, because it is the longer lane.
    chosen = set(live)
    items[:] = live + [item for item in items if item not in chosen]
