"""The file that holds a cluster's secret: 32 random bytes as base64url, for its owner alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from keyplane.model.credentials import secret_from_text, secret_to_text
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.vault import CLUSTER_SECRET_BYTES, Vault


def read_vault(path: Path | None) -> Vault | None:
    """Of --cluster-secret-file; None without one.

    Raises KeyplaneError(INVALID_ARGUMENT) for a file that cannot be read, that others may read, or
    that holds something else.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(1_024)
    except OSError as error:
        raise _invalid(path, f"cannot be read ({error.strerror}); name the file") from error
    if mode & 0o077:
        raise _invalid(path, f"may be read by others (mode {mode:o}); run `chmod 600 {path}`")
    try:
        secret = secret_from_text(content.decode("ascii").strip())
    except (UnicodeDecodeError, KeyplaneError):
        secret = b""
    if len(secret) != CLUSTER_SECRET_BYTES:
        raise _invalid(path, f"holds no secret: {CLUSTER_SECRET_BYTES} bytes as base64url")
    return Vault(secret)


def make_secret_file(path: Path) -> None:
    """Makes a secret, unless there is one. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        beside = path.with_name(f"{path.name}.{os.getpid()}.new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret_to_text(secrets.token_bytes(CLUSTER_SECRET_BYTES)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link fails where there is a file, and shows it whole or not at all.
            os.link(beside, path)
        finally:
            beside.unlink()


def _invalid(path: Path, what: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, f"--cluster-secret-file {path} {what}")
