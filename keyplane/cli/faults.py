"""`keyplane fault …`: breaks parts of a cluster on purpose, and makes them well again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.markup import escape

from keyplane.cli.banner import command_word, options_of
from keyplane.cli.output import EXIT_OK
from keyplane.cli.session import Session, command
from keyplane.cluster import ActiveFault, Faults
from keyplane.cluster.faults import ONCE, SUPERVISED
from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction, Fault, FaultKind

_ALL = "all"

Name = Annotated[
    str,
    typer.Argument(
        help="A member, such as `storage-1`, or a kind: `storage` is every storage node.",
        show_default=False,
    ),
]
Peer = Annotated[
    str,
    typer.Argument(help="The other end, as NAME.", show_default="everybody"),
]
Memds = Annotated[
    str,
    typer.Argument(help="A memcached node, such as `memds-1`, or `all`.", show_default=False),
]
For = Annotated[
    float,
    typer.Option(
        "--for",
        min=0.0,
        help="Seconds after which it heals by itself.",
        show_default="until it is healed",
    ),
]
OneWay = Annotated[
    bool,
    typer.Option("--one-way", help="Only what the first sends to the second is touched."),
]
DelayMs = Annotated[float, typer.Option("--delay", min=0.0, help="Milliseconds.")]
Probability = Annotated[
    float, typer.Option("--probability", "-p", help="Above 0, at most 1. 0.1 is one in ten.")
]


def register(app: typer.Typer) -> None:
    fault = typer.Typer(
        no_args_is_help=True,
        help="Break parts of a cluster on purpose, look at what is broken, and heal it. All but "
        "kill, pause and restart need a cluster that was started with `--enable-faults`.",
    )
    command(fault, "kill", _KILL)(_on_a_member(FaultKind.KILL, _KILL_HELP))
    command(fault, "pause", _PAUSE)(_on_a_member(FaultKind.PAUSE, _PAUSE_HELP))
    command(fault, "restart", _RESTART)(restart)
    command(fault, "partition", _PARTITION)(partition)
    command(fault, "latency", _LATENCY)(latency)
    command(fault, "drop", _DROP)(_by_chance(FaultKind.DROP, _DROP_HELP))
    command(fault, "duplicate", _DUPLICATE)(_by_chance(FaultKind.DUPLICATE, _DUPLICATE_HELP))
    command(fault, "slow-disk", _SLOW_DISK)(slow_disk)
    command(fault, "full-disk", _FULL_DISK)(_on_a_member(FaultKind.FULL_DISK, _FULL_DISK_HELP))
    fault.add_typer(_memds(), name="memds")
    fault.add_typer(_metadata(), name="metadata")
    command(fault, "list", "keyplane fault list")(list_)
    command(fault, "heal", _HEAL)(heal)
    app.add_typer(fault, name="fault")


def _memds() -> typer.Typer:
    memds = typer.Typer(no_args_is_help=True, help="Break memcached nodes.")
    command(memds, "flush", _FLUSH)(flush)
    command(memds, "down", _DOWN)(_on_memds(FaultKind.MEMDS_DOWN, _DOWN_HELP))
    command(memds, "stale", _STALE)(_on_memds(FaultKind.MEMDS_STALE, _STALE_HELP))
    command(memds, "corrupt", _CORRUPT)(corrupt)
    command(memds, "slow", _SLOW)(slow)
    return memds


def _metadata() -> typer.Typer:
    metadata = typer.Typer(no_args_is_help=True, help="Break the Metadata Store.")
    command(metadata, "down", _METADATA_DOWN)(metadata_down)
    command(metadata, "lag", _METADATA_LAG)(metadata_lag)
    return metadata


# --- Processes

_KILL_HELP = """Ends a process at once, as a crash would: kill -9. Healing starts it again.

With `--for` the command waits, and starts it again even if you end it with Ctrl-C."""
_KILL = """
    keyplane fault kill storage-2 --for 5       five seconds without it
    keyplane fault kill metadata                until `keyplane fault heal`
"""
_PAUSE_HELP = """Freezes a process: its connections stay open and nothing is answered.

It goes on later without having noticed. With `--for` the command waits, and lets it go on even if
you end the command with Ctrl-C."""
_PAUSE = """
    keyplane fault pause router-1 --for 2.5
    keyplane fault pause memds                  every memcached node hangs
"""
_RESTART = """
    keyplane fault restart storage-1            kill -9, and a start on what is on its disk
"""


def _on_a_member(kind: FaultKind, text: str) -> Callable[..., int]:
    def begin(session: Session, name: Name, for_s: For = 0.0) -> int:
        return _do(session, Fault("", kind, name), for_s)

    begin.__doc__ = text
    return begin


def restart(session: Session, name: Name) -> int:
    """Kills a process and starts it again, with no time to finish anything."""
    return _do(session, Fault("", FaultKind.RESTART, name))


# --- The network

_PARTITION = """
    keyplane fault partition router-1 storage-2             their messages are lost
    keyplane fault partition router-1 storage-2 --one-way   storage-2's answers arrive
    keyplane fault partition storage-1 storage --for 10     from all other storage nodes
"""


def partition(
    session: Session, name: Name, peer: Peer = "", one_way: OneWay = False, for_s: For = 0.0
) -> int:
    """Cuts two processes off from each other: what they send is lost, and nobody says so.

    Without a second name it is cut off from everybody, clients too.
    """
    direction = Direction.TO_PEER if one_way else Direction.BOTH
    return _do(session, Fault("", FaultKind.PARTITION, name, peer, direction), for_s)


_LATENCY = """
    keyplane fault latency storage-1 --delay 100                both its calls and its answers
    keyplane fault latency router storage-1 --delay 20 --jitter 30
"""


def latency(
    session: Session,
    name: Name,
    peer: Peer = "",
    delay: DelayMs = 50.0,
    jitter: Annotated[
        float, typer.Option("--jitter", min=0.0, help="Up to so many milliseconds more.")
    ] = 0.0,
    one_way: OneWay = False,
    for_s: For = 0.0,
) -> int:
    """Makes messages late. A call is two messages, so it takes twice the delay longer."""
    direction = Direction.TO_PEER if one_way else Direction.BOTH
    parameters = {"delay_s": delay / 1000}
    if jitter:
        parameters["jitter_s"] = jitter / 1000
    fault = Fault("", FaultKind.LATENCY, name, peer, direction, parameters=parameters)
    return _do(session, fault, for_s)


_DROP_HELP = "Loses some of the messages. A call whose request or answer is lost times out."
_DROP = """
    keyplane fault drop router storage --probability 0.1
    keyplane fault drop router-1 -p 0.05                    clients of router-1 see it too
"""
_DUPLICATE_HELP = "Makes some requests arrive twice, as a network that retries by itself does."
_DUPLICATE = """
    keyplane fault duplicate router storage -p 0.5
"""


def _by_chance(kind: FaultKind, text: str) -> Callable[..., int]:
    def begin(
        session: Session,
        name: Name,
        peer: Peer = "",
        probability: Probability = 0.1,
        one_way: OneWay = False,
        for_s: For = 0.0,
    ) -> int:
        direction = Direction.TO_PEER if one_way else Direction.BOTH
        return _do(session, Fault("", kind, name, peer, direction, probability), for_s)

    begin.__doc__ = text
    return begin


# --- Disks

_SLOW_DISK = """
    keyplane fault slow-disk storage-1 --delay 200
"""


def slow_disk(session: Session, name: Name, delay: DelayMs = 200.0, for_s: For = 0.0) -> int:
    """Makes every commit of a storage node take longer. Reads do not wait for the disk."""
    parameters = {"delay_s": delay / 1000}
    return _do(session, Fault("", FaultKind.SLOW_DISK, name, parameters=parameters), for_s)


_FULL_DISK_HELP = """Makes a storage node's disk refuse writes, as one without space does.

The operating system really refuses: no file of the process can grow. It goes on reading, refuses
writes with NOT_SERVING, and takes them again within seconds of healing."""
_FULL_DISK = """
    keyplane fault full-disk storage-1 --for 10
"""

# --- MemDS

_FLUSH = """
    keyplane fault memds flush all
"""
_DOWN_HELP = "Kills memcached. Healing starts it again, empty."
_DOWN = """
    keyplane fault memds down all --for 5
"""
_STALE_HELP = (
    """Shows every process what it last saw of a memcached node, whatever is stored there."""
)
_STALE = """
    keyplane fault memds stale memds-1
"""
_CORRUPT = """
    keyplane fault memds corrupt memds-1                        one bit of every value
    keyplane fault memds corrupt all --probability 0.2
"""
_SLOW = """
    keyplane fault memds slow memds-1 --delay 500
"""


def flush(session: Session, name: Memds) -> int:
    """Empties memcached nodes. There is nothing to heal: publishers fill them again."""
    return _do(session, _memds_fault(FaultKind.MEMDS_FLUSH, name))


def _on_memds(kind: FaultKind, text: str) -> Callable[..., int]:
    def begin(session: Session, name: Memds, for_s: For = 0.0) -> int:
        return _do(session, _memds_fault(kind, name), for_s)

    begin.__doc__ = text
    return begin


def corrupt(session: Session, name: Memds, probability: Probability = 1.0, for_s: For = 0.0) -> int:
    """Damages values of a memcached node on their way to every process."""
    fault = replace(_memds_fault(FaultKind.MEMDS_CORRUPT, name), probability=probability)
    return _do(session, fault, for_s)


def slow(session: Session, name: Memds, delay: DelayMs = 100.0, for_s: For = 0.0) -> int:
    """Makes the answers of a memcached node late. Past 200 ms routers take it for a timeout."""
    parameters = {"delay_s": delay / 1000}
    fault = replace(_memds_fault(FaultKind.MEMDS_SLOW, name), parameters=parameters)
    return _do(session, fault, for_s)


def _memds_fault(kind: FaultKind, name: str) -> Fault:
    return Fault("", kind, "memds" if name == _ALL else name)


# --- The Metadata Store

_METADATA_DOWN = """
    keyplane fault metadata down --for 30       requests do not notice
"""
_METADATA_LAG = """
    keyplane fault metadata lag --delay 2000    maps reach routers late
"""


def metadata_down(session: Session, for_s: For = 0.0) -> int:
    """Kills the Metadata Store. Healing starts it again, with its database."""
    return _do(session, Fault("", FaultKind.METADATA_DOWN, "metadata"), for_s)


def metadata_lag(session: Session, delay: DelayMs = 1000.0, for_s: For = 0.0) -> int:
    """Makes its database, and what it publishes to MemDS, late."""
    parameters = {"delay_s": delay / 1000}
    fault = Fault("", FaultKind.METADATA_LAG, "metadata", parameters=parameters)
    return _do(session, fault, for_s)


# --- Looking and healing

_HEAL = """
    keyplane fault heal kill-1 drop-3
    keyplane fault heal --all
"""


def list_(session: Session) -> int:
    """Shows what is broken on purpose, where, and for how long."""
    active = Faults(session.cluster()).list()
    if active:
        rows = (
            (each.fault.id, str(each.fault), ", ".join(each.members), _left(each))
            for each in active
        )
        session.out.table(["id", "fault", "done at", "ends"], rows)
        session.out.say("\nend them with `keyplane fault heal ID`, or `keyplane fault heal --all`")
    else:
        session.out.say("nothing is broken on purpose")
    session.out.result({"faults": [_facts(each) for each in active]})
    return EXIT_OK


def heal(
    session: Session,
    ids: Annotated[
        list[str] | None, typer.Argument(help="As `keyplane fault list` shows them.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every fault that is on.")] = False,
) -> int:
    """Ends faults: starts what was killed, lets go on what was paused, connects what was cut."""
    faults = Faults(session.cluster())
    if all_ == bool(ids):
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, "name the ids of faults, or say --all; `keyplane fault list`"
        )
    healed: Sequence[str]
    if all_:
        healed = faults.heal_all()
    else:
        healed = list(ids or ())
        for fault_id in healed:
            faults.heal(fault_id)
    session.out.say(f"healed: {', '.join(healed)}" if healed else "nothing was broken on purpose")
    session.out.result({"healed": healed})
    return EXIT_OK


def _do(session: Session, fault: Fault, for_s: float = 0.0) -> int:
    """Begins a fault and says how it ends. What only this command can end is waited for."""
    faults = Faults(session.cluster())
    # Named before it begins, so that it can be healed however far it got.
    fault = replace(fault, id=faults.next_id(fault.kind))
    only_here = for_s > 0 and fault.kind in SUPERVISED - ONCE
    try:
        remedy = _begin(session, faults, fault, for_s)
        if only_here:
            with session.out.waiting(f"healing it in {for_s:g} s"):
                time.sleep(for_s)
    finally:
        if only_here:
            _heal_unless_healed(faults, fault.id)
    if only_here:
        session.out.say(f"{fault.id} is healed")
    active = ActiveFault(fault, (), for_s or None)
    session.out.result({"fault": _facts(active), "heal": remedy})
    return EXIT_OK


def _begin(session: Session, faults: Faults, fault: Fault, for_s: float) -> str:
    """Returns the command that heals it; empty if nothing is left to heal."""
    faults.inject(fault, for_s or None)
    remedy = f"{command_word()} fault heal {fault.id}{options_of(session.cluster())}"
    if fault.kind in ONCE:
        remedy = ""
        ending = "done, and nothing is left to heal"
    elif for_s:
        ending = f"heals by itself in {for_s:g} s, or by: {remedy}"
    else:
        ending = f"heal it with: {remedy}"
    session.out.say(f"[bold]{fault.id}[/bold]: {escape(str(fault))}; {escape(ending)}")
    return remedy


def _heal_unless_healed(faults: Faults, fault_id: str) -> None:
    try:
        faults.heal(fault_id)
    except KeyplaneError as error:
        if error.reason is not Reason.FAULT_NOT_FOUND:
            raise


def _facts(active: ActiveFault) -> dict[str, Any]:
    fault = active.fault
    return {
        "id": fault.id,
        "kind": fault.kind.value,
        "target": fault.target,
        "peer": fault.peer,
        "direction": fault.direction.value,
        "probability": fault.probability,
        "parameters": dict(fault.parameters),
        "members": list(active.members),
        "remaining_s": None if active.remaining_s is None else round(active.remaining_s, 3),
    }


def _left(active: ActiveFault) -> str:
    if active.remaining_s is None:
        return "when it is healed"
    if active.remaining_s < 0:
        return "overdue: its command is gone"
    return f"in {active.remaining_s:.1f} s"
