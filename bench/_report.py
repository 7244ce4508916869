"""Tables for people, of what the data-plane benchmark measured."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from bench._compare import Comparison
from bench._curves import Growth, Soak, Sweep
from bench._samples import Latencies


def comparison_tables(comparison: Comparison) -> list[Table]:
    """One table for each kind of load."""
    summaries = comparison.summaries()
    tables = []
    for kind in dict.fromkeys(kind for _, kind, _ in summaries):
        table = _table(
            kind, "system", "outstanding", "requests/s", "p50 ms", "p99 ms", "p99.9 ms",
            "CPU µs per request", "generator", "failed",
        )  # fmt: skip
        for (system, of_kind, outstanding), summary in summaries.items():
            if of_kind == kind:
                table.add_row(
                    system,
                    f"{outstanding}",
                    f"{summary.per_second:,.0f}",
                    *(_ms(each) for each in (summary.p50_us, summary.p99_us, summary.p999_us)),
                    ", ".join(f"{name} {us:,.1f}" for name, us in summary.cpu_us.items()),
                    f"{summary.generator_share:.0%}",
                    f"{sum(summary.failures.values()) or ''}",
                )
        tables.append(table)
    return tables


def sweep_table(sweep: Sweep) -> Table:
    table = _table(
        "Latency as the load rises", "kind", "of maximum", "offered/s", "answered/s",
        "read p50 ms", "read p99 ms", "write p50 ms", "write p99 ms", "failed",
    )  # fmt: skip
    for step in sweep.steps:
        table.add_row(
            step.kind,
            f"{step.share:.0%}",
            f"{step.offered:,.0f}",
            f"{step.answered:,.0f}",
            *_pair(step.reads),
            *_pair(step.writes),
            f"{sum(step.failures.values()) or ''}",
        )
    return table


def growth_table(found: Sequence[Growth]) -> Table:
    table = _table(
        "Router and storage node, CPU µs per request",
        *("kind", "partitions", "CPU µs", "times the first", "failed"),
    )
    for each in found:
        failed = f"{sum(each.failures.values()) or ''}"
        for count, cpu_us in each.cpu_us.items():
            last = count == max(each.cpu_us)
            ratio = f"{each.ratio:.3f}" if last else ""
            table.add_row(each.kind, f"{count:,}", f"{cpu_us:,.1f}", ratio, failed if last else "")
    return table


def soak_table(soak: Soak) -> Table:
    """Some twelve slices of all, and the last."""
    table = _table(
        f"{soak.kind} at {soak.offered:,.0f} requests/s", "at s", "answered/s", "p50 ms", "p99 ms",
        "p99.9 ms", "CPU µs", "stolen", "resident MB", "failed",
    )  # fmt: skip
    every = max(1, len(soak.slices) // 12)
    for index, each in enumerate(soak.slices):
        if index % every == 0 or index == len(soak.slices) - 1:
            table.add_row(
                f"{each.at_s:,.0f}",
                f"{each.answered:,.0f}",
                *(_ms(latency) for latency in (each.p50_us, each.p99_us, each.p999_us)),
                f"{each.cpu_us:,.1f}",
                f"{each.stolen:.0%}",
                ", ".join(f"{name} {rss / 1e6:,.0f}" for name, rss in each.rss_bytes.items()),
                f"{sum(each.failures.values()) or ''}",
            )
    growth = ", ".join(f"{name} {times:.3f}" for name, times in soak.rss_growth.items())
    table.caption = (
        f"last quarter to second: p99.9 {soak.p999_growth:.2f}, CPU of router and storage node for"
        f" a request {soak.cpu_growth:.2f}, resident {growth}"
    )
    table.caption_justify = "left"
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        text = column in ("system", "kind") or column.startswith(("CPU µs per", "resident"))
        table.add_column(column, justify="left" if text else "right")
    return table


def _pair(latencies: Latencies) -> tuple[str, str]:
    if not latencies.count:
        return "", ""
    return _ms(latencies.p50_us), _ms(latencies.p99_us)


def _ms(latency_us: float) -> str:
    return f"{latency_us / 1000:,.2f}"
