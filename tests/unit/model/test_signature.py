"""Signatures, credentials, and what is sealed under a cluster's secret."""

from __future__ import annotations

import hashlib

import pytest

from keyplane.model.credentials import Credentials, secret_to_text
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import (
    KEY_ID_CHARS,
    VALUE_CHARS,
    Signature,
    Signer,
    SigningKey,
    read_signature,
)
from keyplane.model.vault import Vault

KEY_ID = "KPAK0123456789ABCDEF"
METHOD = "/keyplane.data.v1.DataService/GetItem"


def signed(payload: bytes, secret: bytes = b"s" * 32, now: float = 1_700_000_000.25) -> Signature:
    return read_signature(Signer(KEY_ID, secret, lambda: now).value(METHOD, payload).encode())


@pytest.mark.parametrize("size", [0, 1, 100, 16 * 1024, 16 * 1024 + 1, 1_000_000])
@pytest.mark.parametrize("secret", [b"s" * 32, b"k", b"long" * 16])
def test_the_mac_is_keyed_blake2b_of_everything_that_matters(size: int, secret: bytes) -> None:
    payload = bytes(size)
    signature = signed(payload, secret)
    assert signature.key_id == KEY_ID.encode()
    assert signature.signed_at_ms == 1_700_000_000_250
    message = b"1" + signature.head + METHOD.encode() + b"\0" + payload
    assert signature.mac == hashlib.blake2b(message, key=secret, digest_size=18).digest()
    assert signature.mac == SigningKey(secret).mac(signature.head, METHOD, payload)


def test_every_value_has_one_length_and_its_own_number() -> None:
    signer = Signer(KEY_ID, b"s" * 32, lambda: 0.0)
    values = [signer.value(METHOD, b"") for _ in range(100)]
    assert {len(value) for value in values} == {VALUE_CHARS}
    assert [read_signature(value.encode()).sequence for value in values] == list(range(1, 101))
    assert len({read_signature(value.encode()).signer for value in values}) == 1
    other = Signer(KEY_ID, b"s" * 32, lambda: 0.0).value(METHOD, b"")
    assert read_signature(other.encode()).signer != read_signature(values[0].encode()).signer


@pytest.mark.parametrize(
    ("method", "payload"), [(METHOD[:-1], b"m"), (METHOD + "\0", b""), ("", METHOD.encode())]
)
def test_method_and_message_cannot_be_shifted_into_each_other(method: str, payload: bytes) -> None:
    head = signed(b"").head
    key = SigningKey(b"s" * 32)
    assert key.mac(head, method, payload) != key.mac(head, METHOD, b"m")
    assert key.mac(head, method, payload) != key.mac(head, METHOD, b"")


def test_credentials_never_show_their_secret() -> None:
    credentials = Credentials(KEY_ID, secret_to_text(b"s" * 32))
    assert credentials.secret_bytes == b"s" * 32
    assert credentials.secret not in repr(credentials)
    assert credentials.secret not in f"{credentials}"


@pytest.mark.parametrize(
    ("key_id", "secret"),
    [
        ("", secret_to_text(b"s" * 32)),
        ("kpak0123456789abcdef", secret_to_text(b"s" * 32)),
        (KEY_ID + "X", secret_to_text(b"s" * 32)),
        (KEY_ID, ""),
        (KEY_ID, secret_to_text(b"s" * 31)),
        (KEY_ID, "not base64 at all!!"),
        (KEY_ID, "é" * 43),
    ],
)
def test_what_cannot_be_credentials_is_refused_without_repeating_it(
    key_id: str, secret: str
) -> None:
    with pytest.raises(KeyplaneError) as caught:
        Credentials(key_id, secret)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert not secret or secret not in caught.value.message


def test_the_environment_names_both_or_neither() -> None:
    secret = secret_to_text(b"s" * 32)
    assert Credentials.from_env({}) is None
    both = {"KEYPLANE_KEY_ID": KEY_ID, "KEYPLANE_SECRET": secret}
    assert Credentials.from_env(both) == Credentials(KEY_ID, secret)
    for name in both:
        with pytest.raises(KeyplaneError, match="set both or neither"):
            Credentials.from_env({name: both[name]})


def test_a_vault_opens_what_it_sealed_and_nothing_else() -> None:
    vault, other = Vault(b"a" * 32), Vault(b"b" * 32)
    sealed = vault.seal(b"plain", "key X")
    assert vault.open(sealed, "key X") == b"plain"
    assert b"plain" not in sealed
    assert vault.seal(b"plain", "key X") != sealed
    for who, value, context in (
        (other, sealed, "key X"),
        (vault, sealed, "key Y"),
        (vault, sealed[:-1], "key X"),
        (vault, sealed[:-1] + bytes([sealed[-1] ^ 1]), "key X"),
        (vault, b"", "key X"),
        (vault, b"x" * 5, "key X"),
    ):
        with pytest.raises(KeyplaneError) as caught:
            who.open(value, context)
        assert caught.value.reason is Reason.CORRUPT
    assert vault.operator != other.operator
    assert len(vault.operator.key_id) == KEY_ID_CHARS
    assert vault.operator.secret_bytes == vault.operator_secret
    assert "a" * 32 not in repr(vault)


def test_a_cluster_secret_has_its_length() -> None:
    with pytest.raises(KeyplaneError, match="32 bytes"):
        Vault(b"short")
