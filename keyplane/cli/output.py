"""Where a command's words go.

Without --json everything is for people and goes to stdout. With it, what is for people goes to
stderr, and the last line on stdout is one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from keyplane.model.errors import KeyplaneError

# Exit codes, also in `keyplane --help`.
EXIT_OK = 0
# It was done, and the answer is no: an operation failed, a write is lost, a member is dead.
EXIT_NO = 1
EXIT_USAGE = 2
# Not done, for certain: refused, or nobody there to ask.
EXIT_REFUSED = 3
# No answer, or one that leaves open whether it was done.
EXIT_UNKNOWN = 4
EXIT_INTERRUPTED = 130

# Wide enough for a row of any table when the output is a pipe, whose width is unknown.
_WIDTH_OF_PIPES = 160


class Output:
    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.people = _console(stderr=as_json)
        # Progress, which is no result, and errors.
        self.progress = _console(stderr=True)

    def say(self, text: str = "") -> None:
        """One paragraph for people; rich markup, so data in it must be escaped."""
        self.people.print(text)

    def note(self, line: str) -> None:
        """A line about what is going on, not part of the result."""
        self.progress.print(f"[dim]{escape(line)}[/dim]")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Numbers are set to the right."""
        cells = [list(row) for row in rows]
        table = Table(box=None, pad_edge=False, header_style="dim")
        for index, column in enumerate(columns):
            numeric = bool(cells) and all(isinstance(row[index], int | float) for row in cells)
            table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
        for row in cells:
            table.add_row(*(_cell(value) for value in row))
        self.people.print(table)

    def waiting(self, what: str) -> Status:
        """A spinner on a terminal, a line elsewhere."""
        if not self.progress.is_terminal:
            self.note(what)
        return self.progress.status(escape(what))

    def result(self, facts: Mapping[str, Any]) -> None:
        """The one JSON object. Call it last."""
        if self.as_json:
            print(json.dumps(facts, default=str), flush=True)  # noqa: T201

    def error(self, error: KeyplaneError) -> None:
        self.progress.print(f"[red]{error.reason.name}[/red] {escape(error.message)}")
        if error.metadata:
            facts = ", ".join(f"{name}={value}" for name, value in error.metadata.items())
            self.progress.print(f"[dim]{escape(facts)}[/dim]")
        self.result({"error": {"reason": error.reason.name, "message": error.message}})


def exit_code(error: KeyplaneError) -> int:
    return EXIT_REFUSED if error.definite else EXIT_UNKNOWN


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH_OF_PIPES
    return console


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
