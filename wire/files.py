"""Small files that are replaced whole, on a real disk."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Writes of one directory that have not ended; more fail at once. Owners write one at a time.
WRITES_MAX = 16


def replace_file(path: Path, content: bytes) -> None:
    """Writes beside the file, syncs, renames over it, syncs the directory. Raises OSError.

    After a crash at any point the file holds the old content or the new, whole.
    """
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class FileDisk:
    """The `Disk` of a real process: the files of one directory, which is made if it is missing.

    Writes are done one after the other by a thread, since a sync may take long. Raises OSError if
    the directory cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="file-disk")
        self._pending = 0

    def read(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def write_atomic(
        self, name: str, content: bytes, on_done: Callable[[OSError | None], None]
    ) -> None:
        path = self._path(name)
        loop = asyncio.get_running_loop()
        if self._pending >= WRITES_MAX:
            full = OSError(errno.EAGAIN, f"{WRITES_MAX} writes are waiting for the disk", name)
            loop.call_soon(on_done, full)
            return

        def finish(error: OSError | None) -> None:
            self._pending -= 1
            on_done(error)

        def write() -> None:
            error = None
            try:
                replace_file(path, content)
            except OSError as failure:
                error = failure
            loop.call_soon_threadsafe(finish, error)

        self._pending += 1
        self._writer.submit(write)

    def close(self) -> None:
        """Waits for the writes that were asked for."""
        self._writer.shutdown()

    def _path(self, name: str) -> Path:
        if Path(name).name != name or name in ("", ".."):
            raise ValueError(f"{name!r} is no plain file name")
        return self._directory / name
