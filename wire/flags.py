"""The command-line flags that every server has, for Typer commands.

A server's `main` takes these as parameters, adds its own, and passes them to `ServiceSettings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wire.logs import LogFormat, LogLevel
from wire.polling import BUSY_POLL_US_MAX
from wire.transports import TransportKind

Listen = Annotated[
    str,
    typer.Option(
        "--listen",
        envvar="KEYPLANE_LISTEN",
        help="host:port of the gRPC server; port 0 takes a free one.",
    ),
]
Advertise = Annotated[
    str,
    typer.Option(
        "--advertise",
        envvar="KEYPLANE_ADVERTISE",
        help="host:port under which others reach it; empty: the one it listens on.",
    ),
]
MetricsListen = Annotated[
    str,
    typer.Option(
        "--metrics-listen",
        envvar="KEYPLANE_METRICS_LISTEN",
        help="host:port of GET /metrics; port 0 takes a free one.",
    ),
]
Transport = Annotated[
    TransportKind,
    typer.Option(
        "--transport",
        envvar="KEYPLANE_TRANSPORT",
        help="What carries gRPC: Keyplane's own HTTP/2 engine, or grpcio. Peers see no difference.",
    ),
]
BusyPoll = Annotated[
    int,
    typer.Option(
        "--busy-poll-us",
        envvar="KEYPLANE_BUSY_POLL_US",
        min=0,
        max=BUSY_POLL_US_MAX,
        help="Microseconds that it stays awake for the next request, under load; 0: it sleeps.",
    ),
]
RunFile = Annotated[
    Path | None,
    typer.Option(
        "--run-file",
        envvar="KEYPLANE_RUN_FILE",
        help="File to write name, pid and addresses to, once the ports are bound.",
    ),
]
EnableFaults = Annotated[
    bool,
    typer.Option(
        "--enable-faults",
        envvar="KEYPLANE_ENABLE_FAULTS",
        help="Take faults through FaultService, from callers on this machine. For tests.",
    ),
]
Level = Annotated[
    LogLevel,
    typer.Option("--log-level", envvar="KEYPLANE_LOG_LEVEL", help="Least level to log."),
]
Format = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="KEYPLANE_LOG_FORMAT",
        help="auto: readable on a terminal, JSON lines elsewhere.",
    ),
]
