"""`python -m granter`: runs a granter."""

from __future__ import annotations

from typing import Annotated

import typer

from granter.config import GranterConfig
from granter.core import SERVICE, GranterCore
from wire import flags
from wire.logs import LogFormat, LogLevel
from wire.service import Runtime, ServiceSettings, serve
from wire.transports import TransportKind

app = typer.Typer(
    help="The granter: how much of each table its routers may use.", add_completion=False
)


class GranterSettings(ServiceSettings):
    """What a granter can be told beyond what every server can."""

    # Seconds of unused capacity that a table may save up.
    burst_s: float = GranterConfig().burst_s
    # Seconds within which an on-demand table may not more than double its peak.
    doubling_s: float = GranterConfig().doubling_s


def build(runtime: Runtime) -> GranterCore:
    settings = runtime.settings
    assert isinstance(settings, GranterSettings)
    config = GranterConfig(burst_s=settings.burst_s, doubling_s=settings.doubling_s)
    return GranterCore(config, runtime.clock, runtime.server, runtime.metrics)


@app.command()
def run(
    burst_s: Annotated[
        float,
        typer.Option(
            "--burst-s",
            envvar="KEYPLANE_BURST_S",
            min=1.0,
            max=3600.0,
            help="Seconds of unused capacity that a provisioned table may save up.",
        ),
    ] = 300.0,
    doubling_s: Annotated[
        float,
        typer.Option(
            "--doubling-s",
            envvar="KEYPLANE_DOUBLING_S",
            min=1.0,
            max=86_400.0,
            help="Seconds within which an on-demand table may not more than double its peak.",
        ),
    ] = 1800.0,
    listen: flags.Listen = "127.0.0.1:0",
    advertise: flags.Advertise = "",
    metrics_listen: flags.MetricsListen = "127.0.0.1:0",
    run_file: flags.RunFile = None,
    enable_faults: flags.EnableFaults = False,
    log_level: flags.Level = LogLevel.INFO,
    log_format: flags.Format = LogFormat.AUTO,
) -> None:
    """Runs a granter until it is told to stop. It keeps nothing: a new one goes on in its place."""
    settings = GranterSettings(
        burst_s=burst_s,
        doubling_s=doubling_s,
        listen=listen,
        advertise=advertise,
        metrics_listen=metrics_listen,
        # A control service: a call a second from each router.
        transport=TransportKind.GRPCIO,
        run_file=run_file,
        enable_faults=enable_faults,
        log_level=log_level,
        log_format=log_format,
    )
    raise typer.Exit(serve("granter", settings, build, [SERVICE]))


def main() -> None:
    app(prog_name="python -m granter")


if __name__ == "__main__":
    main()
