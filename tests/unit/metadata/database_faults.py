"""Faults of a database that tests can cause: locks, full disks, connections that break."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the write lock of an SQLite file."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def broken_after_commit() -> Iterator[None]:
    """The next commit is made, and the connection breaks before its answer."""

    def commit(connection: Connection) -> None:
        event.remove(Engine, "commit", commit)
        connection.connection.commit()
        raise OperationalError("COMMIT", {}, Exception("the connection broke"))

    event.listen(Engine, "commit", commit)
    yield
