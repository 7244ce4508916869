"""`keyplane logs`: what processes wrote, made readable."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from keyplane.cli.output import EXIT_OK
from keyplane.cli.session import Session

_FOLLOW_BEAT_S = 0.2

# How far back from its end a log is looked through.
_TAIL_BYTES_MAX = 4 << 20

_LEVEL_STYLES = {"warning": "yellow", "error": "red", "critical": "red"}


def logs(
    session: Session,
    names: Annotated[
        list[str], typer.Argument(help="Members, such as `storage-1`, or kinds, such as `router`.")
    ],
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of each.")] = 40,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")
    ] = False,
) -> int:
    """Shows the end of members' logs, oldest line first. They outlive restarts of the member."""
    cluster = session.cluster()
    matched = cluster.match(names)
    files = {name: cluster.paths.log(name) for name in matched}
    shown: dict[str, list[str]] = {}
    places: dict[str, int] = {}
    for name, path in files.items():
        shown[name], places[name] = _tail(path, lines)
        for line in shown[name]:
            _show(session, name, line, several=len(files) > 1)
    while follow:
        time.sleep(_FOLLOW_BEAT_S)
        for name, path in files.items():
            fresh, places[name] = _read_from(path, places[name])
            for line in fresh:
                _show(session, name, line, several=len(files) > 1)
    session.out.result(
        {"logs": {name: {"path": str(files[name]), "lines": shown[name]} for name in matched}}
    )
    return EXIT_OK


def _tail(path: Path, count: int) -> tuple[list[str], int]:
    """The last lines of a file, and where it ends."""
    size = path.stat().st_size if path.exists() else 0
    lines, end = _read_from(path, max(0, size - _TAIL_BYTES_MAX))
    return list(deque(lines, maxlen=count)), end


def _read_from(path: Path, start: int) -> tuple[list[str], int]:
    """Whole lines from a position on, and the position after them. None of a missing file."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return [], start
    whole = content[: content.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), start + len(whole)


def _show(session: Session, name: str, line: str, several: bool) -> None:
    prefix = f"[cyan]{name:<10}[/cyan] " if several else ""
    session.out.say(prefix + _readable(line))


def _readable(line: str) -> str:
    """A JSON log line as time, level, event and facts; any other line as it is."""
    try:
        row = json.loads(line)
        when, level, event = row.pop("timestamp"), row.pop("level"), row.pop("event")
    except (ValueError, KeyError, TypeError, AttributeError):
        return escape(line)
    row.pop("service", None)
    trace = row.pop("exception", "")
    facts = " ".join(f"{key}={value}" for key, value in row.items())
    style = _LEVEL_STYLES.get(level, "green")
    text = f"[dim]{escape(str(when))}[/dim] [{style}]{level:<7}[/] {escape(str(event))}"
    text += f" [dim]{escape(facts)}[/dim]" if facts else ""
    return text + (f"\n{escape(trace)}" if trace else "")
