"""Drawings of what benchmarks measured, as SVG without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pygal
from pygal.style import CleanStyle

from bench._compare import HEADLINE_OUTSTANDING, Comparison
from bench._curves import Soak, Sweep
from bench._systems import ECHO

# Files are named for their benchmark: others draw into the same directory.
_DATA_PLANE = "data-plane"
_ADMISSION = "admission"

# Told apart by the colour-blind, too: M. Okabe and K. Ito, "Color Universal Design", 2008.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def plot_comparison(comparison: Comparison, directory: Path) -> list[Path]:
    """Latency against throughput for each kind of load, and processor time by process."""
    summaries = comparison.summaries()
    kinds = list(dict.fromkeys(kind for system, kind, _ in summaries if system != ECHO))
    systems = list(dict.fromkeys(system for system, _, _ in summaries))
    paths = []
    for kind in kinds:
        chart = _lines(f"{kind}: p99 against throughput", "requests/s", "p99 in ms", True)
        for system in systems:
            points = (
                sorted(
                    (outstanding, summary)
                    for (of, of_kind, outstanding), summary in summaries.items()
                    if of == system and of_kind == kind
                )
                if system != ECHO
                else []
            )
            if points:
                chart.add(
                    system,
                    [
                        {
                            "value": (summary.per_second, summary.p99_us / 1000),
                            "label": f"{outstanding} outstanding",
                        }
                        for outstanding, summary in points
                    ],
                )
        paths.append(_save(chart, directory, f"latency-{kind.replace('/', '-')}"))
    levels = {outstanding for _, _, outstanding in summaries}
    level = HEADLINE_OUTSTANDING if HEADLINE_OUTSTANDING in levels else max(levels)
    bars = [key for key in summaries if key[2] == level]
    stages = list(dict.fromkeys(name for key in bars for name in summaries[key].cpu_us))
    chart = pygal.HorizontalStackedBar(
        **_common(f"Processor time of one request, {level} outstanding"), x_title="microseconds"
    )
    chart.x_labels = [f"{system}, {kind}" for system, kind, _ in bars]
    for stage in stages:
        chart.add(stage, [summaries[key].cpu_us.get(stage) for key in bars])
    return [*paths, _save(chart, directory, "cpu")]


def plot_sweep(sweep: Sweep, directory: Path) -> list[Path]:
    """p50 and p99 of reads and writes at each step, one drawing for each kind of load."""
    paths = []
    for kind in dict.fromkeys(step.kind for step in sweep.steps):
        steps = [step for step in sweep.steps if step.kind == kind]
        chart = _lines(f"{kind}: latency as the load rises", "requests/s", "ms")
        for name in ("reads", "writes"):
            found = [(step.answered, getattr(step, name)) for step in steps]
            found = [(rate, latencies) for rate, latencies in found if latencies.count]
            if found:
                chart.add(f"{name} p50", [(rate, each.p50_us / 1000) for rate, each in found])
                chart.add(f"{name} p99", [(rate, each.p99_us / 1000) for rate, each in found])
        paths.append(_save(chart, directory, f"sweep-{kind.replace('/', '-')}"))
    return paths


def plot_soak(soak: Soak, directory: Path) -> list[Path]:
    """Latency and resident memory over time."""
    latency = _lines(f"{soak.kind} at {soak.offered:,.0f} requests/s", "seconds", "ms")
    latency.add("p50", [(each.at_s, each.p50_us / 1000) for each in soak.slices])
    latency.add("p99", [(each.at_s, each.p99_us / 1000) for each in soak.slices])
    latency.add("p99.9", [(each.at_s, each.p999_us / 1000) for each in soak.slices])
    memory = _lines("Resident memory over the same time", "seconds", "MB")
    for name in soak.slices[0].rss_bytes:
        memory.add(name, [(each.at_s, each.rss_bytes[name] / 1e6) for each in soak.slices])
    return [
        _save(latency, directory, "soak-latency"),
        _save(memory, directory, "soak-memory"),
    ]


def plot_slices(
    name: str, how: str, slices: Sequence[tuple[float, float, float]], directory: Path
) -> Path:
    """What was answered and throttled over time: seconds, and requests a second of each.

    how: the load was offered.
    """
    chart = _lines(f"{name}: offered {how}", "seconds", "requests/s")
    chart.add("answered", [(at_s, answered) for at_s, answered, _ in slices])
    chart.add("throttled", [(at_s, throttled) for at_s, _, throttled in slices])
    return _save(chart, directory, name, _ADMISSION)


def plot_stages(
    spent: Mapping[tuple[str, str], Mapping[str, float]], directory: Path
) -> list[Path]:
    """Processor time by stage. spent: microseconds by stage, for each kind of load and process."""
    paths = []
    for process in dict.fromkeys(process for _, process in spent):
        chart = pygal.HorizontalStackedBar(
            **_common(f"Processor time of one request in the {process}"), x_title="microseconds"
        )
        mine = {kind: stages for (kind, of), stages in spent.items() if of == process}
        chart.x_labels = list(mine)
        for stage in dict.fromkeys(stage for stages in mine.values() for stage in stages):
            chart.add(stage, [stages.get(stage, 0.0) for stages in mine.values()])
        paths.append(_save(chart, directory, f"stages-{process}"))
    return paths


def _lines(title: str, x_title: str, y_title: str, logarithmic: bool = False) -> Any:
    """Lines from 0 up, so that what is flat looks flat, unless logarithmic upwards."""
    return pygal.XY(
        **_common(title),
        x_title=x_title,
        y_title=y_title,
        include_x_axis=not logarithmic,
        logarithmic=logarithmic,
    )


def _common(title: str) -> dict[str, Any]:
    return {
        "title": title,
        "js": [],
        "style": CleanStyle(
            font_family="sans-serif",
            background="white",
            plot_background="white",
            colors=_COLORS,
        ),
        "width": 900,
        "height": 480,
        "legend_at_bottom": True,
        "value_formatter": lambda value: f"{value:,.2f}" if value < 100 else f"{value:,.0f}",
        "x_value_formatter": lambda value: f"{value:,.0f}",
    }


def _save(chart: Any, directory: Path, name: str, benchmark: str = _DATA_PLANE) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{benchmark}-{name}.svg"
    chart.add_xml_filter(_without_scripts)
    chart.render_to_file(str(path))
    return path


def _without_scripts(root: Any) -> Any:
    for parent in list(root.iter()):
        for child in list(parent):
            if isinstance(child.tag, str) and child.tag.rpartition("}")[2] == "script":
                parent.remove(child)
    return root
