"""What is asked of a storage node: operations that a partition call carries."""

from __future__ import annotations

from collections.abc import Sequence

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage


class Operation:
    """One operation on the partition of one key hash.

    request: sent as it is, with partition id and epoch filled in for each attempt.
    tokens: of its writes, inside `request`; empty for reads.
    """

    __slots__ = ("_ages_ms", "key_hash", "request", "tokens")

    def __init__(
        self,
        key_hash: int,
        request: storage.ExecuteRequest,
        tokens: Sequence[data.WriteToken] = (),
    ) -> None:
        self.key_hash = key_hash
        self.request = request
        self.tokens = tokens
        self._ages_ms = [token.age_ms for token in tokens]

    @property
    def writes(self) -> bool:
        return bool(self.tokens)

    def stamp(self, elapsed_s: float) -> None:
        """Brings the age of writes that may have been tried before up to date.

        elapsed_s: since the request came to this router.
        """
        for token, age_ms in zip(self.tokens, self._ages_ms, strict=True):
            if token.attempt:
                token.age_ms = age_ms + round(elapsed_s * 1000)

    def doubt(self) -> None:
        """An attempt ended so that the writes may have been done."""
        for token in self.tokens:
            token.attempt += 1

    def split_off(self, partition: Partition) -> Operation | None:
        """Leaves here what the partition covers, and gives the rest as an operation of its own.

        None if nothing is left over, as always for an operation on a single hash.
        """
        return None


def get_operation(key: storage.ItemKey) -> Operation:
    return Operation(key.hash, storage.ExecuteRequest(get=storage.GetOp(key=key)))


def write_operation(write: storage.WriteOp) -> Operation:
    request = storage.ExecuteRequest(write=write)
    return Operation(write.key.hash, request, [request.write.token])


class BatchGet(Operation):
    """Reads of keys of one partition. `places` says which of the batch each key is, in order."""

    __slots__ = ("places",)

    def __init__(self, keys: Sequence[storage.ItemKey], places: Sequence[int]) -> None:
        request = storage.ExecuteRequest(batch_get=storage.BatchGetOp(keys=keys))
        super().__init__(keys[0].hash, request)
        self.places = places

    def split_off(self, partition: Partition) -> Operation | None:
        keys = self.request.batch_get.keys
        if all(partition.covers(key.hash) for key in keys):
            return None
        kept, rest = _divide(keys, partition)
        others = BatchGet([keys[index] for index in rest], [self.places[index] for index in rest])
        self.places = [self.places[index] for index in kept]
        batch = storage.BatchGetOp(keys=[keys[index] for index in kept])
        self.request.batch_get.CopyFrom(batch)
        return others


class BatchWrite(Operation):
    """Writes to keys of one partition. `places` as in BatchGet."""

    __slots__ = ("places",)

    def __init__(self, writes: Sequence[storage.WriteOp], places: Sequence[int]) -> None:
        request = storage.ExecuteRequest(batch_write=storage.BatchWriteOp(writes=writes))
        tokens = [write.token for write in request.batch_write.writes]
        super().__init__(writes[0].key.hash, request, tokens)
        self.places = places

    def split_off(self, partition: Partition) -> Operation | None:
        writes = self.request.batch_write.writes
        if all(partition.covers(write.key.hash) for write in writes):
            return None
        kept, rest = _divide([write.key for write in writes], partition)
        others = BatchWrite(
            [writes[index] for index in rest], [self.places[index] for index in rest]
        )
        self.places = [self.places[index] for index in kept]
        batch = storage.BatchWriteOp(writes=[writes[index] for index in kept])
        self.request.batch_write.CopyFrom(batch)
        self.tokens = [write.token for write in self.request.batch_write.writes]
        self._ages_ms, others._ages_ms = (
            [self._ages_ms[index] for index in kept],
            [self._ages_ms[index] for index in rest],
        )
        return others


def _divide(keys: Sequence[storage.ItemKey], partition: Partition) -> tuple[list[int], list[int]]:
    """Places of the keys that the partition covers, and of those it does not."""
    kept = [index for index, key in enumerate(keys) if partition.covers(key.hash)]
    rest = [index for index, key in enumerate(keys) if not partition.covers(key.hash)]
    return kept, rest
