"""What several tests of whole runs look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import keyplane


@pytest.fixture(scope="session")
def run_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of `keyplane fleet run all`, at its defaults."""
    return keyplane(tmp_path_factory.mktemp("all"), "run", "all").parent
