"""A server as small as servers get, run by the tests as a process of its own.

Methods of /echo.Echo: Say answers with its payload, Hold does not answer, Count says how many are
held, Release answers them all, Crash passes the crash point `echo.crash`, Bug raises in a callback.
With ECHO_REFUSES in the environment it refuses to start.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import typer

from keyplane.model.errors import KeyplaneError, Reason
from wire import flags
from wire.crashpoints import crashpoint, declare
from wire.logs import LogFormat, LogLevel
from wire.ports import Reply, ReplyFn, Request
from wire.service import Runtime, ServiceSettings, serve

declare("echo.crash")


class EchoCore:
    """Drains by waiting for what is held; `Release` ends that."""

    def __init__(self, runtime: Runtime) -> None:
        if refusal := os.environ.get("ECHO_REFUSES"):
            raise KeyplaneError(Reason.CORRUPT, refusal)
        self.ready = False
        self._clock = runtime.clock
        self._held: list[ReplyFn] = []
        self._on_drained: Callable[[], None] | None = None
        for method in (self.say, self.hold, self.count, self.release, self.crash, self.bug):
            runtime.server.register(f"/echo.Echo/{method.__name__.capitalize()}", method)

    def start(self) -> None:
        self.ready = True

    def status(self) -> str:
        return f"{len(self._held)} held"

    def drain(self, on_done: Callable[[], None]) -> None:
        self._on_drained = on_done
        if not self._held:
            on_done()

    def say(self, request: Request, reply: ReplyFn) -> None:
        if self._on_drained is not None:
            raise KeyplaneError(Reason.SHUTTING_DOWN, "this server is stopping; ask another")
        reply(Reply(request.payload))

    def hold(self, request: Request, reply: ReplyFn) -> None:
        self._held.append(reply)

    def count(self, request: Request, reply: ReplyFn) -> None:
        reply(Reply(str(len(self._held)).encode()))

    def release(self, request: Request, reply: ReplyFn) -> None:
        for held in self._held:
            held(Reply(b"released"))
        self._held.clear()
        reply(Reply())
        if self._on_drained is not None:
            self._on_drained()

    def crash(self, request: Request, reply: ReplyFn) -> None:
        crashpoint("echo.crash")
        reply(Reply(b"survived"))

    def bug(self, request: Request, reply: ReplyFn) -> None:
        self._clock.call_soon(lambda: reply(Reply(b"answered all the same")))
        self._clock.call_soon(lambda: {}["no such key"])


def main(
    listen: flags.Listen = "127.0.0.1:0",
    metrics_listen: flags.MetricsListen = "127.0.0.1:0",
    run_file: flags.RunFile = None,
    advertise: flags.Advertise = "",
    log_level: flags.Level = LogLevel.INFO,
    log_format: flags.Format = LogFormat.AUTO,
) -> None:
    settings = ServiceSettings(
        listen=listen,
        advertise=advertise,
        metrics_listen=metrics_listen,
        run_file=run_file,
        log_level=log_level,
        log_format=log_format,
    )
    raise typer.Exit(serve("echo-1", settings, EchoCore, ["keyplane.data.v1.DataService"]))


if __name__ == "__main__":
    typer.run(main)
