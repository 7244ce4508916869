"""The command line of `python -m router`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cache.config import Refresh
from cache.settings import AuthMode, ClusterName, ClusterSecretFile, Memds
from router.core import DATA_SERVICE, ROUTE_SERVICE
from router.live import RouterSettings, build
from wire import flags
from wire.auth import Auth
from wire.logs import LogFormat, LogLevel
from wire.polling import BUSY_POLL_US
from wire.service import serve
from wire.transports import TransportKind

app = typer.Typer(help="The Request Router: the data plane's front door.", add_completion=False)


@app.command()
def run(
    memds: Memds = "",
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            envvar="KEYPLANE_SEEDS",
            help="host:port of some storage nodes, comma-separated: asked when MemDS is gone.",
        ),
    ] = "",
    snapshot_dir: Annotated[
        Path,
        typer.Option(
            "--snapshot-dir",
            envvar="KEYPLANE_SNAPSHOT_DIR",
            help="Directory of the map it boots from when nobody can be asked.",
        ),
    ] = Path("keyplane-router"),
    granter: Annotated[
        str,
        typer.Option(
            "--granter",
            envvar="KEYPLANE_GRANTER",
            help="host:port of the granter, which says how much of provisioned tables may be used.",
        ),
    ] = "",
    router_id: Annotated[
        str,
        typer.Option("--router-id", envvar="KEYPLANE_ROUTER_ID", help="Its name in logs."),
    ] = "router",
    cluster: ClusterName = "keyplane",
    auth: AuthMode = Auth.OFF,
    cluster_secret_file: ClusterSecretFile = None,
    refresh: Annotated[
        Refresh,
        typer.Option(
            "--refresh",
            envvar="KEYPLANE_REFRESH",
            help="fixed: reads MemDS on its beat alone. per_request: tables in use only.",
        ),
    ] = Refresh.FIXED,
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
    """Runs a router until it is told to stop."""
    settings = RouterSettings(
        memds=memds,
        seeds=seeds,
        snapshot_dir=snapshot_dir,
        granter=granter,
        router_id=router_id,
        cluster=cluster,
        auth=auth,
        cluster_secret_file=cluster_secret_file,
        refresh=refresh,
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
    raise typer.Exit(serve(router_id, settings, build, [DATA_SERVICE, ROUTE_SERVICE]))


def main() -> None:
    app(prog_name="python -m router")
