"""Names of the values in MemDS, all under `kp1:<cluster>:` so that clusters may share memcached.

memcached takes keys of up to 250 bytes without blanks or control characters. Names that do not fit
are replaced by `#` and their xxh3-128, which no plain name can look like.
"""

from __future__ import annotations

import re
from functools import lru_cache

import xxhash

KEY_BYTES_MAX = 250

# Longer names are hashed. With the longest prefix (a hashed cluster name) keys stay under 200.
_NAME_MAX = 120

_PLAIN = re.compile(rf"[A-Za-z0-9_.-]{{1,{_NAME_MAX}}}", re.ASCII)


def root(cluster: str, table: str) -> str:
    """A table's `MapRoot`."""
    return f"{_prefix(cluster)}:t:{_name(table)}"


def page(cluster: str, digest: bytes) -> str:
    """A `MapPage`, by the digest of its payload."""
    return f"{_prefix(cluster)}:p:{digest.hex()}"


def nodes(cluster: str) -> str:
    """The `NodeDirectory`."""
    return f"{_prefix(cluster)}:nodes"


def report(cluster: str, node_id: str) -> str:
    """A storage node's own `NodeReport`."""
    return f"{_prefix(cluster)}:s:{_name(node_id)}"


def tenants(cluster: str, number: int) -> str:
    """A `TenantShard`, by its number."""
    return f"{_prefix(cluster)}:a:{number}"


def marker(cluster: str) -> str:
    """Set by the publisher once a memcached node holds everything; gone after a flush."""
    return f"{_prefix(cluster)}:marker"


# Cached, because the same few names come again on every beat.
@lru_cache(maxsize=4_096)
def _prefix(cluster: str) -> str:
    return f"kp1:{_short(cluster)}"


@lru_cache(maxsize=4_096)
def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else _hashed(name)


def _short(cluster: str) -> str:
    return cluster if len(cluster) <= 64 and _PLAIN.fullmatch(cluster) else _hashed(cluster)


def _hashed(name: str) -> str:
    return "#" + xxhash.xxh3_128_hexdigest(name.encode())
