"""Load: all lanes of all clients, and what came of their requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keyplane.history.operation import Kind, Outcome
from keyplane.model.credentials import Credentials
from keyplane.model.errors import KeyplaneError, Reason
from sim.client import SimClient
from sim.history import History, under_way
from sim.lane import KINDS, Lane
from sim.tenancy import APP
from sim.workload import Key, WorkloadSpec, keys_of
from sim.world import World


@dataclass(frozen=True, slots=True)
class Window:
    """What clients saw in a stretch of time. latency_s_p99: of requests that succeeded."""

    requests: int
    failed: int
    latency_s_p99: float

    @property
    def success_ratio(self) -> float:
        return 1.0 - self.failed / self.requests if self.requests else 1.0


class Load:
    """All lanes of all clients.

    failures: what ended requests: when, when they began, and the error.
    """

    def __init__(
        self,
        world: World,
        history: History,
        spec: WorkloadSpec,
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        """left_out: lanes (`client-1/0`) and requests (`client-1/0#17`) not to be made.

        Raises KeyplaneError(INVALID_ARGUMENT) on a mix of requests that there are not.
        """
        _check_mix(spec.mix)
        self.world = world
        self.history = history
        self.spec = spec
        self.left_out = left_out
        self.keys = [key for table in world.topology.tables for key in keys_of(table)]
        # Those that clients of each tenant use.
        self.of_tenant: dict[str, list[Key]] = {}
        for key in self.keys:
            self.of_tenant.setdefault(key.table.tenant, []).append(key)
        self.of_table = {table.name: keys_of(table) for table in world.topology.tables}
        self.going = False
        # Virtual seconds at which the load began.
        self.began_at = 0.0
        self.requests = 0
        # Names of the requests, in the order in which they were made.
        self.made: list[str] = []
        self.failures: list[tuple[float, float, KeyplaneError]] = []
        # Seconds from invocation to answer of every request that succeeded, with its time.
        self.latencies: list[tuple[float, float]] = []
        # Last version seen of each item, by anybody.
        self.versions: dict[str, int] = {}
        for tenant in world.topology.tenants:
            if tenant.name not in self.of_tenant:
                raise KeyplaneError(
                    Reason.INVALID_ARGUMENT,
                    f"tenant {tenant.name!r} has no table for its clients: give it one, named"
                    f" {tenant.name}/TABLE, of which a key is used",
                )
        self.clients = [SimClient(world, name) for name in world.topology.client_names()]
        self._lanes = [
            Lane(self, client, f"{client.name}/{number}")
            for client in self.clients
            for number in range(spec.lanes)
        ]

    def window(self, since: float, until: float) -> Window:
        """Requests that began within [since, until), in virtual seconds after the load began."""
        first, last = self.began_at + since, self.began_at + until
        latencies = sorted(took for began, took in self.latencies if first <= began < last)
        failed = sum(first <= began < last for _, began, _ in self.failures)
        slowest = latencies[int(len(latencies) * 0.99)] if latencies else 0.0
        return Window(len(latencies) + failed, failed, slowest)

    def key_at(self, number: float, tenant: str) -> Key:
        """The item of a tenant that a number of [0, 1) stands for."""
        keys, hot = self.of_tenant[tenant], self.spec.hot
        if number < hot:
            return keys[0]
        return keys[int((number - hot) / (1.0 - hot) * len(keys))]

    def use_key(self, tenant: str, user: str, credentials: Credentials) -> None:
        """Clients of the tenant sign with this from now on."""
        for client in self.clients:
            if client.tenant == tenant and user == APP:
                client.use(credentials)

    def start(self) -> None:
        self.going = True
        self.began_at = self.world.now
        for lane in self._lanes:
            if lane.name not in self.left_out:
                lane.next()

    def stop(self) -> None:
        """Lanes end with the request that they have under way."""
        self.going = False

    @property
    def busy(self) -> bool:
        return any(lane.busy for lane in self._lanes)

    def lane_names(self) -> list[str]:
        return [lane.name for lane in self._lanes]

    def read_once(self, client: SimClient, key: Key, on_end: Callable[[], None]) -> None:
        """One consistent read outside the lanes. A failure counts like any other."""
        at = self.world.now
        place = self.history.begin(under_way(f"{client.name}/last", key.name, Kind.READ, at))

        def ended(answer: Any) -> None:
            now = self.world.now
            if isinstance(answer, KeyplaneError):
                self.history.fail(place, now, answer)
                self.failures.append((now, at, answer))
            else:
                value, version = (
                    (None, None) if answer is None else (answer.item["v"], answer.version)
                )
                self.history.end(place, now, Outcome.OK, value=value, version=version)
            on_end()

        call = client.core.get(
            client.now, key.table.called, key.attributes, True, self.spec.timeout_s
        )
        client.run(call, ended)


def _check_mix(mix: Mapping[str, float]) -> None:
    unknown = [kind for kind in mix if kind not in KINDS]
    if unknown or sum(mix.values()) <= 0.0:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"a mix gives frequencies to these kinds of request: {', '.join(KINDS)}; not to"
            f" {', '.join(unknown) or 'none'}",
        )
