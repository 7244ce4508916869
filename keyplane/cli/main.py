"""The entry point: commands, exit codes, Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer
from rich.markup import escape
from typer.exceptions import TyperException

from keyplane.cli import (
    cluster,
    faults,
    fleet,
    history,
    items,
    operations,
    plan,
    sim,
    tables,
    tenants,
    top,
    workload,
)
from keyplane.cli.output import EXIT_INTERRUPTED, EXIT_USAGE, Output, exit_code
from keyplane.model.errors import KeyplaneError

app = typer.Typer(
    name="keyplane",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="DynamoDB's routing layer on your machine: clusters of real processes, and ways to look "
    "at them, load them and break them.",
    epilog="Start here:\n\n"
    "  keyplane up              start a cluster, or show the one that runs\n"
    "  keyplane COMMAND --help  every command has examples\n"
    "  keyplane down            stop it; data stays until `keyplane down --wipe`\n\n"
    "Exit codes: 0 done; 1 done, and the answer is no (an operation failed, a write is lost, a "
    "member is dead); 2 wrong arguments; 3 not done: refused, or nobody there to ask; 4 it is "
    "open whether it was done; 130 interrupted.",
)
for part in (
    *(cluster, items, tables, operations, plan, top, tenants),
    *(workload, history, faults, sim, fleet),
):
    part.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    out = Output(as_json="--json" in given)
    signal.signal(signal.SIGINT, _interrupted)
    try:
        code = app(given, prog_name="keyplane", standalone_mode=False)
    except KeyplaneError as error:
        out.error(error)
        return exit_code(error)
    except TyperException as error:
        return _usage(out, error)
    except BrokenPipeError:
        # Whoever reads has seen enough; nothing may be written any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if code == EXIT_INTERRUPTED:
        out.progress.print("interrupted")
    return code or 0


def _interrupted(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C lets the command clean up after itself; the second ends it at once."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(EXIT_INTERRUPTED))
    raise KeyboardInterrupt


def _usage(out: Output, error: TyperException) -> int:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if message:
        out.progress.print(f"[red]error:[/red] {escape(message)}")
    if context is not None:
        out.progress.print(escape(f"{context.get_usage()}\nTry `{context.command_path} --help`."))
    out.result({"error": {"reason": "USAGE", "message": message}})
    return EXIT_USAGE
