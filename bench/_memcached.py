"""A real memcached of one's own, on a free loopback port: for benchmarks and for tests."""

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

_START_TIMEOUT_S = 10.0


class Memcached:
    """One memcached process. Started again after `stop` it has the same port, and is empty."""

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
        """Returns when it listens. Raises RuntimeError if it does not."""
        if MEMCACHED is None:
            raise RuntimeError("memcached is not installed; run: sudo apt-get install memcached")
        command = [MEMCACHED, "-l", "127.0.0.1", "-p", str(self.port or -1), "-U", "0"]
        command += ["-m", str(self._memory_mb), "-t", "1"]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        self._port_file.unlink(missing_ok=True)
        environment = {**os.environ, "MEMCACHED_PORT_FILENAME": str(self._port_file)}
        self.process = subprocess.Popen(command, env=environment)
        give_up = time.monotonic() + _START_TIMEOUT_S
        while (port := self._written_port()) is None:
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise RuntimeError("memcached did not start; its own output says why")
            time.sleep(0.01)
        self.port = port

    def stop(self) -> None:
        """As `kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._directory)

    def _written_port(self) -> int | None:
        if self._port_file.exists():
            for line in self._port_file.read_text().splitlines():
                if line.startswith("TCP INET:"):
                    return int(line.partition(":")[2])
        return None


@contextmanager
def running(memory_mb: int = 64) -> Iterator[Memcached]:
    """A memcached that is gone at the end, whatever happens."""
    server = Memcached(memory_mb)
    try:
        server.start()
        yield server
    finally:
        server.close()
