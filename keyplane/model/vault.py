"""Keeps what is secret from whoever reads a database, a cache or a file: AES-256-GCM.

All keys are derived from one secret of the cluster, which its servers are given in a file.
AES-GCM: NIST SP 800-38D. Derivation: HKDF, RFC 5869.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyplane.model.credentials import Credentials, secret_to_text
from keyplane.model.errors import KeyplaneError, Reason

CLUSTER_SECRET_BYTES = 32

# Random, one for each sealing. 2**32 sealings under one key are safe with those; a tenant changes
# far less often.
_NONCE_BYTES = 12

# Of the operator, whose key follows from the cluster's secret.
OPERATOR_KEY_ID = "KPOPERATOR0000000000"


class Vault:
    """Seals and opens under the secret of one cluster."""

    def __init__(self, cluster_secret: bytes, entropy: Callable[[int], bytes] = os.urandom) -> None:
        """entropy: so many random bytes."""
        if len(cluster_secret) != CLUSTER_SECRET_BYTES:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"a cluster's secret has {CLUSTER_SECRET_BYTES} bytes, not {len(cluster_secret)}",
            )
        self.entropy = entropy
        self._cipher = AESGCM(_derived(cluster_secret, b"keyplane: seal"))
        self._operator_secret = _derived(cluster_secret, b"keyplane: operator")

    def __repr__(self) -> str:
        return "<Vault>"

    @property
    def operator(self) -> Credentials:
        """The operator's own key."""
        return Credentials(OPERATOR_KEY_ID, secret_to_text(self._operator_secret))

    @property
    def operator_secret(self) -> bytes:
        return self._operator_secret

    def seal(self, plain: bytes, context: str) -> bytes:
        """context: what it is; it opens under no other."""
        nonce = self.entropy(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raises KeyplaneError(CORRUPT) for what was not sealed so under this cluster's secret."""
        try:
            return self._cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode()
            )
        except (InvalidTag, ValueError):
            raise KeyplaneError(
                Reason.CORRUPT,
                f"{context} does not open: it was altered, or sealed under the secret of another"
                " cluster; see --cluster-secret-file",
            ) from None


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=purpose).derive(secret)
