"""`keyplane history …`: whether what clients were told can all be true."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from keyplane.cli.output import EXIT_NO, EXIT_OK
from keyplane.cli.session import Session, command
from keyplane.history.files import History, read_history, to_row
from keyplane.history.linearizability import STEPS_MAX, Verdict, check_history
from keyplane.history.render import render, render_operations
from keyplane.model.errors import KeyplaneError, Reason

# The checker could not tell; as `keyplane sim`, unlike other commands.
_EXIT_UNDECIDED = 2

_EXIT_CODES = {
    Verdict.HELD: EXIT_OK,
    Verdict.VIOLATED: EXIT_NO,
    Verdict.UNDECIDED: _EXIT_UNDECIDED,
}

# Operations shown of an item that is undecided; of a violation there are few.
_SHOWN_MAX = 100

# Keys named to somebody who asked for one that is not there.
_NAMED_MAX = 5

HistoryFile = Annotated[
    Path,
    typer.Argument(
        exists=True, dir_okay=False, help="Written by `keyplane workload run --history FILE`."
    ),
]


def register(app: typer.Typer) -> None:
    history = typer.Typer(
        no_args_is_help=True, help="Check what clients were told, and look at it."
    )
    command(history, "check", _CHECK_EXAMPLES)(check)
    command(history, "show", _SHOW_EXAMPLES)(show)
    app.add_typer(history, name="history")


_CHECK_EXAMPLES = """
    keyplane history check history.jsonl
    keyplane history check history.jsonl --steps 5000000      look longer before giving up
"""


def check(
    session: Session,
    file: HistoryFile,
    steps: Annotated[
        int, typer.Option(min=1, help="Orders to look into for one item before giving up.")
    ] = STEPS_MAX,
) -> int:
    """Looks for an order of all operations that explains every answer, item by item.

    Exit code 0 if there is one, 1 if for some item there is none, 2 if that could not be told.
    Shown are a few operations that no order explains.
    """
    out = session.out
    history = _read(session, file)
    operations = history.operations
    outcomes = Counter(operation.outcome.value for operation in operations)
    keys = len({operation.key for operation in operations})
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in outcomes.items())
    items = "1 key" if keys == 1 else f"{keys:,} keys"
    out.say(f"{len(operations):,} operations on {items}: {counts or 'nothing to check'}")
    with out.waiting("checking"):
        finding = check_history(operations, steps_max=steps, initial=history.initial)
    window = finding.operations[:_SHOWN_MAX]
    colour = "green" if finding.verdict is Verdict.HELD else "red"
    out.say(f"[{colour}]{finding.verdict.value}[/{colour}]")
    if finding.verdict is Verdict.VIOLATED:
        out.say(escape(render(finding)))
        words = ["keyplane", "history", "show", str(file), "--key", finding.key]
        out.say(escape(f"all of it: {shlex.join(words)}"))
    else:
        out.say(escape(finding.message))
    out.result(
        {
            "verdict": finding.verdict.value,
            "operations": len(operations),
            "keys": keys,
            "outcomes": dict(outcomes),
            "key": finding.key,
            "message": finding.message,
            "window": [to_row(operation) for operation in window],
        }
    )
    return _EXIT_CODES[finding.verdict]


_SHOW_EXAMPLES = """
    keyplane history show history.jsonl --key workload/key-00000001
"""


def show(
    session: Session,
    file: HistoryFile,
    key: Annotated[str, typer.Option(help="Of the item, as `check` names it: TABLE/KEY.")],
) -> int:
    """Shows all operations on one item, in the order in which they began."""
    history = _read(session, file)
    operations = [operation for operation in history.operations if operation.key == key]
    if not operations:
        known = sorted({operation.key for operation in history.operations})
        some = ", ".join(known[:_NAMED_MAX]) or "nothing"
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{file} has no operation on {key!r}; it has some on {some}"
            + (" and others" if len(known) > _NAMED_MAX else ""),
        )
    session.out.say(escape(render_operations(operations)))
    session.out.result({"key": key, "operations": [to_row(each) for each in operations]})
    return EXIT_OK


def _read(session: Session, file: Path) -> History:
    return read_history(file, warn=session.out.note)
