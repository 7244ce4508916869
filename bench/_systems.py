"""What the data-plane benchmark compares: how each is started, and how it is put under load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from bench._cluster import SMALLEST, cluster_of, create_table
from bench._dynalite import DESCRIPTION, Unavailable, dynalite, install
from bench._echo import echo_server
from bench._load import Generator, Target
from keyplane.cluster import Cluster, ClusterConfig, Kind
from wire.auth import Auth
from wire.transports import TransportKind

TABLE = "data-plane-bench"

KEYPLANE = "keyplane"
KEYPLANE_GRPCIO = "keyplane-grpcio"
KEYPLANE_SIGNED = "keyplane-signed"
KEYPLANE_SEALED = "keyplane-sealed"
DYNALITE = "dynalite"
ECHO = "echo"

DESCRIPTIONS: Mapping[str, str] = {
    KEYPLANE: "router and storage node (RocksDB, durability `process`), transport http2",
    KEYPLANE_GRPCIO: "the same on transport grpcio",
    KEYPLANE_SIGNED: "the same on transport http2 with --auth required: each call is signed",
    KEYPLANE_SEALED: "the same with --auth required on a connection that is sealed",
    DYNALITE: DESCRIPTION,
    ECHO: "one hop on transport http2, sending back what it gets",
}

# What is compared where nothing is said.
COMPARED = tuple(name for name in DESCRIPTIONS if name not in (KEYPLANE_SIGNED, KEYPLANE_SEALED))

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Load:
    """How much there is to read and write, and how the generator calls.

    items: in each table. partitions: of Keyplane's tables.
    transport: the gRPC engine of the load generator, the same for all systems, so that what is
        compared is servers.
    """

    items: int
    partitions: int
    transport: TransportKind = TransportKind.HTTP2


@dataclass(frozen=True, slots=True)
class System:
    """One that runs, with its table filled. processes: their ids by name, generator included."""

    name: str
    generator: Generator
    processes: Mapping[str, Sequence[int]]

    @property
    def pids(self) -> list[int]:
        return [pid for pids in self.processes.values() for pid in pids]


@contextmanager
def systems(
    names: Sequence[str], load: Load, say: Say
) -> Iterator[tuple[list[System], dict[str, str]]]:
    """Starts those of `names` that can be had here, and fills their tables. The second part says
    why the others cannot.

    Raises KeyplaneError, GeneratorFailed or RuntimeError for one that does not work.
    """
    with ExitStack() as stack:
        running: list[System] = []
        skipped: dict[str, str] = {}
        for name in names:
            say(f"{name}: {DESCRIPTIONS[name]}")
            try:
                target = stack.enter_context(_started(name, load, say))
            except Unavailable as reason:
                say(f"{name}: skipped: {reason}")
                skipped[name] = str(reason)
                continue
            running.append(stack.enter_context(_under_load(name, target, say)))
        yield running, skipped


@contextmanager
def keyplane_tables(
    partitions: Sequence[int], load: Load, say: Say, precise: bool = False
) -> Iterator[list[System]]:
    """One cluster on the default transport with a table for each number of partitions, filled.

    precise: for paced load.
    """
    with ExitStack() as stack:
        cluster = stack.enter_context(cluster_of(_on(TransportKind.HTTP2)))
        found = []
        for count in partitions:
            say(f"{KEYPLANE}: a table of {count:,} partitions")
            table = f"{TABLE}-{count}"
            create_table(cluster, table, count)
            target = _keyplane_target(cluster, table, load, precise)
            found.append(stack.enter_context(_under_load(f"{count} partitions", target, say)))
        yield found


@contextmanager
def _started(name: str, load: Load, say: Say) -> Iterator[Target]:
    """The system without load."""
    if name == DYNALITE:
        say(f"{name}: fetching it from npm, unless it is there")
        install()
        with dynalite(TABLE) as (address, pid):
            yield Target("dynamodb", address, TABLE, load.items, processes={DYNALITE: [pid]})
    elif name == ECHO:
        with echo_server(TransportKind.HTTP2) as (address, pid):
            yield Target("echo", address, "", load.items, load.transport, {ECHO: [pid]})
    else:
        engine = TransportKind.GRPCIO if name == KEYPLANE_GRPCIO else TransportKind.HTTP2
        config = _on(engine)
        if name in (KEYPLANE_SIGNED, KEYPLANE_SEALED):
            config = replace(config, auth=Auth.REQUIRED)
        with cluster_of(config) as cluster:
            create_table(cluster, TABLE, load.partitions)
            target = _keyplane_target(cluster, TABLE, load)
            yield replace(target, seals=name == KEYPLANE_SEALED)


def _on(transport: TransportKind) -> ClusterConfig:
    return replace(SMALLEST, transport=transport)


def _keyplane_target(cluster: Cluster, table: str, load: Load, precise: bool = False) -> Target:
    state = cluster.state()
    pids = {kind: [member.pid for member in state.of_kind(kind)] for kind in Kind}
    processes = {
        "router": pids[Kind.ROUTER],
        "storage": pids[Kind.STORAGE],
        # What goes on whether there are requests or not.
        "background": [*pids[Kind.METADATA], *pids[Kind.GRANTER], *pids[Kind.MEMDS]],
    }
    router = state.addresses(Kind.ROUTER)[0]
    return Target(
        *(KEYPLANE, router, table, load.items, load.transport, processes, precise),
        cluster.credentials(),
    )


@contextmanager
def _under_load(name: str, target: Target, say: Say) -> Iterator[System]:
    with Generator(target) as generator:
        if target.protocol != "echo":
            fills = f"{name}: writing {target.items:,} items"
            say(fills)
            generator.fill(lambda written: say(f"{fills}: {written:,}"))
        processes = {**target.processes, "generator": [generator.pid]}
        yield System(name, generator, processes)
