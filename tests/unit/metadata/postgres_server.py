"""A PostgreSQL server of the tests' own: its own data, its own socket, no TCP port."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

_START_S_MAX = 30.0

# Whom the server runs as when the tests are root, which it refuses: the first that there is.
_UNPRIVILEGED = ("postgres", "nobody")


def find_binaries() -> Path | None:
    """The directory with `initdb` and `postgres`; None if PostgreSQL is not installed."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for command in ("pg_config", "initdb"):
        found = shutil.which(command)
        if found and command == "pg_config":
            bindir = subprocess.run([found, "--bindir"], capture_output=True, text=True, check=True)
            candidates.insert(0, Path(bindir.stdout.strip()))
        elif found:
            candidates.append(Path(found).resolve().parent)
    complete = (each for each in candidates if {"initdb", "postgres"} <= _names(each))
    return next(complete, None)


def _names(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()} if directory.is_dir() else set()


class PostgresServer:
    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # Short, since a socket's path has room for 107 bytes only.
        self._directory = Path(tempfile.mkdtemp(prefix="kp-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._as: dict[str, Any] = {}
        self.user = getpass.getuser()
        if os.geteuid() == 0:
            entry = _unprivileged()
            self.user = entry.pw_name
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self._directory, entry.pw_uid, entry.pw_gid)
        self._run("initdb", "--pgdata", "data", "--auth", "trust", "--encoding", "UTF8")

    def start(self) -> None:
        """Returns once it answers."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._binaries / "postgres", "-D", "data", "-k", self._directory),
                    *("-c", "listen_addresses="),
                ],
                cwd=self._directory,
                stdout=log,
                stderr=log,
                **self._as,
            )
        end = time.monotonic() + _START_S_MAX
        while True:
            try:
                psycopg.connect(self._conninfo("postgres")).close()
            except psycopg.OperationalError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Breaks every connection, and writes down what was committed."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Without a chance to write anything down: the next start recovers from its log."""
        self._end(signal.SIGQUIT)

    def remove(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._directory)

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._databases += 1
        name = f"keyplane{self._databases}"
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{self.user}@/{name}?host={self._directory}"

    def _conninfo(self, database: str) -> str:
        return f"host={self._directory} user={self.user} dbname={database}"

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def _run(self, command: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / command, *arguments],
            cwd=self._directory,
            check=True,
            stdout=subprocess.DEVNULL,
            **self._as,
        )


def _unprivileged() -> pwd.struct_passwd:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in _UNPRIVILEGED if name in known)
