"""Where to split a partition."""

from __future__ import annotations

from collections.abc import Sequence

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.storage.v1 import storage_pb2 as pb
from storage.answer import Answer
from storage.background import scan_in_turns
from storage.layout import split_item_key
from storage.shard import Shard
from storage.state import NodeState

# Fewer sampled requests say too little about where the load is.
SAMPLES_MIN = 100


class SplitAdvisor:
    """Prefers the hash that halves the load, then the one that halves the items, or the middle."""

    def __init__(self, state: NodeState) -> None:
        self._state = state

    def suggest(
        self, request: pb.SuggestSplitRequest, answer: Answer[pb.SuggestSplitResponse]
    ) -> None:
        """Raises KeyplaneError: PARTITION_NOT_FOUND, PARTITION_BUSY, or SPLIT_KEY_OUTSIDE_RANGE for
        a partition of a single hash.
        """
        shard = self._state.serving_shard(request.partition_id)
        partition = shard.partition
        if partition.end - partition.start < 2:
            raise KeyplaneError(
                Reason.SPLIT_KEY_OUTSIDE_RANGE,
                f"partition {partition.partition_id} holds a single key hash and cannot be split",
            )
        by_load = median_cut(shard.heat.samples)
        if by_load is not None and len(shard.heat.samples) >= SAMPLES_MIN:
            answer.ok(pb.SuggestSplitResponse(split_hash=by_load, basis="LOAD"))
        elif shard.counted and 1 < shard.items <= self._state.config.suggest_items_max:
            self._by_items(shard, answer)
        else:
            answer.ok(_middle(shard))

    def _by_items(self, shard: Shard, answer: Answer[pb.SuggestSplitResponse]) -> None:
        snapshot = self._state.engine.snapshot()
        hashes: list[int] = []

        def take(entries: list[tuple[bytes, bytes]]) -> bool:
            hashes.extend(split_item_key(key)[0] for key, _ in entries)
            return True

        def done(_: bool) -> None:
            snapshot.close()
            cut = median_cut(hashes)
            if cut is None:
                answer.ok(_middle(shard))
            else:
                answer.ok(pb.SuggestSplitResponse(split_hash=cut, basis="ITEMS"))

        scan_in_turns(self._state, snapshot.scan(*shard.item_range()), take, done)


def median_cut(hashes: Sequence[int]) -> int | None:
    """The hash among them below which the number of others is nearest to half.

    None if they are all the same: no cut would separate them.
    """
    ordered = sorted(hashes)
    if not ordered or ordered[0] == ordered[-1]:
        return None
    half = len(ordered) / 2
    firsts = [i for i in range(1, len(ordered)) if ordered[i] != ordered[i - 1]]
    return ordered[min(firsts, key=lambda index: abs(index - half))]


def _middle(shard: Shard) -> pb.SuggestSplitResponse:
    middle = (shard.partition.start + shard.partition.end) // 2
    return pb.SuggestSplitResponse(split_hash=middle, basis="RANGE")
