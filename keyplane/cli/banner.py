"""What `up` shows: what there is, where it is, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from keyplane.cli.output import Output
from keyplane.cluster import Cluster, Kind, MemberStatus, UpResult
from keyplane.cluster.cluster import DEFAULT_NAME

_TITLES = {
    Kind.ROUTER: "routers",
    Kind.STORAGE: "storage nodes",
    Kind.MEMDS: "memcached",
    Kind.METADATA: "metadata store",
}


def show_banner(
    out: Output, cluster: Cluster, result: UpResult, members: Sequence[MemberStatus]
) -> None:
    out.say(f"\n[bold]Keyplane[/bold]: {_what_happened(cluster, result)}\n")
    rows = []
    for kind, title in _TITLES.items():
        for member in (member for member in members if member.kind is kind):
            metrics = f"http://{member.metrics_address}/metrics" if member.metrics_address else ""
            rows.append((title, member.name, member.address, metrics))
            title = ""
    out.table(["", "", "address", "metrics"], rows)
    out.say(f"\n[dim]data and logs[/dim]  {cluster.paths.root}")
    for member in members:
        if member.condition == "paused":
            out.say(f"{member.name} is paused; let it go on with `keyplane resume {member.name}`")
    out.say("\nTry:")
    # Which cluster, where it is not the one that commands find by themselves.
    suffix = "" if cluster.name == DEFAULT_NAME else f" --cluster {cluster.name}"
    for line, meaning in (
        ("keyplane table create music --partitions 8", "a table"),
        ("keyplane workload run --duration 20", "load, with live figures"),
        ("keyplane kill metadata", "the control plane goes, requests do not notice"),
    ):
        out.say(f"  [bold]{line + suffix:<58}[/bold] [dim]{meaning}[/dim]")
    out.say("")


def _what_happened(cluster: Cluster, result: UpResult) -> str:
    name = f"cluster [bold]{cluster.name}[/bold]"
    if result.created:
        return f"{name} is up, {len(result.started)} processes"
    if not result.started:
        return f"{name} is running already; here it is"
    if len(result.started) == len(cluster.state().members):
        return f"{name} is up again, with the data it had"
    return f"{name} was running; started again: {', '.join(result.started)}"
