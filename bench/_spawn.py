"""Processes of a benchmark that run compiled modules where there are any, as the servers do."""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from keyplane import native


def spawn(module: str, argument: object) -> tuple[SpawnProcess, Connection]:
    """Starts a process that runs `main(connection, argument)` of a module.

    Returns it, and the other end of its connection. Once that is closed nobody else holds it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (module, theirs, pickle.dumps(argument))
    process = context.Process(target=_run, args=arguments, daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _run(module: str, connection: Connection, argument: bytes) -> None:
    # Before anything is imported that the module or its argument is made of.
    native.activate_or_exit()
    importlib.import_module(module).main(connection, pickle.loads(argument))
