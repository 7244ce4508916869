"""Commands that start, show, disturb and stop the processes of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from keyplane.cli import logs
from keyplane.cli.banner import show_banner
from keyplane.cli.output import EXIT_NO, EXIT_OK
from keyplane.cli.session import Session, command
from keyplane.cluster import Cluster, ClusterConfig, MemberStatus
from keyplane.cluster.config import MEMBERS_MAX
from wire import flags
from wire.auth import Auth
from wire.transports import TransportKind

_STYLES = {"serving": "green", "starting": "yellow", "paused": "yellow", "dead": "red"}

Names = Annotated[
    list[str],
    typer.Argument(help="Members, such as `storage-1`, or kinds: `router` is every router."),
]


def register(app: typer.Typer) -> None:
    command(app, "up", _UP_EXAMPLES)(up)
    command(app, "down", _DOWN_EXAMPLES)(down)
    command(app, "status", _STATUS_EXAMPLES)(status)
    for name, function, examples in _DISTURBANCES:
        command(app, name, examples)(function)
    command(app, "add-router", _ADD_ROUTER_EXAMPLES)(add_router)
    command(app, "logs", _LOGS_EXAMPLES)(logs.logs)


_UP_EXAMPLES = """
    keyplane up
    keyplane up --routers 4 --storage 5
    keyplane up --ephemeral                 its data goes with `keyplane down`
    keyplane up --cluster second            beside the first
    keyplane up --enable-faults             for `keyplane fault`
    keyplane up --auth required             calls are signed; see `keyplane user create`
    keyplane up --transport grpcio          in the place of Keyplane's own HTTP/2
    keyplane up --database-url postgresql://user@host/keyplane
"""


def up(
    session: Session,
    metadata: Annotated[int, typer.Option(min=1, max=1, help="Metadata Stores.")] = 1,
    memds: Annotated[int, typer.Option(min=1, max=MEMBERS_MAX, help="memcached nodes.")] = 2,
    routers: Annotated[int, typer.Option(min=1, max=MEMBERS_MAX, help="Request Routers.")] = 2,
    storage: Annotated[int, typer.Option(min=1, max=MEMBERS_MAX, help="Storage nodes.")] = 3,
    database_url: Annotated[
        str,
        typer.Option(
            help="Database of the Metadata Store.", show_default="SQLite in the data directory"
        ),
    ] = "",
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Delete all data with `down`.")
    ] = False,
    enable_faults: Annotated[
        bool,
        typer.Option("--enable-faults", help="Let `keyplane fault` break its network and disks."),
    ] = False,
    transport: flags.Transport = TransportKind.HTTP2,
    auth: Annotated[
        Auth | None,
        typer.Option(
            envvar="KEYPLANE_AUTH",
            help="required: routers and the Metadata Store take calls signed by a user's key only,"
            " and these commands use the operator's; off: they take all.",
            show_default="off, or as it was",
        ),
    ] = None,
) -> int:
    """Starts a cluster on free ports, and returns when everything serves.

    A cluster that runs is shown as it is, whatever the counts say. Members of it that have died are
    started again, with their data and at their addresses.
    """
    del metadata  # There is one; the option says so.
    cluster = session.cluster()
    config = ClusterConfig(
        *(memds, routers, storage, database_url, ephemeral, enable_faults, transport, auth)
    )
    result = cluster.up(config)
    members = cluster.status()
    show_banner(session.out, cluster, result, members)
    session.out.result(
        {
            "cluster": cluster.name,
            "directory": str(cluster.paths.root),
            "created": result.created,
            "started": result.started,
            "members": [_facts(member) for member in members],
        }
    )
    return EXIT_OK


_DOWN_EXAMPLES = """
    keyplane down           stop every process, keep the data
    keyplane down --wipe    and delete the data
"""


def down(
    session: Session,
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete the cluster's files too.")] = False,
) -> int:
    """Stops every process of a cluster, even if its start was cut short or its files are gone.

    Each gets SIGTERM and a few seconds to finish what it is doing, then SIGKILL. The next `up`
    finds the data as it was.
    """
    cluster = session.cluster()
    with session.out.waiting("stopping"):
        result = cluster.down(wipe)
    if result.stopped:
        killed = f", {result.killed} of them by force" if result.killed else ""
        session.out.say(f"stopped {result.stopped} processes{killed}")
    else:
        session.out.say("nothing was running")
    session.out.result(asdict(result))
    return EXIT_OK


_STATUS_EXAMPLES = """
    keyplane status
    keyplane status --json | jq -r '.members[] | select(.kind == "router") | .address'
"""


def status(session: Session) -> int:
    """Shows every process of a cluster. Exit code 0 only if all of them serve."""
    members = session.cluster().status()
    rows = (
        (
            member.name,
            f"[{_STYLES[member.condition]}]{member.condition}[/]",
            member.address,
            f"http://{member.metrics_address}/metrics" if member.metrics_address else "",
            str(member.pid or ""),
            _duration(member.uptime_s),
        )
        for member in members
    )
    session.out.table(["member", "condition", "address", "metrics", "process", "up"], rows)
    session.out.result({"members": [_facts(member) for member in members]})
    return EXIT_OK if all(member.condition == "serving" for member in members) else EXIT_NO


def _each(verb: str, done: str, act: Callable[[Cluster, str], Any]) -> Callable[..., int]:
    def disturb(session: Session, names: Names) -> int:
        cluster = session.cluster()
        matched = cluster.match(names)
        for name in matched:
            act(cluster, name)
            session.out.say(f"{name} {done}")
        session.out.result({verb: matched})
        return EXIT_OK

    return disturb


def _documented(function: Callable[..., int], text: str) -> Callable[..., int]:
    function.__doc__ = text
    return function


_DISTURBANCES = (
    (
        "kill",
        _documented(
            _each("killed", "is dead", Cluster.kill),
            "Ends members at once, as a crash would: kill -9. `restart` brings them back.",
        ),
        """
        keyplane kill metadata               the control plane; traffic goes on
        keyplane kill router-1 storage-2
        """,
    ),
    (
        "pause",
        _documented(
            _each("paused", "is paused", Cluster.pause),
            "Freezes members: connections stay open and nothing is answered. `resume` ends it.",
        ),
        """
        keyplane pause memds                 every memcached node hangs
        """,
    ),
    (
        "resume",
        _documented(
            _each("resumed", "goes on", Cluster.resume),
            "Lets members that were paused go on.",
        ),
        """
        keyplane resume memds
        """,
    ),
    (
        "restart",
        _documented(
            _each("restarted", "serves again", Cluster.restart),
            "Stops members with grace, if they run, and starts them at their addresses with their "
            "data. A memcached node comes back empty.",
        ),
        """
        keyplane restart metadata
        keyplane restart memds               an empty cache; routers do not notice
        """,
    ),
)

_ADD_ROUTER_EXAMPLES = """
    keyplane add-router
    keyplane kill metadata && keyplane add-router     it needs no control plane
"""


def add_router(session: Session) -> int:
    """Starts one more router. It needs neither the Metadata Store nor a filled MemDS."""
    cluster = session.cluster()
    with session.out.waiting("starting a router"):
        member = cluster.add_router()
    session.out.say(f"{member.name} serves at {member.address}")
    session.out.result({"name": member.name, "address": member.address})
    return EXIT_OK


_LOGS_EXAMPLES = """
    keyplane logs router-1
    keyplane logs storage --lines 100        the last of every storage node
    keyplane logs metadata --follow          until Ctrl-C
"""


def _facts(member: MemberStatus) -> dict[str, Any]:
    facts = asdict(member)
    return facts | {"log": str(member.log), "uptime_s": round(member.uptime_s, 1)}


def _duration(seconds: float) -> str:
    if not seconds:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
