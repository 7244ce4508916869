"""Processes of a benchmark that run compiled modules where there are any, as the servers do."""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from keyplane import native


def spawn(module: str, connection: Connection, argument: object) -> SpawnProcess:
    """Starts a process that runs `main(connection, argument)` of a module."""
    context = multiprocessing.get_context("spawn")
    arguments = (module, connection, pickle.dumps(argument))
    process = context.Process(target=_run, args=arguments, daemon=True)
    process.start()
    return process


def _run(module: str, connection: Connection, argument: bytes) -> None:
    # Before anything is imported that the module or its argument is made of.
    native.activate_or_exit()
    importlib.import_module(module).main(connection, pickle.loads(argument))
