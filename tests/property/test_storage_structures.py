"""Digests, stored items, split cuts and RocksDB scans, over arbitrary contents."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.digest import Digest
from storage.engine import RocksEngine
from storage.memory import MemoryEngine
from storage.stored import item_of, join_token, made_by, read_version, seal_item, size_of
from storage.suggest import median_cut
from wire.memory import VirtualClock
from wire.ports import Batch

KEYS = st.binary(min_size=1, max_size=4)
BATCHES = st.builds(
    Batch,
    st.dictionaries(KEYS, st.none() | st.binary(max_size=4), max_size=8),
    st.lists(st.tuples(KEYS, KEYS).map(lambda pair: (min(pair), max(pair))), max_size=2),
)


@given(st.lists(BATCHES, max_size=8))
def test_a_digest_kept_up_to_date_is_the_digest_of_what_is_there(batches: list[Batch]) -> None:
    clock = VirtualClock()
    engine = MemoryEngine(clock)
    kept = Digest()
    for batch in batches:
        for key, value in batch.writes.items():
            kept.replace(key, engine.get(key), value)
        engine.commit(Batch(batch.writes), False, lambda _: None)
        clock.run_for(1)
    fresh = Digest()
    for key, value in reversed(list(engine.scan(b"", b"\xff" * 9))):
        fresh.add(key, value)
    assert (kept.count, kept.data_bytes, kept.to_bytes()) == (
        fresh.count,
        fresh.data_bytes,
        fresh.to_bytes(),
    )


@given(
    st.integers(0, 2**64 - 1),
    st.none() | st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1)),
    st.binary(max_size=50),
    st.integers(0, 2**32 - 1),
)
def test_a_stored_item_reads_back(
    version: int, token: tuple[bytes, int] | None, item: bytes, item_bytes: int
) -> None:
    joined = join_token(*token) if token else b""
    sealed = seal_item(version, joined, item, item_bytes)
    assert size_of(sealed) == item_bytes
    assert read_version(sealed) == version
    assert made_by(sealed, joined) == bool(token)
    other = bytes([joined[0] ^ 1]) + joined[1:] if joined else bytes(24)
    assert not made_by(sealed, other)
    assert item_of(sealed) == item
    # As older versions stored it.
    old = b"\x01" + sealed[1:34] + item
    assert read_version(old) == version
    assert made_by(old, joined) == bool(token)
    assert item_of(old) == item
    assert size_of(old) == len(item)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=60) | st.lists(st.integers(0, 3)))
def test_a_cut_leaves_something_on_either_side_and_no_other_cut_is_fairer(
    hashes: list[int],
) -> None:
    cut = median_cut(hashes)
    if cut is None:
        assert len(set(hashes)) < 2
        return

    def unfairness(at: int) -> float:
        return abs(sum(each < at for each in hashes) - len(hashes) / 2)

    assert min(hashes) < cut <= max(hashes)
    assert all(unfairness(cut) <= unfairness(other) for other in set(hashes) - {min(hashes)})


@settings(max_examples=40, deadline=None)
@given(st.lists(BATCHES, max_size=6), KEYS, KEYS)
def test_rocksdb_and_memory_are_one_engine(batches: list[Batch], one: bytes, other: bytes) -> None:
    """The same batches leave the same entries, from either end, live and in a snapshot."""
    clock = VirtualClock()
    with tempfile.TemporaryDirectory() as directory:
        engines = [
            # With room for some of the entries in its cache.
            RocksEngine(Path(directory) / "db", clock, clock.call_soon, row_cache_bytes=1_000),
            MemoryEngine(clock),
        ]
        seen: list[list[object]] = []
        for engine in engines:
            taken: list[object] = []
            for batch in batches:
                snapshot = engine.snapshot()
                before = list(engine.scan(b"", b"\xff" * 9))
                taken.append([engine.get(one), engine.get(other)])
                engine.commit(batch, False, lambda _: None)
                clock.run_for(1)
                taken.append([engine.get(key) for key in batch.writes])
                assert list(snapshot.scan(b"", b"\xff" * 9)) == before
                taken.append(list(snapshot.scan(min(one, other), max(one, other), True)))
                snapshot.close()
            for backward in (False, True):
                taken.append(list(engine.scan(min(one, other), max(one, other), backward)))
            taken.append([engine.get(one), list(engine.scan(b"", b"\xff" * 9))])
            seen.append(taken)
            engine.close()
        assert seen[0] == seen[1]
