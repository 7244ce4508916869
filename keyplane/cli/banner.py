"""What `up` shows: what there is, where it is, and what to do next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from keyplane.cli.output import Output
from keyplane.cluster import Cluster, Kind, MemberStatus, UpResult, default_home
from keyplane.cluster.cluster import DEFAULT_NAME
from keyplane.cluster.commands import PACKAGES

_TITLES = {
    Kind.ROUTER: "routers",
    Kind.STORAGE: "storage nodes",
    Kind.MEMDS: "memcached",
    Kind.METADATA: "metadata store",
    Kind.GRANTER: "granter",
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
    word, options = command_word(), options_of(cluster)
    for line, meaning in (
        ("table create music --partitions 8", "a table"),
        ("workload run --duration 20", "load, with live figures"),
        ("kill metadata", "the control plane goes, requests do not notice"),
    ):
        shown = f"{word} {line}{options}"
        out.say(f"  [bold]{escape(shown):<52}[/bold] [dim]{meaning}[/dim]")
    out.say("")


def command_word() -> str:
    """How to call this command from here: it need not be on the PATH."""
    if shutil.which("keyplane"):
        return "keyplane"
    script = PACKAGES / "scripts" / "keyplane"
    if not script.exists():
        return "python -m keyplane"
    return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)


def options_of(cluster: Cluster) -> str:
    """What commands need to find this cluster, where they do not by themselves."""
    options = "" if cluster.name == DEFAULT_NAME else f" --cluster {cluster.name}"
    home = cluster.paths.root.parent
    return options if home == default_home().absolute() else f"{options} --data-dir {home}"


def _what_happened(cluster: Cluster, result: UpResult) -> str:
    name = f"cluster [bold]{cluster.name}[/bold]"
    if result.created:
        return f"{name} is up, {len(result.started)} processes"
    if not result.started:
        return f"{name} is running already; here it is"
    if len(result.started) == len(cluster.state().members):
        return f"{name} is up again, with the data it had"
    return f"{name} was running; started again: {', '.join(result.started)}"
