"""A real memcached of a test's own, on a free loopback port."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMCACHED = shutil.which("memcached")


class Memcached:
    """One memcached process. `stop` and `start` keep its port."""

    def __init__(self, memory_mb: int = 64) -> None:
        # memcached writes its port after it has become another user, who must be let in here.
        self._directory = Path(tempfile.mkdtemp(prefix="keyplane-memcached-"))
        self._directory.chmod(0o777)
        self._port_file = self._directory / "port"
        self._memory_mb = memory_mb
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert MEMCACHED is not None
        command = [MEMCACHED, "-l", "127.0.0.1", "-p", str(self.port or -1), "-U", "0"]
        command += ["-m", str(self._memory_mb), "-t", "1"]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        self._port_file.unlink(missing_ok=True)
        environment = {**os.environ, "MEMCACHED_PORT_FILENAME": str(self._port_file)}
        self.process = subprocess.Popen(command, env=environment)
        give_up = time.monotonic() + 10
        while not (self._port_file.exists() and "TCP INET" in self._port_file.read_text()):
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError("memcached did not start")
            time.sleep(0.01)
        for line in self._port_file.read_text().splitlines():
            if line.startswith("TCP INET:"):
                self.port = int(line.partition(":")[2])

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._directory)


@contextmanager
def running(memory_mb: int = 64) -> Iterator[Memcached]:
    server = Memcached(memory_mb)
    try:
        server.start()
        yield server
    finally:
        server.close()
