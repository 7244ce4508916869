"""How far a run is: a bar on a terminal, a line for each thing that ends elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keyplane.cli.output import Output

# Seconds between two lines about one thing, where nobody watches a terminal.
_BEAT_S = 5.0


class Bar:
    """Of `total` things, done before it was made: `done`."""

    def __init__(self, out: Output, total: int, done: int = 0) -> None:
        self._out = out
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=out.progress,
            transient=True,
            disable=not out.progress.is_terminal,
        )
        self._done = done
        self._task = self._progress.add_task("", total=total, completed=done)
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def of(self, name: str) -> Callable[[float, str], None]:
        """To be called with how much of one thing is done, 0 to 1, and what is being done."""

        def on_progress(fraction: float, what: str) -> None:
            within = min(max(fraction, 0.0), 1.0)
            self._progress.update(self._task, completed=self._done + within)
            self.tell(f"{name}: {what}", f", {within:.0%}")

        return on_progress

    def tell(self, text: str, more: str = "") -> None:
        """Beside the bar, or now and then as a line, which also has what the bar shows: `more`."""
        self._progress.update(self._task, description=escape(text))
        now = time.monotonic()
        if not self._out.progress.is_terminal and now - self._said_at >= _BEAT_S:
            self._said_at = now
            self._out.note(text + more)

    def finish(self, line: str = "") -> None:
        """One thing more is done."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)
        if line:
            self._out.note(line)
