"""Where to split a partition, and whether that would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.storage.v1 import storage_pb2 as pb
from storage.answer import Answer
from storage.background import scan_in_turns
from storage.heat import Heat
from storage.layout import split_item_key
from storage.shard import Shard
from storage.state import NodeState

# Fewer sampled requests say too little about where the load is.
SAMPLES_MIN: Final = 100

# A split helps if no side is left with more than this share of the whole.
LARGER_SHARE_MAX: Final = 0.8

# Of a beat's requests: more on one side of the cut say that this beat would not have been helped. A
# load that is the same in all beats has no more than LARGER_SHARE_MAX there, give or take a tenth.
BEAT_SHARE_MAX: Final = 0.95
BEATS_MIN: Final = 3


class SplitAdvisor:
    """Prefers the hash that halves the load, then the one that halves the items, or the middle.

    Asked because of heat or size, it says so if that cannot be halved.
    """

    def __init__(self, state: NodeState) -> None:
        self._state = state

    def suggest(
        self, request: pb.SuggestSplitRequest, answer: Answer[pb.SuggestSplitResponse]
    ) -> None:
        """Raises KeyplaneError: PARTITION_NOT_FOUND, PARTITION_BUSY, SPLIT_WOULD_NOT_HELP,
        LOAD_UNKNOWN, or SPLIT_KEY_OUTSIDE_RANGE for a partition of a single hash.
        """
        shard = self._state.serving_shard(request.partition_id)
        partition = shard.partition
        if partition.end - partition.start < 2:
            raise KeyplaneError(
                Reason.SPLIT_KEY_OUTSIDE_RANGE,
                f"partition {partition.partition_id} holds a single key hash and cannot be split",
            )
        match request.purpose:
            case pb.SPLIT_PURPOSE_HEAT:
                answer.ok(_by_load(heat_cut(shard.heat)))
            case pb.SPLIT_PURPOSE_SIZE:
                self._by_items(shard, answer, in_bytes=True)
            case _:
                self._anywhere(shard, answer)

    def _anywhere(self, shard: Shard, answer: Answer[pb.SuggestSplitResponse]) -> None:
        cut = median_cut(shard.heat.samples)
        if cut is not None and len(shard.heat.samples) >= SAMPLES_MIN:
            answer.ok(_by_load(cut))
        elif shard.counted and 1 < shard.items <= self._state.config.suggest_items_max:
            self._by_items(shard, answer, in_bytes=False)
        else:
            answer.ok(_middle(shard))

    def _by_items(
        self, shard: Shard, answer: Answer[pb.SuggestSplitResponse], in_bytes: bool
    ) -> None:
        """in_bytes: halves the bytes instead of the number, and says so if that cannot be."""
        snapshot = self._state.engine.snapshot()
        # One entry for each hash, however many items share it: an item collection may be large.
        hashes: list[int] = []
        weights: list[int] = []
        items = 0
        most = self._state.config.suggest_items_max

        def take(entries: list[tuple[bytes, bytes]]) -> bool:
            nonlocal items
            items += len(entries)
            for key, value in entries:
                key_hash = split_item_key(key)[0]
                if not hashes or hashes[-1] != key_hash:
                    hashes.append(key_hash)
                    weights.append(0)
                weights[-1] += len(key) + len(value) if in_bytes else 1
            # So many are spread over the range evenly, unless they share a partition key.
            return items <= most or len(hashes) == 1

        def done(complete: bool) -> None:
            snapshot.close()
            cut = weighted_cut(hashes, weights) if complete else None
            if cut is not None and (not in_bytes or cut[1] <= LARGER_SHARE_MAX):
                answer.ok(pb.SuggestSplitResponse(split_hash=cut[0], basis="ITEMS"))
            elif in_bytes and hashes and complete:
                answer.fail(_one_collection(shard))
            else:
                answer.ok(_middle(shard))

        scan_in_turns(self._state, snapshot.scan(*shard.item_range()), take, done)


def median_cut(hashes: Sequence[int]) -> int | None:
    """The hash among them below which the number of others is nearest to half.

    None if they are all the same: no cut would separate them.
    """
    ordered = sorted(hashes)
    cut = weighted_cut(ordered, [1] * len(ordered))
    return None if cut is None else cut[0]


def weighted_cut(ordered: Sequence[int], weights: Sequence[int]) -> tuple[int, float] | None:
    """The hash of a rising sequence below which the sum of weights is nearest to half, and the
    share of the larger side.

    None if they are all the same.
    """
    if not ordered or ordered[0] == ordered[-1]:
        return None
    below = [0, *accumulate(weights)]
    half = below[-1] / 2
    firsts = [i for i in range(1, len(ordered)) if ordered[i] != ordered[i - 1]]
    index = min(firsts, key=lambda i: abs(below[i] - half))
    return ordered[index], max(below[index], below[-1] - below[index]) / below[-1]


def heat_cut(heat: Heat) -> int:
    """The hash that halves the load of a partition, now and in each of the last beats.

    Raises KeyplaneError(SPLIT_WOULD_NOT_HELP): most of the load is on one key hash, or it moves
    through the range, so that at any time one side would have nearly all of it; LOAD_UNKNOWN if
    there was too little to tell.
    """
    ordered = sorted(heat.samples)
    if len(ordered) < SAMPLES_MIN:
        raise KeyplaneError(
            Reason.LOAD_UNKNOWN,
            f"{len(ordered)} requests were sampled, and {SAMPLES_MIN} are needed to tell where the"
            " load is; ask again while there is load",
        )
    cut = weighted_cut(ordered, [1] * len(ordered))
    if cut is None or cut[1] > LARGER_SHARE_MAX:
        hottest, count = Counter(ordered).most_common(1)[0]
        share = f"{count / len(ordered):.0%}"
        raise _no_help(
            f"{share} of the load is on one partition key (hash {hottest:#018x}), which no split"
            " divides; spread it over several keys, or cache it"
        )
    one_sided = sum(_larger_share(window, cut[0]) > BEAT_SHARE_MAX for window in heat.windows)
    if len(heat.windows) >= BEATS_MIN and one_sided * 2 > len(heat.windows):
        raise _no_help(
            f"the load moves through the range: in {one_sided} of the last {len(heat.windows)}"
            f" beats nearly all of it was on one side of {cut[0]:#018x}, the middle of all of it;"
            " let the sweep go through several ranges at once"
        )
    return cut[0]


def _larger_share(window: Sequence[int], cut: int) -> float:
    below = sum(sample < cut for sample in window)
    return max(below, len(window) - below) / len(window)


def _by_load(cut: int) -> pb.SuggestSplitResponse:
    return pb.SuggestSplitResponse(split_hash=cut, basis="LOAD")


def _middle(shard: Shard) -> pb.SuggestSplitResponse:
    middle = (shard.partition.start + shard.partition.end) // 2
    return pb.SuggestSplitResponse(split_hash=middle, basis="RANGE")


def _one_collection(shard: Shard) -> KeyplaneError:
    return _no_help(
        f"nearly all of partition {shard.partition_id} is under one partition key, which no split"
        " divides; spread the items over several"
    )


def _no_help(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.SPLIT_WOULD_NOT_HELP, message)
