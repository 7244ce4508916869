"""Storage nodes on the in-memory network, for transcripts.

A partition at an epoch is written `1@2`. Persisted steps are announced as they are passed, in the
order in which they happen in virtual time.
"""

from __future__ import annotations

from collections.abc import Iterable

from runner import Commands, scenario
from storage_world import StorageWorld, item, item_key

from keyplane.model.errors import KeyplaneError
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.route.v1.route_pb2 import RouteHint
from keyplane.storage.v1 import storage_pb2 as pb
from storage.ownership import Holding, State
from wire import crashpoints
from wire.ports import Reply

POLL_S = 0.02


@scenario("storage")
class StorageScenario(Commands):
    """Commands end when the nodes have gone quiet, so what they print is what they caused."""

    def __init__(self) -> None:
        self._world = StorageWorld()
        self._said: list[str] = []
        # What is to happen at a persisted step, once.
        self._plans: dict[str, list[str]] = {}
        crashpoints.disarm()
        for point in crashpoints.POINTS:
            # Of what is passed with every write nobody wants to read.
            if point.startswith("storage.") and point != "storage.write.committed":
                self._watch(point)

    def run(self, words: list[str]) -> Iterable[str]:
        self._said = []
        said = list(super().run(words))
        return self._said + said

    # --- Nodes ---------------------------------------------------------------------------------

    def do_start(self, *names: str) -> Iterable[str]:
        for name in names:
            self._world.start(name)
        self._world.run_for(1)
        for name in names:
            yield from self._holdings(name)

    def do_kill(self, name: str) -> None:
        self._world.kill(name)

    def do_plan(self, *words: str) -> None:
        """`plan storage.move.fenced kill s1`: when the step is next passed."""
        self._plans[words[0]] = list(words[1:])

    def do_show(self, *names: str) -> Iterable[str]:
        for name in names:
            yield from self._holdings(name)

    # --- Items ---------------------------------------------------------------------------------

    def do_put(self, name: str, where: str, key: str, value: str) -> Iterable[str]:
        result = self._world.put(name, _where(where), key, value)
        yield f"version {result.version}"

    def do_get(self, name: str, where: str, key: str) -> Iterable[str]:
        value = self._world.get(name, _where(where), key)
        yield "nothing" if value is None else value

    # --- Changes -------------------------------------------------------------------------------

    def do_open(self, name: str) -> Iterable[str]:
        """One partition, 1@1, over the whole keyspace."""
        self._world.open(name)
        yield from self._holdings(name)

    def do_split(
        self, operation: str, name: str, where: str, _at: str, cut: str, _into: str, *ids: str
    ) -> Iterable[str]:
        """`split op s1 1@1 at 0x8000 into 2 3`: the hash by its first 16 bits."""
        left, right = map(int, ids)
        hash_ = int(cut, 16) << 48
        for child in self._world.split(name, _where(where), hash_, left, right, operation):
            yield _describe(child)

    def do_merge(
        self, operation: str, name: str, left: str, right: str, _into: str, merged: str
    ) -> Iterable[str]:
        (left_id, left_epoch), (right_id, right_epoch) = _where(left), _where(right)
        request = pb.MergePartitionsRequest(
            operation_id=operation,
            left_id=left_id,
            left_epoch=left_epoch,
            right_id=right_id,
            right_epoch=right_epoch,
            merged_id=int(merged),
        )
        response = self._world.call(name, "MergePartitions", request)
        yield _describe(Partition.from_proto(response.merged))

    def do_move(
        self, operation: str, name: str, where: str, _to: str, target: str
    ) -> Iterable[str]:
        """Asks again and again, as the Metadata Store does, until it ends or nobody answers."""
        while True:
            try:
                outcome = self._world.move(name, _where(where), target, operation)
            except KeyplaneError as error:
                if self._world.members[name].up:
                    raise
                return [f"no answer any more: {error.reason.name}"]
            if outcome.phase == pb.MOVE_PHASE_DONE:
                return [f"done: {_describe(Partition.from_proto(outcome.moved))}"]
            if outcome.phase == pb.MOVE_PHASE_ABORTED:
                return [f"aborted: {outcome.reason}"]
            if outcome.phase == pb.MOVE_PHASE_HANDOVER and not self._world.members[target].up:
                return ["handed over; the target does not answer"]
            self._world.run_for(POLL_S)

    def do_wait(self, seconds: str) -> None:
        self._world.run_for(float(seconds))

    def do_release(self, operation: str, name: str, partition_id: str) -> Iterable[str]:
        request = pb.ReleaseMovedRequest(operation_id=operation, partition_id=int(partition_id))
        self._world.call(name, "ReleaseMoved", request)
        yield from self._holdings(name)

    # --- What is said --------------------------------------------------------------------------

    def explain(self, error: KeyplaneError) -> Iterable[str]:
        hint = error.detail(RouteHint)
        if hint is None:
            return
        addresses = {node.node_id: node.address for node in hint.nodes}
        for message in hint.partitions:
            partition = Partition.from_proto(message)
            yield f"  go to {_describe(partition)} at {addresses[partition.leader]}"

    def _watch(self, point: str) -> None:
        crashpoints.arm(point, lambda: self._passed(point))

    def _passed(self, point: str) -> None:
        self._watch(point)
        self._said.append(f"- {point.removeprefix('storage.')}")
        plan = self._plans.pop(point, None)
        if plan is None:
            return
        self._said.append(f"  ({' '.join(plan)})")
        match plan:
            case ["kill", name, "itself"]:
                self._world.kill(name)
                process = self._world.members[name].process
                assert process is not None
                process.die()
            case ["kill", name]:
                self._world.kill(name)
            case ["put", name, where, key, value]:
                write = pb.WriteOp(key=item_key(key), put=item(key, value))
                self._send(name, where, f"put {key}", write=write)
            case ["get", name, where, key]:
                self._send(name, where, f"get {key}", get=pb.GetOp(key=item_key(key)))
            case _:
                raise ValueError(f"cannot plan to {' '.join(plan)}")

    def _send(self, name: str, where: str, what: str, **op: object) -> None:
        partition_id, epoch = _where(where)
        request = pb.ExecuteRequest(partition_id=partition_id, epoch=epoch, **op)

        def answered(reply: Reply) -> None:
            if reply.error is None:
                self._said.append(f"  {what}: ok")
            else:
                self._said.append(f"  {what}: {reply.error.reason.name}")
                self._said.extend(f"  {line}" for line in self.explain(reply.error))

        self._world.send(name, "Execute", request, answered)

    def _holdings(self, name: str) -> Iterable[str]:
        node = self._world.members[name].node
        assert node is not None
        held = sorted(node.state.ownership, key=lambda each: each.partition.partition_id)
        items = sum(1 for _ in node.state.engine.scan(b"\x02", b"\x03"))
        yield f"{name}: {items} items" if held else f"{name} serves nothing"
        for holding in held:
            yield f"  {_describe(holding.partition)} {_state(holding)}"


def _where(text: str) -> tuple[int, int]:
    partition_id, epoch = text.split("@")
    return int(partition_id), int(epoch)


def _describe(partition: Partition) -> str:
    start, end = (
        "end" if bound == KEYSPACE_END else f"{bound >> 48:04x}"
        for bound in (partition.start, partition.end)
    )
    return f"{partition.partition_id}@{partition.epoch} [{start}, {end}) on {partition.leader}"


def _state(holding: Holding) -> str:
    if holding.state is not State.RETIRED:
        return holding.state.value
    heirs = ", ".join(f"{each.partition_id}@{each.epoch}" for each in holding.successors)
    return f"retired, now {heirs}"
