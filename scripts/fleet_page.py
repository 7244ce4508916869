"""Writes what the fleet models answer into a page between two marks. Run by scripts/gen-fleet-docs.

fleet_page.py SUMMARY PAGE: the summary.json of a run of all, and the page, such as docs/fleet.md.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fleet.scenario import NAMES, load

BEGIN = "<!-- Written by scripts/gen-fleet-docs from here on. -->"
END = "<!-- Written by scripts/gen-fleet-docs up to here. -->"

WIDTH = 120

# The plots of each that the page shows. docs/fleet has all of them.
SHOWN = {
    "why-not-scale-metadata": ("more-replicas",),
    "cold-start": ("lookups",),
    "constant-work": ("day",),
    "hedging": ("p99-slow",),
    "control-plane-outage": ("availability",),
    "hot-partition": ("throttled-reads",),
    "noisy-tenant": ("p99",),
    "pool-size": ("p99-by-size",),
    "retry-storm": ("map-plain", "map-budget"),
    "split-storm": ("redirects",),
}


def section(summary: Mapping[str, Any]) -> str:
    return "\n".join(_lines(summary))


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    for name in NAMES:
        scenario = load(name)
        yield f"**`{name}`**: {scenario.question}"
        yield ""
        yield from textwrap.wrap(summary["conclusions"][name], WIDTH, break_on_hyphens=False)
        yield ""
        for plot in SHOWN[name]:
            yield f"![{scenario.title}](fleet/{name}-{plot}.svg)"
            yield ""
    yield "Each checks itself: the first of its checks is here, and the others are in its report,"
    yield "each with the source of its reference."
    yield ""
    yield "| scenario | checked | value | reference | error | may be |"
    yield "|---|---|---|---|---|---|"
    for row in summary["scenarios"]:
        cells = (
            *(f"`{row['scenario']}`", row["check"]),
            *(f"{row[each]:.4g}" for each in ("value", "reference")),
            *(f"{100 * row['error']:.2g} %", f"{100 * row['tolerance']:.3g} %"),
        )
        yield f"| {' | '.join(cells)} |"


def main(summary: str, page: str) -> None:
    path = Path(page)
    before, mark, rest = path.read_text().partition(BEGIN)
    _, other, after = rest.partition(END)
    if not (mark and other):
        sys.exit(f"{page} has not the two marks: {BEGIN} {END}")
    made = section(json.loads(Path(summary).read_text()))
    path.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
