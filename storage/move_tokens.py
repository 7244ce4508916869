"""How the remembered writes of a moving partition travel: by age, for clocks differ."""

from __future__ import annotations

from collections.abc import Iterable

from keyplane.model.errors import Reason
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as pb
from storage.layout import item_key, split_token_name, token_name
from storage.stored import CLIENT_ID_BYTES, join_token
from storage.tokens import Remembered


def milliseconds(seconds: float) -> int:
    """Rounded down; endless becomes the most that a field holds."""
    return int(min(seconds * 1000, 2**63))


def to_wire(result: Remembered, now: float) -> pb.RememberedWrite:
    hash_, token = split_token_name(result.name)
    return pb.RememberedWrite(
        client_id=token[:CLIENT_ID_BYTES],
        sequence=int.from_bytes(token[CLIENT_ID_BYTES:], "big"),
        result=pb.WriteResult(
            version=result.version,
            existed=result.existed,
            reason=Reason.CONDITION_FAILED.name if result.refused else "",
        ),
        age_ms=milliseconds(now - result.done_at),
        hash=hash_,
    )


def from_wire(
    partition: Partition, writes: Iterable[pb.RememberedWrite], now: float
) -> list[Remembered]:
    """By this node's clock. Leaves out what names no hash of the partition, as older nodes do."""
    found = []
    for write in writes:
        if write.HasField("hash") and partition.covers(write.hash):
            token = join_token(write.client_id, write.sequence)
            name = token_name(item_key(partition.table_id, write.hash, b""), token)
            done_at = now - write.age_ms / 1000
            version, existed = write.result.version, write.result.existed
            refused = bool(write.result.reason)
            found.append(Remembered(name, done_at, version, existed, refused))
    return found
