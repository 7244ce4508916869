"""Addresses are read strictly, and a taken one is explained."""

from __future__ import annotations

import socket

import pytest

from wire.addresses import check_listen, format_address, is_loopback, parse_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("db.example.com:0", "db.example.com", 0),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_addresses_are_read_and_written_back(address: str, host: str, port: int) -> None:
    assert parse_address(address) == (host, port)
    assert format_address(host, port) == address


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", ":80", "::1:80", "a:b", "a:-1", "a:65536", "a:٣"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError):
        parse_address(address)


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.com")))


def test_a_free_port_passes_and_a_taken_one_says_who_and_why() -> None:
    check_listen("127.0.0.1:0")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = format_address(*holder.getsockname())
        with pytest.raises(OSError, match=f"cannot listen on {address}: Address already in use"):
            check_listen(address)
    check_listen(address)
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:80: "):
        check_listen("192.0.2.1:80")
