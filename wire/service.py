"""The process shell that every server runs in: ports, health, metrics, logs, signals.

A service brings a core, built over the ports, and the shell gives it a real process around it.
Starting is bind, build, serve, ready; stopping is NOT_SERVING, drain, stop. A second signal ends
the process at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import structlog
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from keyplane import native
from keyplane.model.errors import KeyplaneError
from wire import crashpoints
from wire.exporter import Exporter
from wire.files import replace_file
from wire.injection import FaultTable, FaultyServer, FaultyTransport
from wire.injection.check import NETWORK_KINDS
from wire.injection.live import allow_crash_points
from wire.injection.service import FAULT_SERVICE, FaultService
from wire.logs import LogFormat, LogLevel, configure_logging
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.polling import BUSY_POLL_US_MAX, new_loop
from wire.ports import Rng, Server, Transport
from wire.transports import LiveServer, TransportKind, make_server, make_transport

Log: TypeAlias = structlog.typing.FilteringBoundLogger

EXIT_OK = 0
# Could not start, or could not stop cleanly.
EXIT_FAILED = 1
EXIT_USAGE = 2
# An address could not be listened on. The message names the flag that chooses another.
EXIT_LISTEN = 3

# How often the shell asks the core whether it is ready.
READY_BEAT_S = 0.05

# For the last answers to leave after the drain. Streams, such as health watches, end with it.
STOP_GRACE_S = 0.25

# Objects more than before at which the garbage collector looks at the youngest, and how many such
# looks make it look at the older ones. Python's own 700 would be some ten requests.
COLLECT_AFTER = (20_000, 20, 20)

# Signals closer together are one: Ctrl-C reaches a whole process group, and a launcher in it may
# pass it on as well.
SAME_SIGNAL_S = 0.2


class Core(Protocol):
    """What a service decides with, as the shell drives it."""

    def start(self) -> None: ...

    @property
    def ready(self) -> bool:
        """Health is SERVING while this is true."""

    def drain(self, on_done: Callable[[], None]) -> None:
        """Refuse what is new, finish what is in flight, close files, then call `on_done` once."""

    def status(self) -> str:
        """One line about the core, for logs."""


class ServiceSettings(BaseSettings):
    """What every server can be told, by flag or by environment (KEYPLANE_LISTEN and so on)."""

    model_config = SettingsConfigDict(env_prefix="KEYPLANE_", extra="ignore", frozen=True)

    # Address of the gRPC server. Port 0 takes a free one.
    listen: str = "127.0.0.1:0"
    # Address under which others reach it, where that differs: behind 0.0.0.0 or a port mapping.
    advertise: str = ""
    # Address of GET /metrics.
    metrics_listen: str = "127.0.0.1:0"
    # What carries its calls.
    transport: TransportKind = TransportKind.HTTP2
    # How long its event loop looks for more before it sleeps (`wire.polling`).
    busy_poll_us: int = Field(default=0, ge=0, le=BUSY_POLL_US_MAX)
    # File to tell addresses and pid in, once the ports are bound.
    run_file: Path | None = None
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.AUTO
    # Seconds that a drain may take: a little longer than requests usually last.
    drain_grace_s: float = 5.0
    # Comma lists of crash points at which to kill or to stop this process. For tests.
    crash_at: str = ""
    stop_at: str = ""
    # Whether this process can be told to misbehave, through FaultService. For tests.
    enable_faults: bool = False


@dataclass(frozen=True, slots=True)
class Runtime:
    """The ports of a real process, for the core to be built over.

    address: host:port under which others reach the gRPC server; bound, so it is known already.
    faults: those that this process is told to do; None unless it takes any. `transport` and
        `server` do theirs already.
    """

    name: str
    address: str
    settings: ServiceSettings
    clock: LoopClock
    transport: Transport
    server: Server
    metrics: Metrics
    rng: Rng
    log: Log
    faults: FaultTable | None = None


def serve(
    name: str,
    settings: ServiceSettings,
    build: Callable[[Runtime], Core],
    service_names: Sequence[str],
) -> int:
    """Runs a service until it is told to stop, and returns the exit code.

    name: of this process, in logs and in the run file.
    build: registers handlers on `Runtime.server` and returns the core; runs on the event loop.
    service_names: full gRPC names, for health and reflection.
    """
    configure_logging(settings.log_level, settings.log_format)
    log: Log = structlog.get_logger(service=name)
    try:
        arm_crashpoints(settings)
    except ValueError as error:
        return _give_up(log, str(error), EXIT_USAGE)
    with asyncio.Runner(loop_factory=partial(new_loop, settings.busy_poll_us)) as runner:
        return runner.run(_run(name, settings, build, service_names, log))


def arm_crashpoints(settings: ServiceSettings) -> None:
    """Raises ValueError on a name that no imported module has declared."""
    for names, number in (
        (settings.crash_at, signal.SIGKILL),
        (settings.stop_at, signal.SIGSTOP),
    ):
        for name in filter(None, names.split(",")):
            crashpoints.arm(name.strip(), partial(os.kill, os.getpid(), number))


async def _run(
    name: str,
    settings: ServiceSettings,
    build: Callable[[Runtime], Core],
    service_names: Sequence[str],
    log: Log,
) -> int:
    loop = asyncio.get_running_loop()
    stop = _stop_on_signals(loop, log)
    metrics = Metrics()
    _log_loop_errors(loop, log, metrics)
    clock = LoopClock(loop)
    server = make_server(settings.transport, clock, metrics, (*service_names, FAULT_SERVICE))
    try:
        bound = server.bind(settings.listen)
    except (OSError, ValueError) as error:
        return _give_up(log, _listen_failure(error, "--listen"), EXIT_LISTEN)
    try:
        exporter = Exporter(metrics, loop, settings.metrics_listen)
    except (OSError, ValueError) as error:
        return _give_up(log, _listen_failure(error, "--metrics-listen"), EXIT_LISTEN)
    transport = make_transport(settings.transport, clock)
    address = settings.advertise or bound
    rng = random.Random()
    runtime = Runtime(name, address, settings, clock, transport, server, metrics, rng, log)
    if settings.enable_faults:
        runtime = _with_faults(runtime)
    FaultService(server, runtime.faults, clock, metrics)
    async with contextlib.AsyncExitStack() as ports:
        ports.callback(exporter.close)
        ports.push_async_callback(transport.close)
        ports.push_async_callback(server.stop, STOP_GRACE_S)
        try:
            core = build(runtime)
            core.start()
            await server.start()
            _rest_collector()
            if settings.run_file is not None:
                _write_run_file(settings.run_file, name, address, exporter.address)
        except (KeyplaneError, OSError) as error:
            return _give_up(log, f"cannot start: {error}", EXIT_FAILED)
        log.info(
            "listening",
            address=address,
            metrics=f"http://{exporter.address}/metrics",
            compiled=native.is_active(),
        )
        await _until_stopped(stop, core, server, log)
        log.info("stopping", status=core.status())
        await server.set_serving(False)
        code = await _drain(core, settings.drain_grace_s, log)
    log.info("stopped")
    return code


def _with_faults(runtime: Runtime) -> Runtime:
    table = FaultTable(runtime.clock, runtime.name)
    for kind in NETWORK_KINDS:
        table.allow(kind)
    allow_crash_points(table)
    runtime.log.warning("takes faults from this machine (--enable-faults)")
    ports = (table, runtime.clock, runtime.rng)
    return replace(
        runtime,
        transport=FaultyTransport(runtime.transport, *ports),
        server=FaultyServer(runtime.server, *ports),
        faults=table,
    )


def _rest_collector() -> None:
    """What is there after the start stays, so the garbage collector need not look at it again; and
    requests leave little for it, since reference counting frees what they have used.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def _until_stopped(
    stop: asyncio.Event,
    core: Core,
    server: LiveServer,
    log: Log,
) -> None:
    """Makes health follow the core's readiness, until somebody wants the process to stop."""
    serving = False
    while not stop.is_set():
        if core.ready is not serving:
            serving = core.ready
            await server.set_serving(serving)
            log.info("ready" if serving else "not ready", status=core.status())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), READY_BEAT_S)


async def _drain(core: Core, grace_s: float, log: Log) -> int:
    drained = asyncio.Event()
    try:
        core.drain(drained.set)
        await asyncio.wait_for(drained.wait(), grace_s)
    except TimeoutError:
        log.warning("drain took too long; what is still in flight is given up", grace_s=grace_s)
        return EXIT_FAILED
    return EXIT_OK


def _stop_on_signals(loop: asyncio.AbstractEventLoop, log: Log) -> asyncio.Event:
    """The event that SIGTERM and SIGINT set. The second of them ends the process there and then."""
    stop = asyncio.Event()
    first_at = 0.0

    def on_signal(number: int) -> None:
        nonlocal first_at
        if not stop.is_set():
            first_at = loop.time()
            stop.set()
        elif loop.time() > first_at + SAME_SIGNAL_S:
            log.warning("stopping at once", signal=signal.Signals(number).name)
            # As the shell reports a process that a signal ended.
            os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def _log_loop_errors(
    loop: asyncio.AbstractEventLoop,
    log: Log,
    metrics: Metrics,
) -> None:
    """A callback that raises is a bug: it is logged and counted, and the process goes on."""
    failures = metrics.counter("callback_failures", "Callbacks that raised. Each one is a bug.")

    def on_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failures.inc()
        log.error(context["message"], exc_info=context.get("exception"))

    loop.set_exception_handler(on_error)


def _write_run_file(path: Path, name: str, address: str, metrics_address: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "name": name,
        "pid": os.getpid(),
        "address": address,
        "metrics_address": metrics_address,
        "started_at": time.time(),
    }
    replace_file(path, json.dumps(facts).encode() + b"\n")


def _listen_failure(error: OSError | ValueError, flag: str) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{reason}; choose another with {flag} HOST:PORT"


def _give_up(log: Log, message: str, code: int) -> int:
    log.error(message)
    return code
