"""`python -m metadata` as a real process: gRPC in front, SQLite behind, killed and restarted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from sqlalchemy import create_engine, text

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.metadata.v1.metadata_pb2_grpc import MetadataServiceStub
from keyplane.model.errors import KeyplaneError
from metadata.database import Database
from metadata.handlers.dispatch import SERVICE
from metadata.migrate import VERSION_TABLE

COMMAND = [sys.executable, "-m", "metadata"]
START_S_MAX = 30.0


@contextmanager
def running(directory: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and its address. Killed at the end if it still runs."""
    run_file = directory / "run.json"
    run_file.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            *(*COMMAND, "--database-url", f"sqlite:///{directory}/metadata.db"),
            *("--run-file", str(run_file), "--memds", "127.0.0.1:1"),
        ],
        env={**os.environ, **environment},
        stderr=(directory / "log").open("ab"),
    )
    try:
        end = time.monotonic() + START_S_MAX
        while not run_file.exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        yield process, json.loads(run_file.read_text())["address"]
    finally:
        process.kill()
        process.wait()


@contextmanager
def stub(address: str) -> Iterator[MetadataServiceStub]:
    """Of a store that is SERVING, which it is once its database is loaded."""
    with grpc.insecure_channel(address) as channel:
        health = HealthStub(channel)
        for answer in health.Watch(HealthCheckRequest(service=SERVICE), timeout=START_S_MAX):
            if answer.status == HealthCheckResponse.SERVING:
                break
        yield MetadataServiceStub(channel)


def register(store: MetadataServiceStub) -> None:
    node = catalog.Node(node_id="a", address="127.0.0.1:2")
    store.RegisterNode(pb.RegisterNodeRequest(node=node), timeout=10)


def create(store: MetadataServiceStub) -> pb.Operation:
    request = pb.CreateTableRequest(
        table="orders",
        partition_key=catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING),
    )
    return store.CreateTable(request, timeout=10).operation


def test_killed_after_a_persisted_step_it_goes_on(tmp_path: Path) -> None:
    """kill -9 just after an operation is persisted: the next process takes it up."""
    with running(tmp_path, KEYPLANE_CRASH_AT="metadata.create_table.pending") as (process, address):
        with stub(address) as store:
            register(store)
            with pytest.raises(grpc.RpcError):
                create(store)
        assert process.wait(10) == -signal.SIGKILL
    with running(tmp_path) as (process, address), stub(address) as store:
        request = pb.ListOperationsRequest()
        (operation,) = store.ListOperations(request, timeout=10).operations
        assert operation.table == "orders"
        assert operation.resumed_count == 1


def test_it_stops_when_told_to(tmp_path: Path) -> None:
    """SIGTERM with an operation under way: exit 0, and the operation waits for the next start."""
    with running(tmp_path) as (process, address):
        with stub(address) as store:
            register(store)
            create(store)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert len(Database(f"sqlite:///{tmp_path}/metadata.db").open().active) == 1


def test_bad_input_arrives_as_a_typed_error(tmp_path: Path) -> None:
    with running(tmp_path) as (_, address), stub(address) as store:
        request = pb.GetOperationRequest(operation_id="none")
        with pytest.raises(grpc.RpcError) as caught:
            store.GetOperation(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    trailers = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
    error = KeyplaneError.from_status(5, "", trailers["grpc-status-details-bin"])
    assert error.reason.name == "OPERATION_NOT_FOUND"


def test_a_database_of_a_newer_build_stops_it_at_once(tmp_path: Path) -> None:
    """With exit code 1 and a message that says what to do."""
    url = f"sqlite:///{tmp_path}/metadata.db"
    Database(url).migrate()
    with create_engine(url).begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    ended = subprocess.run(
        [*COMMAND, "--database-url", url], capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 1
    assert "newer Keyplane" in ended.stderr


def test_migrate_prepares_a_database(tmp_path: Path) -> None:
    """And prints the schema without one."""
    url = f"sqlite:///{tmp_path}/metadata.db"
    subprocess.run([*COMMAND, "migrate", "--database-url", url], check=True, timeout=30)
    assert Database(url).open().tables == {}
    printed = subprocess.run(
        [*COMMAND, "migrate", "--sql"], capture_output=True, text=True, check=True, timeout=30
    )
    assert "CREATE TABLE partitions" in printed.stdout


def test_a_bad_database_url_is_refused() -> None:
    ended = subprocess.run(
        [*COMMAND, "--database-url", "nonsense"], capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 1
    assert "sqlite:///" in ended.stderr
