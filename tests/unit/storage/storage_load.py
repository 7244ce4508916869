"""A client in the in-memory world: it writes all the time, follows hints, and keeps what it was
promised, so that a test can ask afterwards whether every promise was kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from storage_world import CLIENT_ID, StorageWorld, item, item_key, value_of

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Reason
from keyplane.model.partition import Partition
from keyplane.route.v1.route_pb2 import RouteHint
from keyplane.storage.v1 import storage_pb2 as pb
from wire.ports import Reply

RETRY_S = 0.02
DEADLINE_S = 0.5


@dataclass
class _Attempt:
    key: int
    value: str
    sequence: int
    began: float
    indefinite: int = 0


class Load:
    """`writers` keys are written over and over, each by a writer that waits for its answer.

    Every write has to end definitely, whoever dies meanwhile.
    """

    def __init__(self, world: StorageWorld, writers: int = 8) -> None:
        self._world = world
        self._routes: dict[int, Partition] = {}
        self._addresses = {each.config.address: name for name, each in world.members.items()}
        self._sequence = 0
        self.running = True
        self.acknowledged: dict[int, str] = {}
        # The last value sent: may have been written even if nobody said so.
        self.sent: dict[int, str] = {}
        self.writes = 0
        for name, partition in world.served():
            assert name == partition.leader
            self._learn(partition)
        for key in range(writers):
            self._begin(key)

    def stop(self) -> None:
        """Lets the writes under way end."""
        self.running = False

    def verify(self) -> None:
        """Every acknowledged write is there, or a later one of the same writer that was sent."""
        world = self._world
        owners = world.served()
        for (_, one), (_, other) in pairwise(owners):
            assert one.end == other.start, f"{one} and {other} are not neighbours: I1"
        assert owners[0][1].start == 0
        for key, value in self.acknowledged.items():
            name, partition = next(
                owner for owner in owners if owner[1].covers(item_key(f"k{key}").hash)
            )
            get = pb.GetOp(key=item_key(f"k{key}"))
            found = world.execute(name, partition.partition_id, partition.epoch, get=get).get
            assert found.found, f"k{key} is lost: I2"
            assert value_of(found.item) in (value, self.sent[key]), f"k{key} went back: I2"

    # --- Writing -------------------------------------------------------------------------------

    def _begin(self, key: int) -> None:
        if not self.running:
            return
        self._sequence += 1
        value = f"v{self._sequence}"
        self.sent[key] = value
        self._send(_Attempt(key, value, self._sequence, self._world.clock.now()))

    def _send(self, attempt: _Attempt) -> None:
        name = f"k{attempt.key}"
        key = item_key(name)
        route = self._route(key.hash)
        now = self._world.clock.now()
        token = data.WriteToken(
            client_id=CLIENT_ID,
            sequence=attempt.sequence,
            attempt=attempt.indefinite,
            age_ms=round((now - attempt.began) * 1000),
        )
        write = pb.WriteOp(key=key, put=item(name, attempt.value), token=token)
        request = pb.ExecuteRequest(partition_id=route.partition_id, epoch=route.epoch, write=write)
        self._world.send(
            route.leader, "Execute", request, lambda r: self._ended(attempt, r), DEADLINE_S
        )

    def _ended(self, attempt: _Attempt, reply: Reply) -> None:
        error = reply.error
        if error is None:
            self.writes += 1
            self.acknowledged[attempt.key] = attempt.value
            self._later(0.001, lambda: self._begin(attempt.key))
        else:
            assert error.retryable, error
            hint = error.detail(RouteHint)
            for partition in hint.partitions if hint else ():
                self._learn(Partition.from_proto(partition))
            if not error.definite:
                attempt.indefinite += 1
            if error.reason is not Reason.STALE_ROUTE or not hint.partitions:
                self._ask_everybody()
            self._later(RETRY_S, lambda: self._send(attempt))

    def _later(self, delay_s: float, action) -> None:  # type: ignore[no-untyped-def]
        self._world.clock.call_later(delay_s, action)

    # --- Routing -------------------------------------------------------------------------------

    def _route(self, key_hash: int) -> Partition:
        """The newest partition that claims the hash."""
        claims = [each for each in self._routes.values() if each.covers(key_hash)]
        return max(claims, key=lambda each: each.epoch)

    def _learn(self, partition: Partition) -> None:
        known = self._routes.get(partition.partition_id)
        if known is None or known.epoch < partition.epoch:
            self._routes[partition.partition_id] = partition

    def _ask_everybody(self) -> None:
        def heard(reply: Reply) -> None:
            if reply.error is None:
                response = pb.DescribePartitionsResponse.FromString(reply.payload)
                for partition in (*response.partitions, *response.forwarded):
                    self._learn(Partition.from_proto(partition))

        for name in self._world.members:
            self._world.send(
                name, "DescribePartitions", pb.DescribePartitionsRequest(), heard, DEADLINE_S
            )
