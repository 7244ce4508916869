"""What every server that uses MemDS is told about it, by flag or by environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from wire.auth import Auth
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


AuthMode = Annotated[
    Auth,
    typer.Option(
        "--auth",
        envvar="KEYPLANE_AUTH",
        help="required: only calls signed by a user's key are taken; off: all are.",
    ),
]
ClusterSecretFile = Annotated[
    Path | None,
    typer.Option(
        "--cluster-secret-file",
        envvar="KEYPLANE_CLUSTER_SECRET_FILE",
        help="File with the cluster's secret, readable for its owner alone; `keyplane up` makes"
        " one. Keys of users are sealed with it.",
    ),
]


class MemdsSettings(ServiceSettings):
    """The part of a server's settings that says where MemDS is."""

    # Comma list of host:port of all memcached nodes.
    memds: str = ""
    # Names the keys in MemDS; all processes of a cluster share it.
    cluster: str = Field(default="keyplane", min_length=1)
    # What tenants' keys are sealed with, and what the operator's key follows from.
    cluster_secret_file: Path | None = None
