"""A user's key, as callers hold it."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import KEY_ID_CHARS, SECRET_BYTES

KEY_ID_ENV = "KEYPLANE_KEY_ID"
SECRET_ENV = "KEYPLANE_SECRET"

_KEY_ID = re.compile(rf"[A-Z0-9]{{{KEY_ID_CHARS}}}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """key_id: names the key. secret: base64url of 32 bytes, as it was shown when it was made.

    Raises KeyplaneError(INVALID_ARGUMENT) for what cannot be a key; the secret is never repeated.
    """

    key_id: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if _KEY_ID.fullmatch(self.key_id) is None:
            raise _invalid(f"a key id has {KEY_ID_CHARS} upper-case letters and digits")
        if len(self.secret_bytes) != SECRET_BYTES:
            raise _invalid(f"a secret stands for {SECRET_BYTES} bytes; this one is cut or too long")

    @property
    def secret_bytes(self) -> bytes:
        return secret_from_text(self.secret)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Credentials | None:
        """Of KEYPLANE_KEY_ID and KEYPLANE_SECRET; None if neither is set."""
        values = os.environ if env is None else env
        key_id, secret = values.get(KEY_ID_ENV, ""), values.get(SECRET_ENV, "")
        if not key_id and not secret:
            return None
        if not key_id or not secret:
            raise _invalid(f"{KEY_ID_ENV} and {SECRET_ENV} go together; set both or neither")
        return cls(key_id, secret)


def secret_to_text(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")


def secret_from_text(text: str) -> bytes:
    """Raises KeyplaneError(INVALID_ARGUMENT)."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise _invalid("a secret is base64url text; this one is not") from None


def _invalid(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
