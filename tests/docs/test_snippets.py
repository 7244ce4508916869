"""Every Python example that the documentation shows is run against a live cluster.

The blocks of one document are one program, run from top to bottom, with the tables that commands
there have made: `users` by `id`, and `music` by `artist` and `song`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyplane import AdminClient
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.metadata.v1 import metadata_pb2 as metadata

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {
    path.name: "\n".join(blocks)
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    if (blocks := _BLOCK.findall(path.read_text()))
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a small cluster is kept that has the tables of the examples."""
    directory = tmp_path_factory.mktemp("snippets")
    running = Cluster(home=directory)
    try:
        running.up(ClusterConfig(memds=1, routers=2, storage=1))
        with AdminClient(running.addresses(Kind.METADATA)[0]) as admin:
            admin.run(_table("users", "id"))
            admin.run(_table("music", "artist", "song"))
        yield directory
    finally:
        running.down(wipe=True)


def _table(name: str, *keys: str) -> metadata.CreateTableRequest:
    partition_key, *sort_key = (
        catalog.KeyAttribute(name=key, type=catalog.SCALAR_TYPE_STRING) for key in keys
    )
    return metadata.CreateTableRequest(
        table=name,
        partition_key=partition_key,
        sort_key=sort_key[0] if sort_key else None,
        partitions=4,
    )


@pytest.mark.cluster
@pytest.mark.apart
@pytest.mark.parametrize("document", PROGRAMS)
def test_every_example_runs(document: str, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[document]],
        cwd=ROOT,
        env=os.environ | {"KEYPLANE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"an example of {document} fails:\n{done.stderr}"


def test_the_readme_shows_the_sdk() -> None:
    assert "from keyplane import" in PROGRAMS["README.md"]
