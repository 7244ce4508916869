"""`python -m metadata`: runs a Metadata Store, or prepares its database."""

from __future__ import annotations

from typing import Annotated

import typer

from cache.settings import AuthMode, ClusterName, ClusterSecretFile, Memds
from keyplane.model.errors import KeyplaneError
from metadata import migrate
from metadata.config import PlannerConfig
from metadata.database import Database, parse_url
from metadata.handlers.dispatch import SERVICE, TENANT_SERVICE
from metadata.live import DEFAULT_DATABASE_URL, MetadataSettings, build
from wire import flags
from wire.auth import Auth
from wire.logs import LogFormat, LogLevel
from wire.service import EXIT_FAILED, serve
from wire.transports import TransportKind

app = typer.Typer(
    help="The Metadata Store: tables, partitions and operations.", add_completion=False
)

_PLANNER = PlannerConfig()

DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database-url",
        envvar="KEYPLANE_DATABASE_URL",
        help="sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
    ),
]


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    database_url: DatabaseUrl = DEFAULT_DATABASE_URL,
    memds: Memds = "",
    cluster: ClusterName = "keyplane",
    split_bytes: Annotated[
        int,
        typer.Option(
            "--split-bytes",
            envvar="KEYPLANE_SPLIT_BYTES",
            min=10_000,
            help="Bytes from which the planner splits a partition.",
        ),
    ] = _PLANNER.split_bytes,
    hot_for_s: Annotated[
        float,
        typer.Option(
            "--hot-for-s",
            envvar="KEYPLANE_HOT_FOR_S",
            min=1.0,
            max=3600.0,
            help="Seconds for which a partition must be hot until the planner splits it.",
        ),
    ] = _PLANNER.hot_for_s,
    cold_s: Annotated[
        float,
        typer.Option(
            "--cold-s",
            envvar="KEYPLANE_COLD_S",
            min=10.0,
            max=86_400.0,
            help="Seconds for which neighbours must be cold until the planner merges them.",
        ),
    ] = _PLANNER.cold_s,
    auth: AuthMode = Auth.OFF,
    cluster_secret_file: ClusterSecretFile = None,
    listen: flags.Listen = "127.0.0.1:0",
    advertise: flags.Advertise = "",
    metrics_listen: flags.MetricsListen = "127.0.0.1:0",
    run_file: flags.RunFile = None,
    enable_faults: flags.EnableFaults = False,
    log_level: flags.Level = LogLevel.INFO,
    log_format: flags.Format = LogFormat.AUTO,
) -> None:
    """Runs the Metadata Store until it is told to stop. Its database is upgraded at start."""
    if context.invoked_subcommand is not None:
        return
    settings = MetadataSettings(
        database_url=database_url,
        memds=memds,
        cluster=cluster,
        split_bytes=split_bytes,
        hot_for_s=hot_for_s,
        cold_s=cold_s,
        auth=auth,
        cluster_secret_file=cluster_secret_file,
        listen=listen,
        advertise=advertise,
        metrics_listen=metrics_listen,
        # A control service: nothing about it has to be fast.
        transport=TransportKind.GRPCIO,
        run_file=run_file,
        enable_faults=enable_faults,
        log_level=log_level,
        log_format=log_format,
    )
    raise typer.Exit(serve("metadata", settings, build, [SERVICE, TENANT_SERVICE]))


@app.command("migrate")
def migrate_database(
    database_url: DatabaseUrl = DEFAULT_DATABASE_URL,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL for an empty database instead.")
    ] = False,
) -> None:
    """Makes or upgrades the schema without running the store."""
    try:
        if sql:
            typer.echo(migrate.upgrade_script(parse_url(database_url).get_backend_name()))
            return
        database = Database(database_url)
        database.migrate()
        database.close()
    except KeyplaneError as error:
        typer.echo(f"cannot migrate: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from error
    typer.echo("the schema is up to date", err=True)


def main() -> None:
    app(prog_name="python -m metadata")


if __name__ == "__main__":
    main()
