"""A cluster of real processes on this machine, from nothing to nothing.

There is no supervisor: every call reads what is there, does its work and leaves.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psutil

from keyplane.cluster import launch, ports, process
from keyplane.cluster.config import MEMBERS_MAX, ClusterConfig, Timeouts
from keyplane.cluster.health import is_serving
from keyplane.cluster.launch import Say
from keyplane.cluster.state import Kind, Member, Paths, State, load, save
from keyplane.lock import exclusive
from keyplane.model.credentials import Credentials
from keyplane.model.errors import KeyplaneError, Reason
from wire.auth import Auth
from wire.secret_file import make_secret_file, read_vault
from wire.transports import TransportKind

DEFAULT_NAME = "local"

# It becomes a directory and a prefix of memcached keys.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")

# Ports are tested, released and then used; somebody may be faster. Then all are picked again.
_PORT_ATTEMPTS_MAX = 3


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """condition: serving, starting (alive, does not serve yet), paused or dead.

    pid, uptime_s: 0 of a dead one.
    """

    name: str
    kind: Kind
    condition: str
    address: str
    metrics_address: str
    pid: int
    uptime_s: float
    log: Path


@dataclass(frozen=True, slots=True)
class UpResult:
    """created: there was no such cluster. started: members that were dead and are serving now."""

    created: bool
    started: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DownResult:
    """stopped: processes that ran. killed: those that had to be, after the grace period."""

    stopped: int
    killed: int


def default_home() -> Path:
    """Where clusters are kept: $KEYPLANE_HOME, or .keyplane in the working directory."""
    return Path(os.environ.get("KEYPLANE_HOME") or ".keyplane")


class Cluster:
    """Every method that names a cluster which is not there raises KeyplaneError(CLUSTER_NOT_FOUND);
    one that names a member it does not have, NODE_NOT_FOUND.
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        home: Path | None = None,
        timeouts: Timeouts | None = None,
        say: Say = lambda line: None,
    ) -> None:
        """say: hears one line about each thing that happens.

        Raises KeyplaneError(INVALID_ARGUMENT) for a name that is no plain word.
        """
        if not _NAME.fullmatch(name):
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"{name!r} names no cluster: use up to 40 lower-case letters, digits and hyphens",
            )
        self.name = name
        self.paths = Paths((home or default_home()).absolute() / name)
        self._timeouts = timeouts or Timeouts()
        self._say = say

    # --- From nothing, and to nothing

    def up(self, config: ClusterConfig) -> UpResult:
        """Makes the cluster, or starts what is dead of the one that exists.

        What this call started is stopped again when it fails. Raises KeyplaneError(PORT_TAKEN,
        START_FAILED, MEMCACHED_MISSING, CLUSTER_BUSY).
        """
        with self._exclusive():
            state = load(self.paths)
            created = state is None
            if state is None:
                state = _new_state(self.name, config)
            alive = self._processes(state)
            if config.enable_faults and not state.enable_faults:
                if alive:
                    raise KeyplaneError(
                        Reason.INVALID_ARGUMENT,
                        f"cluster {self.name!r} runs, and was started without faults; run "
                        "`keyplane down` first, which keeps its data",
                    )
                state.enable_faults = True
            if config.auth is not None and config.auth is not state.auth:
                if alive:
                    raise KeyplaneError(
                        Reason.INVALID_ARGUMENT,
                        f"cluster {self.name!r} runs with --auth {state.auth}; run `keyplane down`"
                        " first, which keeps its data",
                    )
                state.auth = config.auth
            dead = [member for member in state.members.values() if member.name not in alive]
            if dead:
                self._start_all(state, dead, fresh=not alive)
            return UpResult(created, tuple(member.name for member in dead))

    def down(self, wipe: bool = False) -> DownResult:
        """Ends every process of the cluster, and deletes its files if it is ephemeral or `wipe`.

        Needs no file to be right, or even there. A second call finds nothing and says so.
        """
        with self._exclusive():
            try:
                state = load(self.paths)
            except KeyplaneError:
                # It has to work on a broken cluster above all; only wiping may destroy the file.
                state = None
            stopped = killed = 0
            # Anew until there is none: a launcher that was killed may just have started one more.
            while found := self._everything(state):
                stopped += len(found)
                killed += process.stop(found, self._timeouts.stop_s)
            if wipe or (state is not None and state.ephemeral):
                shutil.rmtree(self.paths.root, ignore_errors=True)
        return DownResult(stopped, killed)

    def add_router(self) -> Member:
        """One more router. Needs neither the Metadata Store nor MemDS to be there."""
        with self._exclusive():
            state = self.state()
            number = 1 + max(
                (int(m.name.rpartition("-")[2]) for m in state.of_kind(Kind.ROUTER)), default=0
            )
            if number > MEMBERS_MAX:
                raise KeyplaneError(
                    Reason.INVALID_ARGUMENT, f"a cluster has at most {MEMBERS_MAX} routers"
                )
            member = Member(f"router-{number}", Kind.ROUTER, "")
            _assign_ports(state, [member])
            state.members[member.name] = member
            self._start(state, [member])
            return member

    # --- Looking

    def state(self) -> State:
        state = load(self.paths)
        if state is None:
            raise KeyplaneError(
                Reason.CLUSTER_NOT_FOUND,
                f"there is no cluster {self.name!r} in {self.paths.root.parent}; "
                "start one with `keyplane up`, or name another with --cluster and --data-dir",
            )
        return state

    def addresses(self, kind: Kind) -> list[str]:
        return self.state().addresses(kind)

    def operator(self) -> Credentials:
        """The operator's own key. Raises KeyplaneError(INVALID_ARGUMENT) without the secret."""
        vault = read_vault(self.paths.secret)
        assert vault is not None, "a path was given"
        return vault.operator

    def credentials(self) -> Credentials | None:
        """What to call its servers with: the operator's key where calls are signed."""
        return self.operator() if self.state().auth is Auth.REQUIRED else None

    def status(self) -> list[MemberStatus]:
        state = self.state()
        alive = self._processes(state)
        paused = {name for name, running in alive.items() if process.is_paused(running)}

        def condition(member: Member) -> str:
            if member.name not in alive:
                return "dead"
            if member.name in paused:
                return "paused"
            return "serving" if is_serving(member, self._timeouts.probe_s) else "starting"

        members = list(state.members.values())
        with ThreadPoolExecutor(max_workers=max(1, len(members))) as pool:
            conditions = list(pool.map(condition, members))
        return [
            self._member_status(member, condition, alive.get(member.name))
            for member, condition in zip(members, conditions, strict=True)
        ]

    def life(self) -> dict[str, str]:
        """running, paused or dead, of every member: what can be said without asking it."""
        state = self.state()
        alive = self._processes(state)

        def of(name: str) -> str:
            if name not in alive:
                return "dead"
            return "paused" if process.is_paused(alive[name]) else "running"

        return {name: of(name) for name in state.members}

    def match(self, names: Sequence[str]) -> list[str]:
        """Member names for names of members or of kinds: `router` stands for every router."""
        state = self.state()
        found: dict[str, None] = {}
        for name in names:
            if name in state.members:
                found[name] = None
            elif name in set(Kind) and state.of_kind(Kind(name)):
                found.update(dict.fromkeys(member.name for member in state.of_kind(Kind(name))))
            else:
                raise KeyplaneError(
                    Reason.NODE_NOT_FOUND,
                    f"cluster {self.name!r} has no {name!r}; it has: {', '.join(state.members)}",
                )
        return list(found)

    # --- Disturbing

    def kill(self, name: str) -> None:
        """SIGKILL. Returns when it is gone; killing a dead member changes nothing."""
        with self._exclusive():
            running = self._processes(self.state()).get(self._one(name))
            if running is not None:
                process.kill([running])

    def pause(self, name: str) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        process.send(self._running(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        process.send(self._running(name), signal.SIGCONT)

    def restart(self, name: str, env: Mapping[str, str] | None = None, wait: bool = True) -> None:
        """Stops it with grace if it runs, and starts it at the same address with its data.

        env: more environment for it, such as the crash points of tests.
        wait: return only when it serves.
        """
        with self._exclusive():
            state = self.state()
            member = state.members[self._one(name)]
            running = self._processes(state).get(name)
            if running is not None:
                process.stop([running], self._timeouts.stop_s)
            if not _ports_free(member):
                raise launch.port_taken(member)
            self._start(state, [member], env, wait)

    # --- Inside

    def _exclusive(self) -> AbstractContextManager[None]:
        return exclusive(self.paths.lock, self._timeouts.lock_s)

    def _processes(self, state: State) -> dict[str, psutil.Process]:
        """The living members by name."""
        alive = dict(process.belonging_to(self.paths.cluster_id))
        for member in state.members.values():
            if member.name not in alive:
                running = process.find(member.pid, member.pid_started)
                if running is not None:
                    alive[member.name] = running
        return alive

    def _everything(self, state: State | None) -> list[psutil.Process]:
        """Every process to end: those that carry the cluster's id, and those on record."""
        found = {running.pid: running for _, running in process.belonging_to(self.paths.cluster_id)}
        for member in state.members.values() if state is not None else ():
            running = process.find(member.pid, member.pid_started)
            if running is not None:
                found[running.pid] = running
        return list(found.values())

    def _running(self, name: str) -> psutil.Process:
        running = self._processes(self.state()).get(self._one(name))
        if running is None:
            raise KeyplaneError(
                Reason.NODE_UNAVAILABLE,
                f"{name} is not running; start it with `keyplane restart {name}`",
            )
        return running

    def _one(self, name: str) -> str:
        if name not in self.state().members:
            self.match([name])
            raise KeyplaneError(Reason.NODE_NOT_FOUND, f"{name!r} is a kind; name one member")
        return name

    def _start_all(self, state: State, dead: list[Member], fresh: bool) -> None:
        """fresh: nothing of the cluster runs, so ports that are taken may be given up."""
        for attempt in range(1, _PORT_ATTEMPTS_MAX + 1):
            taken = [member for member in dead if not _ports_free(member)]
            if taken and not fresh:
                raise launch.port_taken(taken[0])
            _assign_ports(state, taken)
            try:
                self._start(state, dead)
                return
            except KeyplaneError as error:
                last = attempt == _PORT_ATTEMPTS_MAX
                if error.reason is not Reason.PORT_TAKEN or not fresh or last:
                    raise
                self._say(f"{error.message}; picking ports again")

    def _start(
        self,
        state: State,
        members: Sequence[Member],
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        """Starts them all at once: they find each other. Stops them all again if one fails."""
        save(self.paths, state)
        make_secret_file(self.paths.secret)
        started: list[tuple[Member, psutil.Process]] = []
        try:
            for member in members:
                started.append((member, launch.spawn(member, state, self.paths, env)))
                self._say(f"{member.name} started, process {member.pid}")
            if not wait:
                return
            launch.wait_serving(started, self.paths, self._timeouts.start_s, self._say)
            self._wait_registered(state, members)
        except BaseException:
            process.stop([running for _, running in started], self._timeouts.stop_s)
            raise

    def _wait_registered(self, state: State, members: Sequence[Member]) -> None:
        """After a start of storage nodes: until a table can be created on them."""
        nodes = [member.name for member in members if member.kind is Kind.STORAGE]
        metadata = state.of_kind(Kind.METADATA)[0]
        if nodes and metadata.name in self._processes(state):
            credentials = self.operator() if state.auth is Auth.REQUIRED else None
            launch.wait_registered(metadata.address, nodes, self._timeouts.start_s, credentials)

    def _member_status(
        self, member: Member, condition: str, running: psutil.Process | None
    ) -> MemberStatus:
        uptime_s = 0.0
        if running is not None:
            try:
                uptime_s = max(0.0, time.time() - running.create_time())
            except psutil.NoSuchProcess:
                condition, running = "dead", None
        return MemberStatus(
            name=member.name,
            kind=member.kind,
            condition=condition,
            address=member.address,
            metrics_address=member.metrics_address,
            pid=running.pid if running is not None else 0,
            uptime_s=uptime_s,
            log=self.paths.log(member.name),
        )


def _transport_of_environment() -> TransportKind:
    """Raises KeyplaneError(INVALID_ARGUMENT)."""
    name = os.environ.get("KEYPLANE_TRANSPORT") or TransportKind.HTTP2
    try:
        return TransportKind(name)
    except ValueError:
        kinds = " or ".join(TransportKind)
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"KEYPLANE_TRANSPORT is {name!r}; set it to {kinds}"
        ) from None


def _new_state(name: str, config: ClusterConfig) -> State:
    transport = config.transport or _transport_of_environment()
    state = State(name, config.ephemeral, config.database_url, config.enable_faults, transport)
    state.auth = config.auth or Auth.OFF
    members = [Member("metadata", Kind.METADATA, ""), Member("granter", Kind.GRANTER, "")]
    for kind, count in (
        (Kind.MEMDS, config.memds),
        (Kind.STORAGE, config.storage),
        (Kind.ROUTER, config.routers),
    ):
        members += [Member(f"{kind}-{number}", kind, "") for number in range(1, count + 1)]
    _assign_ports(state, members)
    state.members = {member.name: member for member in members}
    return state


def _assign_ports(state: State, members: Sequence[Member]) -> None:
    """Free ports of their own for these members."""
    known = [m for m in state.members.values() if m not in members]
    addresses = [address for m in known for address in (m.address, m.metrics_address) if address]
    avoid = frozenset(ports.port_of(address) for address in addresses)
    free = iter(ports.pick(2 * len(members), avoid))
    for member in members:
        member.address = f"{ports.HOST}:{next(free)}"
        if member.kind is not Kind.MEMDS:
            member.metrics_address = f"{ports.HOST}:{next(free)}"


def _ports_free(member: Member) -> bool:
    addresses = [member.address, member.metrics_address]
    return all(ports.is_free(ports.port_of(address)) for address in addresses if address)
