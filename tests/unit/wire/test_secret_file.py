"""The file of a cluster's secret."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from keyplane.model.errors import KeyplaneError, Reason
from wire.secret_file import make_secret_file, read_vault


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "cluster.secret"
    make_secret_file(path)
    made = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    make_secret_file(path)
    assert path.read_bytes() == made
    assert [each.name for each in tmp_path.iterdir()] == ["cluster.secret"]
    vault, again = read_vault(path), read_vault(path)
    assert vault is not None
    assert again is not None
    assert again.open(vault.seal(b"x", "y"), "y") == b"x"
    assert read_vault(None) is None


@pytest.mark.parametrize(
    ("content", "mode", "remedy"),
    [
        (None, 0o600, "cannot be read"),
        (b"", 0o600, "holds no secret"),
        (b"c2hvcnQ", 0o600, "holds no secret"),
        (b"\xff\xfe" * 30, 0o600, "holds no secret"),
        (b"A" * 43, 0o640, "chmod 600"),
        (b"A" * 43, 0o604, "chmod 600"),
    ],
)
def test_a_file_that_is_none_is_refused(
    tmp_path: Path, content: bytes | None, mode: int, remedy: str
) -> None:
    path = tmp_path / "cluster.secret"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(KeyplaneError, match=remedy) as caught:
        read_vault(path)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert "--cluster-secret-file" in caught.value.message
