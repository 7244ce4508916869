"""One router, three storage nodes and two memcached nodes in memory, for transcripts.

Storage nodes hold one partition each of the table `music`. A partition at an epoch is written
`1@2`. Every call of the router to a storage node is shown, with how it ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router_world import World
from runner import Commands, scenario

from keyplane.model.errors import KeyplaneError
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.route.v1 import route_pb2 as route
from keyplane.storage.v1 import storage_pb2 as storage
from wire.ports import Call, Reply, ReplyFn, Transport

_SOURCE = "ROUTE_SOURCE_"


@scenario("router")
class RouterScenario(Commands):
    def __init__(self) -> None:
        self._said: list[str] = []
        self._world = World(partitions=3, watch=lambda transport: _Tap(transport, self._said))
        self._seeds: list[str] = []

    def run(self, words: list[str]) -> Iterable[str]:
        self._said.clear()
        said = list(super().run(words))
        return [*self._said, *said]

    # --- The router ----------------------------------------------------------------------------

    def do_seeds(self, *names: str) -> None:
        """Storage nodes that the next router is told of."""
        self._seeds = [f"{name}:7000" for name in names]

    def do_start_router(self) -> Iterable[str]:
        """In the place of the one before, which is killed. What it wrote to disk stays."""
        router = self._world.start_router(seeds=self._seeds)
        yield "ready" if router.ready else "not ready"

    def do_put(self, artist: str, value: str) -> Iterable[str]:
        yield f"version {self._world.put(artist, value=value)}"

    def do_get(self, artist: str, table: str = "music") -> Iterable[str]:
        item = self._world.get(artist, table)
        yield "nothing" if item is None else str(item["value"])

    def do_get_within(self, seconds: str, artist: str) -> None:
        self._world.start_get(artist, timeout_s=float(seconds)).wait()

    def do_route(self, artist: str) -> Iterable[str]:
        found = self._world.explain(artist)
        source = route.RouteSource.Name(found.source).removeprefix(_SOURCE)
        partition = _describe(Partition.from_proto(found.partition))
        yield f"{found.key_hash >> 48:04x}: {partition}, from {source}, map {found.map_version}"

    # --- What happens around it ------------------------------------------------------------------

    def do_wait(self, seconds: str) -> None:
        self._world.clock.run_for(float(seconds))

    def do_split(self, partition_id: str) -> Iterable[str]:
        for child in self._world.split(self._partition(partition_id)):
            yield _describe(child)

    def do_move(self, partition_id: str, target: str) -> Iterable[str]:
        yield _describe(self._world.move(self._partition(partition_id), target))

    def do_publish(self) -> Iterable[str]:
        """The control plane commits what the storage nodes serve now."""
        served = [each for node in self._world.nodes.values() for each in node.serving.values()]
        before = self._world.source.by_name["music"]
        made = type(before).build(
            before.table, before.version + 1, sorted(served, key=lambda each: each.start)
        )
        self._world.source.by_name["music"] = made
        self._world.clock.run_for(2.0)
        yield f"map {made.version} of {made.count} partitions"

    def do_kill(self, *names: str) -> None:
        for name in names:
            if name == "memds":
                self._world.lose_memds()
            else:
                self._world.nodes[name].stop()

    def do_start(self, name: str) -> None:
        self._world.nodes[name].start()

    def do_lose_snapshot(self) -> None:
        self._world.disk.files.clear()

    def explain(self, error: KeyplaneError) -> Iterable[str]:
        yield f"  {error.message}"

    def _partition(self, partition_id: str) -> Partition:
        number = int(partition_id)
        return next(
            node.serving[number] for node in self._world.nodes.values() if number in node.serving
        )


class _Tap:
    """Shows each call to a storage node when it has ended."""

    def __init__(self, transport: Transport, said: list[str]) -> None:
        self._transport = transport
        self._said = said

    def call(
        self,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Call:
        what = method.rpartition("/")[2]
        if what == "Execute":
            request = storage.ExecuteRequest.FromString(payload)
            what = f"{request.WhichOneof('op')} {request.partition_id}@{request.epoch}"
            if request.write.token.attempt:
                what += f", attempt {request.write.token.attempt}"

        def show(reply: Reply) -> None:
            ended = "ok" if reply.error is None else reply.error.reason.name
            self._said.append(f"- {address.partition(':')[0]}: {what}: {ended}")
            hint = reply.error.detail(route.RouteHint) if reply.error is not None else None
            for each in hint.partitions if hint is not None else ():
                self._said.append(f"    go to {_describe(Partition.from_proto(each))}")
            on_reply(reply)

        return self._transport.call(address, method, payload, deadline, show, metadata)


def _describe(partition: Partition) -> str:
    bounds = [
        "end" if bound == KEYSPACE_END else f"{bound >> 48:04x}"
        for bound in (partition.start, partition.end)
    ]
    name = f"{partition.partition_id}@{partition.epoch}"
    return f"{name} [{bounds[0]}, {bounds[1]}) on {partition.leader}"
