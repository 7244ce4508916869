"""A live cluster of this machine under closed loops of load, for calibration and validation.

The load generator is that of the benchmarks: a process of its own, with every answer checked. Size
k means that k routers serve and refresh; the others are stopped (SIGSTOP), and do nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType

import psutil
from pymemcache import Client

from bench._cluster import cluster_of, create_table
from bench._load import Generator, GeneratorFailed, Target
from bench._orders import Closed
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.model.errors import KeyplaneError, Reason

TABLE = "fleet-calibration"
PARTITIONS = 8
MEMDS_NODES = 2
GET, PUT = "get", "put"
KINDS = (GET, PUT)

Say = Callable[[str], None]

# Until a router that was stopped has caught up with its beats.
_SETTLE_S = 0.6
_MEMDS_TIMEOUT_S = 5.0

# Processors that others may use in a window; and how often it is measured before that is let be.
OTHERS_MAX = 0.15
_ATTEMPTS_MAX = 3


@dataclass(frozen=True, slots=True)
class Window:
    """One closed loop. kind: get or put. cpu_ms: processor time for each request of generator,
    all routers and all storage nodes, by these names. others: processors in use by what is neither
    cluster nor generator, a hypervisor's other guests included."""

    kind: str
    routers: int
    outstanding: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: dict[str, float]
    others: float = 0.0


class LiveCluster:
    """Up to `routers` routers, one storage node, two MemDS nodes, with a table of `items` items."""

    def __init__(self, routers: int, items: int, say: Say) -> None:
        self._routers = routers
        self._items = items
        self._say = say
        self._stack = ExitStack()
        self._generators: dict[int, Generator] = {}
        self._stopped: set[str] = set()
        self.cluster: Cluster

    def __enter__(self) -> LiveCluster:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _start(self) -> None:
        config = ClusterConfig(memds=MEMDS_NODES, routers=self._routers, storage=1, ephemeral=True)
        self._say(f"starting a cluster: {self._routers} routers, 1 storage node")
        self.cluster = self._stack.enter_context(cluster_of(config))
        # A process that is stopped does not hear that it is to end.
        self._stack.callback(self.use, self._routers)
        create_table(self.cluster, TABLE, PARTITIONS)
        state = self.cluster.state()
        self._members = [member.name for member in state.of_kind(Kind.ROUTER)]
        self._addresses = state.addresses(Kind.ROUTER)
        self._memds = state.addresses(Kind.MEMDS)
        self._ours = [psutil.Process(member.pid) for member in state.members.values()]
        self._ours.append(psutil.Process())
        pids = {kind: [member.pid for member in state.of_kind(kind)] for kind in Kind}
        for count in range(1, self._routers + 1):
            processes = {"router": pids[Kind.ROUTER][:count], "storage": pids[Kind.STORAGE]}
            first, *more = self._addresses[:count]
            target = Target(
                *("keyplane", first, TABLE, self._items),
                processes=processes,
                credentials=self.cluster.credentials(),
                more=more,
            )
            generator = self._stack.enter_context(Generator(target))
            self._generators[count] = generator
            self._ours.append(psutil.Process(generator.pid))
        self._say(f"writing {self._items:,} items")
        self._generators[1].fill(lambda _written: None)

    @property
    def router(self) -> str:
        return self._addresses[0]

    @property
    def memds(self) -> list[str]:
        return list(self._memds)

    def use(self, routers: int) -> None:
        """Lets so many routers run and stops the others. Returns when those that go on have."""
        resumed = False
        for number, name in enumerate(self._members):
            if number < routers and name in self._stopped:
                self.cluster.resume(name)
                self._stopped.discard(name)
                resumed = True
            elif number >= routers and name not in self._stopped:
                self.cluster.pause(name)
                self._stopped.add(name)
        if resumed:
            time.sleep(_SETTLE_S)

    def window(self, kind: str, routers: int, outstanding: int, seconds: float) -> Window:
        """Call `use(routers)` first. On a machine that others use meanwhile it is measured again, a
        few times at the most, and the one is taken that they used least in.

        Raises GeneratorFailed if a single request failed.
        """
        found: Window | None = None
        for _ in range(_ATTEMPTS_MAX):
            window = self._window(kind, routers, outstanding, seconds)
            if found is None or window.others < found.others:
                found = window
            if found.others <= OTHERS_MAX:
                break
        assert found is not None
        return found

    def _window(self, kind: str, routers: int, outstanding: int, seconds: float) -> Window:
        warm_up_s = max(0.2, seconds / 10)
        order = Closed(outstanding, 1.0 if kind == PUT else 0.0, seconds, warm_up_s)
        others_s, began_at = self._others_s(), time.monotonic()
        sample = self._generators[routers].run(order)
        others = (self._others_s() - others_s) / (time.monotonic() - began_at)
        if sample.failures:
            raise GeneratorFailed(f"requests failed: {dict(sample.failures)}; run it again")
        every = sample.every
        if not every.count:
            raise GeneratorFailed("there was no answer in a whole window; give longer windows")
        cpu_ms = {name: us / 1000 for name, us in sample.cpu_us().items()}
        return Window(
            *(kind, routers, outstanding, sample.per_second),
            *(every.p50_us / 1000, every.p99_us / 1000, cpu_ms, max(0.0, others)),
        )

    def _others_s(self) -> float:
        """Processor seconds since the machine started that were not idle, and not ours."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)
        busy = sum(times) - idle - getattr(times, "guest_nice", 0.0)
        return busy - sum(cpu_s(process) for process in self._ours)

    def memds_gets(self) -> int:
        """Keys that all MemDS nodes together have been asked for since they started."""
        return sum(memds_gets(address) for address in self._memds)


def memds_gets(address: str) -> int:
    """Raises KeyplaneError UNAVAILABLE where there is no memcached."""
    try:
        with memds_client(address) as client:
            return int(client.stats()[b"cmd_get"])
    except OSError as error:
        raise KeyplaneError(
            Reason.NODE_UNAVAILABLE, f"memcached at {address} does not answer: {error}"
        ) from error


def cpu_s(process: psutil.Process) -> float:
    """Processor seconds it has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def memds_client(address: str) -> Iterator[Client]:
    host, _, port = address.rpartition(":")
    client = Client((host, int(port)), timeout=_MEMDS_TIMEOUT_S, no_delay=True)
    try:
        yield client
    finally:
        client.close()
