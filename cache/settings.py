"""What every server that uses MemDS is told about it, by flag or by environment."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import Field

from wire.service import ServiceSettings

Memds = Annotated[
    str,
    typer.Option(
        "--memds",
        envvar="KEYPLANE_MEMDS",
        help="host:port of every memcached node, comma-separated.",
    ),
]
ClusterName = Annotated[
    str,
    typer.Option("--cluster", envvar="KEYPLANE_CLUSTER", help="Name of the cluster."),
]


class MemdsSettings(ServiceSettings):
    """The part of a server's settings that says where MemDS is."""

    # Comma list of host:port of all memcached nodes.
    memds: str = ""
    # Names the keys in MemDS; all processes of a cluster share it.
    cluster: str = Field(default="keyplane", min_length=1)
