"""The command line of `python -m storage`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cache.settings import ClusterName, ClusterSecretFile, Memds
from storage.live import StorageSettings, build
from storage.service import SERVICES
from wire import flags
from wire.logs import LogFormat, LogLevel
from wire.polling import BUSY_POLL_US
from wire.service import serve
from wire.transports import TransportKind

app = typer.Typer(help="A storage node: holds partitions and their items.", add_completion=False)


@app.command()
def run(
    node_id: Annotated[
        str,
        typer.Option(
            "--node-id",
            envvar="KEYPLANE_NODE_ID",
            help="Unique in the cluster, and fixed for the life of the data directory.",
        ),
    ],
    data_dir: Annotated[
        Path,
        typer.Option("--data-dir", envvar="KEYPLANE_DATA_DIR", help="Where everything is kept."),
    ],
    zone: Annotated[
        str, typer.Option("--zone", envvar="KEYPLANE_ZONE", help="Failure domain, for placement.")
    ] = "",
    memds: Memds = "",
    metadata: Annotated[
        str,
        typer.Option(
            "--metadata",
            envvar="KEYPLANE_METADATA",
            help="host:port of the Metadata Store, for heartbeats; empty: none are sent.",
        ),
    ] = "",
    cluster: ClusterName = "keyplane",
    cluster_secret_file: ClusterSecretFile = None,
    listen: flags.Listen = "127.0.0.1:0",
    advertise: flags.Advertise = "",
    metrics_listen: flags.MetricsListen = "127.0.0.1:0",
    transport: flags.Transport = TransportKind.HTTP2,
    busy_poll_us: flags.BusyPoll = BUSY_POLL_US,
    run_file: flags.RunFile = None,
    enable_faults: flags.EnableFaults = False,
    log_level: flags.Level = LogLevel.INFO,
    log_format: flags.Format = LogFormat.AUTO,
) -> None:
    """Runs a storage node until it is told to stop."""
    settings = StorageSettings(
        node_id=node_id,
        data_dir=data_dir,
        zone=zone,
        memds=memds,
        metadata=metadata,
        cluster=cluster,
        cluster_secret_file=cluster_secret_file,
        listen=listen,
        advertise=advertise,
        metrics_listen=metrics_listen,
        transport=transport,
        busy_poll_us=busy_poll_us,
        run_file=run_file,
        enable_faults=enable_faults,
        log_level=log_level,
        log_format=log_format,
    )
    raise typer.Exit(serve(node_id, settings, build, SERVICES))


def main() -> None:
    app(prog_name="python -m storage")
