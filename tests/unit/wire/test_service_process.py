"""The process shell, seen from outside: real processes, real ports, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keyplane.model.errors import Reason
from wire.grpcio import GrpcTransport
from wire.loop import LoopClock
from wire.ports import Reply
from wire.service import EXIT_FAILED, EXIT_LISTEN, EXIT_OK, EXIT_USAGE

ECHO = Path(__file__).with_name("echo_service.py")
ROOT = Path(__file__).parents[3]

# Longer than anything here takes.
TIMEOUT_S = 30.0


class Process:
    """An echo service of its own, from start to end."""

    def __init__(self, directory: Path, *flags: str, **env: str) -> None:
        self.run_file = directory / "run" / "echo.json"
        self.run_file.unlink(missing_ok=True)
        self.child = subprocess.Popen(
            [sys.executable, str(ECHO), "--run-file", str(self.run_file), *flags],
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.logged: list[dict[str, Any]] = []

    def wait_for(self, event: str) -> dict[str, Any]:
        """Reads the log up to a line, and fails if the log ends before."""
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.logged.append(json.loads(line))
            if self.logged[-1]["event"] == event:
                return self.logged[-1]
        pytest.fail(f"ended without saying {event!r}: {self.logged}")

    def facts(self) -> dict[str, Any]:
        self.wait_for("ready")
        facts: dict[str, Any] = json.loads(self.run_file.read_bytes())
        return facts

    def end(self, *signals: int) -> int:
        for number in signals:
            self.child.send_signal(number)
        return self.child.wait(TIMEOUT_S)

    def last_words(self) -> str:
        assert self.child.stderr is not None
        self.logged += map(json.loads, self.child.stderr)
        return str(self.logged[-1]["event"])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*flags: str, **env: str) -> Process:
        started.append(Process(tmp_path, *flags, **env))
        return started[-1]

    yield start
    for process in started:
        process.child.kill()
        process.child.wait()
        assert process.child.stderr is not None
        process.child.stderr.close()


Call = Callable[..., Awaitable[Reply]]


def play(story: Callable[[Call], Awaitable[None]]) -> None:
    async def run() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        transport = GrpcTransport(clock)

        async def call(address: str, method: str, payload: bytes = b"") -> Reply:
            ended: asyncio.Future[Reply] = clock.loop.create_future()
            deadline = clock.now() + TIMEOUT_S
            transport.call(address, f"/echo.Echo/{method}", payload, deadline, ended.set_result)
            return await ended

        await story(call)
        await transport.close()

    asyncio.run(run())


def reason(reply: Reply) -> Reason | None:
    return reply.error and reply.error.reason


async def held(call: Call, address: str) -> asyncio.Task[Reply]:
    """A call that the server has and does not answer."""
    task = asyncio.ensure_future(call(address, "Hold"))
    while (await call(address, "Count")).payload != b"1":
        await asyncio.sleep(0)
    return task


# --- Starting ------------------------------------------------------------------------------------


def test_a_started_process_tells_where_it_is_and_serves(start: Callable[..., Process]) -> None:
    process = start()
    facts = process.facts()
    assert facts["name"] == "echo-1"
    assert facts["pid"] == process.child.pid
    assert abs(facts["started_at"] - psutil.Process(process.child.pid).create_time()) < TIMEOUT_S

    async def story(call: Call) -> None:
        assert (await call(facts["address"], "Say", b"hello")).payload == b"hello"

    play(story)
    with urllib.request.urlopen(f"http://{facts['metrics_address']}/metrics") as response:
        assert b'keyplane_rpc_requests_total{method="/echo.Echo/Say"} 1.0' in response.read()


def test_others_may_be_told_another_address_than_the_bound_one(
    start: Callable[..., Process],
) -> None:
    assert start("--advertise", "db.example.com:80").facts()["address"] == "db.example.com:80"


def test_flags_may_come_from_the_environment(start: Callable[..., Process]) -> None:
    assert start(KEYPLANE_ADVERTISE="db.example.com:80").facts()["address"] == "db.example.com:80"


@pytest.mark.parametrize(
    ("flag", "fact"), [("--listen", "address"), ("--metrics-listen", "metrics_address")]
)
def test_a_taken_port_ends_the_start_and_names_the_flag(
    start: Callable[..., Process], flag: str, fact: str
) -> None:
    first = start()
    taken = first.facts()[fact]
    second = start(flag, taken)
    assert second.end() == EXIT_LISTEN
    assert second.last_words() == (
        f"cannot listen on {taken}: Address already in use; choose another with {flag} HOST:PORT"
    )
    assert not second.run_file.exists()


def test_what_is_no_address_names_the_flag_too(start: Callable[..., Process]) -> None:
    process = start("--listen", "8000")
    assert process.end() == EXIT_LISTEN
    assert "write host:port" in process.last_words()
    assert "--listen" in process.last_words()


def test_a_run_file_that_cannot_be_written_ends_the_start(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "in the way").write_bytes(b"")
    process = start("--run-file", str(tmp_path / "in the way" / "run.json"))
    assert process.end() == EXIT_FAILED
    assert process.last_words().startswith("cannot start: ")


def test_a_core_that_cannot_be_built_ends_the_start(start: Callable[..., Process]) -> None:
    process = start(ECHO_REFUSES="its data belongs to another node")
    assert process.end() == EXIT_FAILED
    assert process.last_words() == "cannot start: CORRUPT: its data belongs to another node"


# --- Stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_process_stops_when_it_is_told_to(
    start: Callable[..., Process], number: int
) -> None:
    process = start()
    process.facts()
    assert process.end(number) == EXIT_OK
    assert process.last_words() == "stopped"


def test_a_drain_refuses_what_is_new_and_finishes_what_is_in_flight(
    start: Callable[..., Process],
) -> None:
    process = start()
    address = process.facts()["address"]

    async def story(call: Call) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            pending = await held(call, address)
            process.child.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert reason(await call(address, "Say")) is Reason.SHUTTING_DOWN
            assert (await call(address, "Release")).error is None
            assert (await pending).payload == b"released"

    play(story)
    assert process.end() == EXIT_OK


def test_a_drain_that_takes_too_long_is_cut_short(start: Callable[..., Process]) -> None:
    process = start(KEYPLANE_DRAIN_GRACE_S="0.1")
    address = process.facts()["address"]

    async def story(call: Call) -> None:
        pending = await held(call, address)
        process.child.send_signal(signal.SIGTERM)
        error = (await pending).error
        assert error is not None and not error.definite

    play(story)
    assert process.end() == EXIT_FAILED


def test_a_second_signal_ends_the_process_at_once(start: Callable[..., Process]) -> None:
    process = start(KEYPLANE_DRAIN_GRACE_S="600")
    address = process.facts()["address"]

    async def story(call: Call) -> None:
        pending = await held(call, address)
        process.child.send_signal(signal.SIGTERM)
        process.wait_for("stopping")
        # Repeats within a moment are taken for the same signal, so this insists.
        while process.child.poll() is None:
            process.child.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
        assert (await pending).error is not None

    play(story)
    assert process.child.returncode == 128 + signal.SIGTERM


# --- Crashing ------------------------------------------------------------------------------------


def test_a_killed_process_leaves_its_calls_open_and_is_reached_again_once_it_is_back(
    start: Callable[..., Process],
) -> None:
    first = start()
    address = first.facts()["address"]

    async def story(call: Call) -> None:
        pending = await held(call, address)
        first.end(signal.SIGKILL)
        lost = await pending
        assert (reason(lost), lost.sent) == (Reason.CONNECTION_LOST, True)
        gone = await call(address, "Say")
        assert (reason(gone), gone.sent) == (Reason.NODE_UNREACHABLE, False)
        start("--listen", address).facts()
        # A reconnect waits for a second at most, and its deadline here is far longer.
        while (reply := await call(address, "Say", b"back")).error is not None:
            assert not reply.sent
            await asyncio.sleep(0.05)
        assert reply.payload == b"back"

    play(story)


def test_a_bug_in_a_callback_is_logged_and_counted_and_survived(
    start: Callable[..., Process],
) -> None:
    process = start()
    facts = process.facts()

    async def story(call: Call) -> None:
        assert (await call(facts["address"], "Bug")).payload == b"answered all the same"
        assert (await call(facts["address"], "Say", b"alive")).payload == b"alive"

    play(story)
    with urllib.request.urlopen(f"http://{facts['metrics_address']}/metrics") as response:
        assert b"keyplane_callback_failures_total 1.0" in response.read()
    assert process.end(signal.SIGTERM) == EXIT_OK
    process.last_words()
    assert any("KeyError" in line.get("exception", "") for line in process.logged)


def test_a_crash_point_kills_the_process(start: Callable[..., Process]) -> None:
    process = start(KEYPLANE_CRASH_AT="echo.crash")
    address = process.facts()["address"]

    async def story(call: Call) -> None:
        assert reason(await call(address, "Crash")) is Reason.CONNECTION_LOST

    play(story)
    assert process.end() == -signal.SIGKILL


def test_a_stop_point_stops_the_process_once(start: Callable[..., Process]) -> None:
    process = start(KEYPLANE_STOP_AT="echo.crash")
    address = process.facts()["address"]

    async def story(call: Call) -> None:
        pending = asyncio.ensure_future(call(address, "Crash"))
        while psutil.Process(process.child.pid).status() != psutil.STATUS_STOPPED:
            await asyncio.sleep(0.01)
        assert not pending.done()
        process.child.send_signal(signal.SIGCONT)
        assert (await pending).payload == b"survived"
        assert (await call(address, "Crash")).payload == b"survived"

    play(story)


def test_a_misspelt_crash_point_ends_the_start(start: Callable[..., Process]) -> None:
    process = start(KEYPLANE_CRASH_AT="echo.crash,echo.trash")
    assert process.end() == EXIT_USAGE
    assert process.last_words() == "no crash point 'echo.trash'; there are: echo.crash"
