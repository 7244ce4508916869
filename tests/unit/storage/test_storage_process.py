"""A real storage node over RocksDB: what survives kill -9, and what a disk that is full does."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_process import StorageProcess

from keyplane.model.errors import KeyplaneError, Reason

pytestmark = pytest.mark.cluster


@pytest.fixture
def node(tmp_path: Path) -> Iterator[StorageProcess]:
    node = StorageProcess(tmp_path)
    yield node
    node.clean_up()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "none", str(mount)], capture_output=True
    )
    if made.returncode:
        pytest.skip(f"cannot mount a small file system: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def write(
    node: StorageProcess, prefix: str, acknowledged: dict[str, str], enough: threading.Event
) -> None:
    """Writes one item after another until the node is gone."""
    for number in range(100_000):
        name = f"{prefix}-{number}"
        try:
            node.put(name, name)
        except KeyplaneError:
            return
        acknowledged[name] = name
        if number == 150:
            enough.set()


def test_kill_9_loses_no_acknowledged_write(node: StorageProcess) -> None:
    """I2 at the level `process`: killed three times in the middle of its writes."""
    node.start()
    node.open()
    acknowledged: dict[str, str] = {}
    for generation in range(3):
        enough = threading.Event()
        writers = [
            threading.Thread(
                target=write, args=(node, f"{generation}-{number}", acknowledged, enough)
            )
            for number in range(4)
        ]
        for writer in writers:
            writer.start()
        assert enough.wait(timeout=60)
        node.kill()
        for writer in writers:
            writer.join()
        node.start()
    assert len(acknowledged) > 3 * 150
    lost = [name for name, value in acknowledged.items() if node.get(name) != value]
    assert lost == []


def test_sigterm_drains_and_the_next_start_has_everything(node: StorageProcess) -> None:
    node.start()
    node.open()
    node.put("alice", "a")
    assert node.stop() == 0
    node.start()
    assert node.get("alice") == "a"


def fill(node: StorageProcess) -> KeyplaneError:
    """Writes until the disk refuses."""
    for number in range(100_000):
        try:
            node.put(f"big-{number}", "x" * 20_000)
        except KeyplaneError as error:
            return error
    raise AssertionError("the disk is never full")


def test_a_full_disk_stops_writes_and_nothing_else_and_heals(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(70 << 20))
    node = StorageProcess(small_disk)
    try:
        node.start()
        node.open()
        node.put("alice", "a")
        error = fill(node)
        assert error.reason is Reason.WRITE_ERROR
        assert "No space left" in error.message
        with pytest.raises(KeyplaneError) as refused:
            node.put("bob", "b")
        assert refused.value.reason in (Reason.NOT_SERVING, Reason.WRITE_ERROR)
        assert node.get("alice") == "a"
        ballast.unlink()
        patience_ends = time.monotonic() + 30
        while True:
            try:
                node.put("bob", "b")
                break
            except KeyplaneError as still:
                assert still.reason in (Reason.NOT_SERVING, Reason.WRITE_ERROR)
                assert time.monotonic() < patience_ends
                threading.Event().wait(0.2)
        assert node.get("alice") == "a"
        assert node.get("bob") == "b"
    finally:
        node.clean_up()


def test_another_write_error_says_what_to_do_and_a_restart_does_it(node: StorageProcess) -> None:
    """A file may not grow past a limit, not even the log of one write buffer. RocksDB does not
    recover from that by itself.
    """
    node.start(1 << 20)
    node.open()
    node.put("alice", "a")
    error = fill(node)
    assert error.reason is Reason.WRITE_ERROR
    with pytest.raises(KeyplaneError) as refused:
        node.put("bob", "b")
    assert refused.value.reason is Reason.NOT_SERVING
    assert "start the node again" in refused.value.message
    assert node.get("alice") == "a"
    node.stop()
    node.start()
    assert node.get("alice") == "a"
    node.put("bob", "b")
    assert node.get("bob") == "b"
