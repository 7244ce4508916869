"""Ports for processes that must keep them over restarts.

A port that the kernel picks (port 0) comes from the range it also hands to outgoing connections.
While a member is down, any client on the machine may be given the member's port, and the member
cannot come back; a client that keeps dialling a dead port in that range can even connect to itself.
So ports are picked below that range.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from keyplane.model.errors import KeyplaneError, Reason

HOST = "127.0.0.1"

_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20_000
_HIGHEST_DEFAULT = 32_000


def pick(count: int, avoid: frozenset[int] = frozenset()) -> list[int]:
    """Ports of the loopback interface on which nothing listens now, none of them in `avoid`.

    Raises KeyplaneError(PORT_TAKEN) when there are not that many.
    """
    usable = (port for port in _candidates() if port not in avoid and is_free(port))
    found = list(islice(usable, count))
    if len(found) == count:
        return found
    raise KeyplaneError(
        Reason.PORT_TAKEN,
        f"fewer than {count} ports are free on {HOST}; stop what listens there",
    )


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do, so that connections of a former owner that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def _candidates() -> Iterator[int]:
    """Every port below the ephemeral range, from a random one on: two launchers seldom meet."""
    try:
        highest = int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        highest = _HIGHEST_DEFAULT
    if highest - _LOWEST < 1_000:
        highest = _HIGHEST_DEFAULT
    start = random.randrange(_LOWEST, highest)
    yield from range(start, highest)
    yield from range(_LOWEST, start)
