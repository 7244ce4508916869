"""Items that were read lately."""

from __future__ import annotations

from storage.rows import ENTRY_BYTES, VALUE_BYTES_MAX, RowCache

# Of an entry with a key of two bytes and a value of eight.
SIZE = 10 + ENTRY_BYTES

# No key below begins with it.
PREFIX = b"\xff"


def key(number: int) -> bytes:
    return number.to_bytes(2, "big")


def value(number: int) -> bytes:
    return number.to_bytes(8, "big")


def filled(room: int, count: int) -> RowCache:
    rows = RowCache(room * SIZE, PREFIX)
    for number in range(count):
        rows.put(key(number), value(number))
    return rows


def test_what_was_put_is_found() -> None:
    rows = filled(room=10, count=3)
    assert [rows.get(key(number)) for number in range(4)] == [value(0), value(1), value(2), None]


def test_it_holds_no_more_than_its_bound() -> None:
    rows = filled(room=10, count=1_000)
    assert len(rows) <= 10
    assert rows.get(key(999)) == value(999)


def test_what_is_in_use_stays() -> None:
    rows = filled(room=10, count=1)
    for number in range(1, 1_000):
        rows.put(key(number), value(number))
        assert rows.get(key(0)) == value(0)


def test_changes_are_taken_over_wherever_the_entry_is() -> None:
    rows = filled(room=10, count=7)
    for number in range(7):
        rows.replace(key(number), value(number + 100))
    assert rows.get(key(2)) == value(102)
    assert rows.get(key(6)) == value(106)
    rows.replace(key(2), None)
    rows.replace(key(6), None)
    assert rows.get(key(2)) is None
    assert rows.get(key(6)) is None


def test_of_what_is_only_written_that_with_the_prefix_is_kept() -> None:
    rows = filled(room=10, count=0)
    rows.replace(key(1), value(1))
    assert len(rows) == 0
    rows.replace(PREFIX + key(1), value(1))
    assert rows.get(PREFIX + key(1)) == value(1)
    rows.replace(PREFIX + key(2), None)
    assert len(rows) == 1


def test_rewriting_one_item_displaces_no_other() -> None:
    rows = filled(room=10, count=3)
    for number in range(1_000):
        rows.replace(key(0), value(number))
    assert [rows.get(key(number)) for number in range(3)] == [value(999), value(1), value(2)]


def test_items_that_grow_in_their_place_stay_within_the_bound() -> None:
    rows = filled(room=1_000, count=400)
    for _ in range(3):
        for number in range(400):
            rows.replace(key(number), bytes(VALUE_BYTES_MAX))
    kept = sum(rows.get(key(number)) is not None for number in range(400))
    assert kept * VALUE_BYTES_MAX <= 1_000 * SIZE + 2 * VALUE_BYTES_MAX


def test_large_values_are_not_kept() -> None:
    rows = RowCache(1 << 20, PREFIX)
    rows.put(key(1), bytes(VALUE_BYTES_MAX + 1))
    assert rows.get(key(1)) is None
    rows.put(key(2), b"small")
    rows.replace(key(2), bytes(VALUE_BYTES_MAX + 1))
    assert rows.get(key(2)) is None


def test_nothing_is_left_after_clearing() -> None:
    rows = filled(room=10, count=7)
    rows.clear()
    assert len(rows) == 0
    assert rows.get(key(6)) is None
