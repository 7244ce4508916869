"""The frame of stored values."""

from __future__ import annotations

import pytest

from cache import memds_keys
from cache.envelope import FORMAT_VERSION, MAGIC, OVERHEAD_BYTES, Kind, open_sealed, seal
from keyplane.model.errors import KeyplaneError, Reason


def reason_of(kind: Kind, value: bytes) -> Reason:
    with pytest.raises(KeyplaneError) as caught:
        open_sealed(kind, value)
    return caught.value.reason


@pytest.mark.parametrize("kind", list(Kind))
def test_what_was_sealed_opens(kind: Kind) -> None:
    """The payload comes back, and the frame costs 21 bytes."""
    value = seal(kind, b"payload")
    assert open_sealed(kind, value) == b"payload"
    assert len(value) == len(b"payload") + OVERHEAD_BYTES


def test_a_value_under_a_key_of_another_kind_is_corrupt() -> None:
    """A page where a root is expected is noticed, though its checksum is right."""
    assert reason_of(Kind.ROOT, seal(Kind.PAGE, b"payload")) is Reason.CORRUPT


@pytest.mark.parametrize("length", [0, 1, len(MAGIC), OVERHEAD_BYTES - 1, OVERHEAD_BYTES + 3])
def test_a_truncated_value_is_corrupt(length: int) -> None:
    assert reason_of(Kind.ROOT, seal(Kind.ROOT, b"payload")[:length]) is Reason.CORRUPT


def test_another_format_version_is_foreign_not_corrupt() -> None:
    """So that an operator who mixes releases is told what is going on."""
    value = bytearray(seal(Kind.ROOT, b"payload"))
    value[len(MAGIC)] = FORMAT_VERSION + 1
    assert reason_of(Kind.ROOT, bytes(value)) is Reason.FOREIGN_FORMAT


def test_a_value_of_something_else_is_corrupt() -> None:
    assert reason_of(Kind.ROOT, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") is Reason.CORRUPT


def test_keys_fit_memcached_whatever_the_names() -> None:
    """Up to 250 bytes, printable, no blanks; and different names never share a key."""
    names = ["orders", "a.b-c_D", "x" * 255, "x" * 254 + "y", "with blank", "ü", "#", "", "a:b"]
    keys = [memds_keys.root(cluster, name) for cluster in names for name in names]
    keys += [memds_keys.report(cluster, name) for cluster in names for name in names]
    keys += [memds_keys.nodes(name) for name in names]
    keys += [memds_keys.marker(name) for name in names]
    keys += [memds_keys.page(name, bytes(16)) for name in names]
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert len(key) <= memds_keys.KEY_BYTES_MAX
        assert key.isascii() and key.isprintable() and " " not in key


def test_plain_names_stay_readable() -> None:
    """An operator can look a table up by hand."""
    assert memds_keys.root("demo", "orders") == "kp1:demo:t:orders"
    assert memds_keys.page("demo", b"\x01" * 16) == "kp1:demo:p:" + "01" * 16
    assert memds_keys.report("demo", "storage-1") == "kp1:demo:s:storage-1"
