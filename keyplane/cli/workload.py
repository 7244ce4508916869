"""`keyplane workload …`: load with live figures, and the proof that nothing was lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from keyplane.cli.output import EXIT_INTERRUPTED, EXIT_NO, EXIT_OK, EXIT_UNKNOWN, Output
from keyplane.cli.session import Session, command
from keyplane.client.aio import AsyncClient
from keyplane.history.files import HistoryLog, machine_clock
from keyplane.history.problem import Initial
from keyplane.history.recorder import Recorder as HistoryRecorder
from keyplane.workload.acklog import AckLog, read_ack_log
from keyplane.workload.config import Distribution, WorkloadConfig
from keyplane.workload.recorder import Summary
from keyplane.workload.runner import Workload
from keyplane.workload.samples import SampleLog
from keyplane.workload.table import ensure_table, find_table, key_attribute
from keyplane.workload.verdict import KeyHistory, histories
from keyplane.workload.verify import Report, verify

_DEFAULTS = WorkloadConfig(table="workload")

# Live figures: every second on a terminal, where they replace each other; elsewhere they pile up.
_BEAT_S = 1.0
_BEAT_OF_PIPES_S = 5.0

_FIGURES = ("requests/s", "p50 ms", "p99 ms", "p99.9 ms", "failed")


@dataclass(slots=True)
class _Logs:
    """The files of a run that were asked for."""

    acks: AckLog | None = None
    samples: SampleLog | None = None
    history: HistoryRecorder | None = None


def register(app: typer.Typer) -> None:
    workload = typer.Typer(
        no_args_is_help=True, help="Put load on a cluster and check that it kept its word."
    )
    command(workload, "run", _RUN_EXAMPLES)(run)
    command(workload, "verify", _VERIFY_EXAMPLES)(verify_)
    app.add_typer(workload, name="workload")


_RUN_EXAMPLES = """
    keyplane workload run                                  half reads, half writes, for 30 s
    keyplane workload run --distribution zipf --reads 0.9
    keyplane workload run --rate 500 --duration 60         open loop: 500 requests a second
    keyplane workload run --ack-log acks.jsonl             then: keyplane workload verify ...
    keyplane workload run --history history.jsonl          then: keyplane history check ...
"""


def run(
    session: Session,
    table: Annotated[
        str, typer.Option("--table", "-t", help="Made if it is missing.")
    ] = _DEFAULTS.table,
    distribution: Annotated[
        Distribution, typer.Option(help="Which keys are asked for.")
    ] = _DEFAULTS.distribution,
    reads: Annotated[
        float, typer.Option(min=0, max=1, help="Share of reads; the rest are writes.")
    ] = _DEFAULTS.read_share,
    clients: Annotated[
        int, typer.Option(min=1, max=4096, help="Requests in flight at most.")
    ] = _DEFAULTS.clients,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Requests a second, all clients together.",
            show_default="each client as fast as it gets answers",
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds.")
    ] = _DEFAULTS.duration_s,
    keys: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="How many different keys.")
    ] = _DEFAULTS.keys,
    item_size: Annotated[
        int, typer.Option(min=1, max=400_000, help="Bytes of an item's payload.")
    ] = _DEFAULTS.item_bytes,
    zipf_exponent: Annotated[
        float, typer.Option(min=0, help="How skewed `zipf` is; 0 is uniform.")
    ] = _DEFAULTS.zipf_exponent,
    hot_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of `hot-key` requests to the one key.")
    ] = _DEFAULTS.hot_share,
    seed: Annotated[
        int, typer.Option(help="The same seed asks for the same keys.")
    ] = _DEFAULTS.seed,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Deadline of each request, in seconds.")
    ] = _DEFAULTS.timeout_s,
    partitions: Annotated[int, typer.Option(min=1, help="Of a table that is made.")] = 8,
    ack_log: Annotated[
        Path | None,
        typer.Option(help="File to append a JSON line to for each acknowledged write."),
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="File to write a CSV line to for each request.")
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="File to append every operation to, for `keyplane history check`."),
    ] = None,
) -> int:
    """Reads and writes items, with live figures. Exit code 1 if any request failed.

    Reads are consistent, and one that misses a write acknowledged before it counts as failed.
    Ctrl-C ends it early, with the figures so far.
    """
    config = WorkloadConfig(
        table=table,
        clients=clients,
        rate_per_s=rate,
        read_share=reads,
        keys=keys,
        distribution=distribution,
        zipf_exponent=zipf_exponent,
        hot_share=hot_share,
        item_bytes=item_size,
        seed=seed,
        duration_s=duration,
        timeout_s=timeout,
    )
    key = ensure_table(
        session.routers(), session.metadata, table, partitions, session.credentials()
    )
    with _logs(ack_log, samples, history) as logs:
        workload, interrupted = asyncio.run(_run(session, config, key, logs))
    summary = workload.recorder.summary(time.monotonic())
    _show_summary(session.out, summary, workload)
    session.out.result(
        asdict(summary)
        | {
            "table": table,
            "acknowledged_writes": workload.acknowledged_writes,
            "unknown_writes": workload.unknown_writes,
            "interrupted": interrupted,
        }
    )
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_NO if summary.failed else EXIT_OK


async def _run(
    session: Session, config: WorkloadConfig, key: str, logs: _Logs
) -> tuple[Workload, bool]:
    """The workload after its end, and whether Ctrl-C ended it."""
    async with AsyncClient(session.routers(), credentials=session.credentials()) as client:
        workload = Workload(config, client, key, logs.acks, logs.samples, logs.history)
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            workload.stop()
            # The second Ctrl-C waits for nothing.
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
        live = asyncio.create_task(_show_live(session.out, workload))
        try:
            await workload.run()
        finally:
            live.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await live
    return workload, interrupted


async def _show_live(out: Output, workload: Workload) -> None:
    terminal = out.progress.is_terminal
    started = time.monotonic()
    view = Live(console=out.progress, transient=True) if terminal else contextlib.nullcontext()
    with view:
        while True:
            await asyncio.sleep(_BEAT_S if terminal else _BEAT_OF_PIPES_S)
            now = time.monotonic()
            line = _live_line(now - started, workload.recorder.since_last(now))
            if isinstance(view, Live):
                view.update(line)
            else:
                out.note(line)


def _live_line(elapsed_s: float, summary: Summary) -> str:
    line = (
        f"{elapsed_s:5.0f} s  {summary.throughput_per_s:9,.0f}/s"
        f"  p50 {summary.p50_ms:7.2f}  p99 {summary.p99_ms:7.2f}  p99.9 {summary.p999_ms:7.2f} ms"
    )
    return line + (f"  failed {summary.failed}: {summary.errors}" if summary.failed else "")


def _show_summary(out: Output, summary: Summary, workload: Workload) -> None:
    out.say(
        f"{summary.requests:,} requests in {summary.seconds:.1f} s: {summary.reads:,} reads, "
        f"{summary.writes:,} writes, {workload.acknowledged_writes:,} of them acknowledged"
    )
    figures = (summary.throughput_per_s, summary.p50_ms, summary.p99_ms, summary.p999_ms)
    texts = [f"{figure:,.2f}" for figure in figures]
    out.table(_FIGURES, [[*texts, f"{summary.failed:,}"]])
    for reason, count in summary.errors.items():
        out.say(f"[red]{reason}[/red] {count:,}")


_VERIFY_EXAMPLES = """
    keyplane workload verify --ack-log acks.jsonl
"""


def verify_(
    session: Session,
    ack_log: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Of `run`.")],
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Deadline of each read, in seconds.")
    ] = _DEFAULTS.timeout_s,
) -> int:
    """Reads every acknowledged write of a log back.

    Of each key the last acknowledged write must be there, or a later one that was attempted. Exit
    code 1 if one is lost, or was applied twice; 4 if some keys could not be read.
    """
    found = histories(read_ack_log(ack_log))
    report = asyncio.run(_verify(session, found, timeout))
    acknowledged = sum(len(history.versions) for history in found.values())
    out = session.out
    out.say(f"{acknowledged:,} acknowledged writes to {len(found):,} keys")
    for verdict, count in report.keys.items():
        out.say(f"{verdict.value.replace('_', ' '):<14}{count:,} keys")
    for violation in report.violations:
        out.say(f"[red]{violation['verdict']}[/red] {violation}")
    for reason, count in report.unread.items():
        out.say(f"[red]{reason}[/red] {count:,} keys could not be read")
    out.result(
        {
            "acknowledged_writes": acknowledged,
            "keys": len(found),
            "lost_writes": report.lost,
            "applied_twice": report.applied_twice,
            "unread_keys": report.unread.total(),
            "violations": report.violations,
        }
    )
    if report.lost or report.applied_twice:
        return EXIT_NO
    return EXIT_UNKNOWN if report.unread else EXIT_OK


async def _verify(
    session: Session, found: dict[tuple[str, str], KeyHistory], timeout_s: float
) -> Report:
    routers = session.routers()
    tables = {table for table, _ in found}
    credentials = session.credentials()
    attributes = {table: key_attribute(find_table(routers, table, credentials)) for table in tables}
    async with AsyncClient(routers, credentials=credentials) as client:
        with session.out.waiting(f"reading {len(found):,} keys back"):
            return await verify(client, found, attributes, timeout_s)


@contextlib.contextmanager
def _logs(ack_log: Path | None, samples: Path | None, history: Path | None) -> Iterator[_Logs]:
    logs = _Logs()
    with contextlib.ExitStack() as stack:
        if ack_log is not None:
            logs.acks = stack.enter_context(contextlib.closing(AckLog(ack_log)))
        if samples is not None:
            logs.samples = stack.enter_context(contextlib.closing(SampleLog(samples)))
        if history is not None:
            # The table may have had items before.
            log = HistoryLog(history, machine_clock(), Initial.ANYTHING)
            stack.enter_context(contextlib.closing(log))
            logs.history = HistoryRecorder(time.monotonic, log)
        yield logs
