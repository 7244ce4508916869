"""Processes of a benchmark that run compiled modules where there are any, as the servers do.

Not by `multiprocessing`, whose children first import the program that started them, and with it
modules that are then no longer to be had compiled.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from keyplane import native

_STOP_S = 5.0
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Child:
    """connection: this end. The child ends by itself once that is closed, however that happens."""

    process: subprocess.Popen[bytes]
    connection: Connection

    @property
    def pid(self) -> int:
        return self.process.pid

    def close(self) -> None:
        """Lets it end, or ends it after some seconds."""
        self.connection.close()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.wait()


def spawn(module: str, argument: object) -> Child:
    """Starts a process that runs `main(connection, argument)` of a module. Ctrl-C does not reach
    it: it is for who started it."""
    ours, theirs = Pipe()
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, module, str(theirs.fileno())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        process_group=0,
    )
    ours.send_bytes(pickle.dumps(argument))
    # Nobody else holds it then.
    theirs.close()
    return Child(process, ours)


def _main(module: str, descriptor: str) -> None:
    # Before anything is imported that the module or its argument is made of.
    native.activate_or_exit()
    connection = Connection(int(descriptor))
    argument = connection.recv_bytes()
    importlib.import_module(module).main(connection, pickle.loads(argument))


if __name__ == "__main__":
    _main(*sys.argv[1:])
