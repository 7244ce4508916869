"""The items a workload writes: each says which write it came from, and proves that it is whole."""

from __future__ import annotations

from typing import Any, NamedTuple

from xxhash import xxh3_64_hexdigest

_WRITER = "writer"
_SEQUENCE = "seq"
_DATA = "data"


class WriteName(NamedTuple):
    """writer: of one run, drawn at random. sequence: of the write in that run."""

    writer: str
    sequence: int


def make_item(key_attribute: str, key: str, name: WriteName, size: int) -> dict[str, Any]:
    """size: bytes of the payload, which follows from the name alone."""
    return {
        key_attribute: key,
        _WRITER: name.writer,
        _SEQUENCE: name.sequence,
        _DATA: _payload(name, size),
    }


def name_of(item: dict[str, Any]) -> WriteName | None:
    """None for an item that no workload wrote."""
    try:
        return WriteName(str(item[_WRITER]), int(item[_SEQUENCE]))
    except (KeyError, TypeError, ValueError):
        return None


def value_of(item: dict[str, Any]) -> str:
    """A short text that stands for the item in a history: different for different items."""
    name = name_of(item)
    data = item.get(_DATA)
    if name is not None and isinstance(data, str) and data == _payload(name, len(data)):
        return value_named(name)
    return f"not of a workload: {xxh3_64_hexdigest(repr(sorted(item.items())).encode())}"


def value_named(name: WriteName) -> str:
    """What `value_of` says of the item that a write has made."""
    return f"{name.writer}:{name.sequence}"


def digest_of(item: dict[str, Any]) -> str:
    """Of the payload, 16 hexadecimal digits. A missing payload has one too."""
    return xxh3_64_hexdigest(str(item.get(_DATA, "")).encode())


def _payload(name: WriteName, size: int) -> str:
    stamp = f"{name.writer}:{name.sequence};"
    return (stamp * (size // len(stamp) + 1))[:size]
