"""`python -m keyplane.demo`: the story, its timeline and its verdict."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from keyplane.cli.output import EXIT_INTERRUPTED, EXIT_NO, EXIT_OK, Output
from keyplane.cluster import Cluster
from keyplane.demo.figures import CLAIMS, Figures, held
from keyplane.demo.story import Story
from keyplane.model.errors import KeyplaneError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Make the last line on stdout one JSON object."),
    ] = False,
) -> None:
    """A cluster under load splits, moves and merges partitions, loses its control plane, its MemDS
    and a router, and fails no request and loses no write.

    Takes about a minute and leaves nothing behind. Exit code 0 only if every claim held.
    """
    out = Output(as_json)
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="keyplane-demo-") as directory:
        raise typer.Exit(_tell_story(out, Path(directory)))


def _tell_story(out: Output, directory: Path) -> int:
    started = time.monotonic()
    cluster = Cluster("demo", directory)

    def tell(line: str) -> None:
        requests, failed = (story.load.poll(), story.load.failed) if story.load else (0, 0)
        colour = "red" if failed else "green"
        out.say(
            f"[dim]{time.monotonic() - started:5.1f} s  {requests:7,} requests[/dim]  "
            f"[{colour}]{failed} failed[/{colour}]  {escape(line)}"
        )

    story = Story(cluster, directory, tell)
    try:
        figures = story.run()
    except KeyplaneError as error:
        out.error(error)
        return EXIT_NO
    except KeyboardInterrupt:
        out.progress.print("interrupted; stopping the cluster")
        return EXIT_INTERRUPTED
    finally:
        story.close()
    _show(out, figures)
    out.result(asdict(figures))
    return EXIT_OK if held(figures) else EXIT_NO


def _show(out: Output, figures: Figures) -> None:
    out.say()
    rows = []
    for claim in CLAIMS:
        verdict = "" if claim.holds is None else "yes" if claim.holds(figures) else "NO"
        rows.append((claim.text, str(claim.value(figures)), verdict))
    out.table(("what was promised", "what was seen", "held"), rows)
    out.say()
    if held(figures):
        out.say(f"[green]Nothing was lost and nothing failed, in {figures.seconds:.0f} s.[/green]")
    else:
        out.say("[red]A claim did not hold.[/red]")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(app())
