"""host:port addresses: reading them, and finding out why one cannot be listened on."""

from __future__ import annotations

import ipaddress
import socket

from keyplane.model.errors import KeyplaneError, Reason

PORT_MAX = 65_535


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port". Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: an IPv6 host is written in brackets, as [::1]:8000")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) <= PORT_MAX):
        raise ValueError(f"{address!r} is no address; write host:port, as 127.0.0.1:8000")
    return host, int(port)


def check_address(flag: str, address: str) -> str:
    """The address itself. Raises KeyplaneError(INVALID_ARGUMENT) that names the flag."""
    try:
        parse_address(address)
    except ValueError as error:
        raise KeyplaneError(Reason.INVALID_ARGUMENT, f"{flag}: {error}") from error
    return address


def parse_addresses(flag: str, text: str) -> list[str]:
    """The addresses of a comma list, which may be empty. Raises as `check_address`."""
    return [check_address(flag, each.strip()) for each in text.split(",") if each.strip()]


def format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listen(address: str) -> None:
    """Raises OSError, with a message for people, if nobody could listen on this address now.

    gRPC says only that it failed, the operating system says why.
    """
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections that are winding down do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
