"""A real storage node that is told to misbehave over gRPC, and a disk of it that is full."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from storage_process import StorageProcess

from keyplane.client.channels import read_error
from keyplane.fault.v1 import fault_pb2 as pb
from keyplane.fault.v1 import fault_pb2_grpc as rpc
from keyplane.model.errors import KeyplaneError, Reason

pytestmark = pytest.mark.cluster


class FaultyProcess(StorageProcess):
    """A storage process, and what its FaultService is asked."""

    def inject(self, kind: pb.FaultKind, addresses: tuple[str, ...] = (), **fields: object) -> None:
        """Raises KeyplaneError."""
        fault = pb.Fault(id="f", kind=kind, target="s1", **fields)
        try:
            rpc.FaultServiceStub(self._channel).InjectFault(
                pb.InjectFaultRequest(fault=fault, addresses=addresses), timeout=10
            )
        except grpc.RpcError as failure:
            raise read_error("s1", failure) from failure

    def heal(self) -> list[str]:
        stub = rpc.FaultServiceStub(self._channel)
        return list(stub.HealFaults(pb.HealFaultsRequest(all=True), timeout=10).healed_ids)

    def put_in_time(self, name: str, value: str) -> None:
        """Writes as soon as the node takes writes again."""
        give_up = time.monotonic() + 30
        while True:
            try:
                self.put(name, value)
                return
            except KeyplaneError as error:
                assert error.reason in (Reason.NOT_SERVING, Reason.WRITE_ERROR), error
                assert time.monotonic() < give_up, error
            time.sleep(0.1)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FaultyProcess]:
    node = FaultyProcess(tmp_path)
    node.start(None, "--enable-faults")
    node.open()
    yield node
    node.clean_up()


def refused_put(node: FaultyProcess, name: str) -> KeyplaneError:
    with pytest.raises(KeyplaneError) as caught:
        node.put(name, "x")
    return caught.value


def test_a_full_disk_refuses_writes_goes_on_reading_and_heals_without_a_restart(
    node: FaultyProcess,
) -> None:
    """Twice: what was reopened can be full again. The first write that fails may have been done,
    says its error; the next ones say that nothing was done. None of them is there in the end."""
    for number in range(2):
        node.put("alice", f"{number}")
        node.inject(pb.FAULT_KIND_FULL_DISK)
        first = refused_put(node, "bob")
        assert first.reason is Reason.WRITE_ERROR
        assert "File too large" in first.message
        for _ in range(3):
            again = refused_put(node, "bob")
            assert again.reason is Reason.NOT_SERVING
            assert again.definite
            assert node.get("alice") == f"{number}"
        assert node.heal() == ["f"]
        node.put_in_time("carol", f"{number}")
        assert node.get("alice") == f"{number}"
        assert node.get("bob") is None
    node.kill()
    node.start()
    assert (node.get("alice"), node.get("bob"), node.get("carol")) == ("1", None, "1")


def test_a_full_disk_ends_by_the_clock_of_the_process(node: FaultyProcess) -> None:
    node.inject(pb.FAULT_KIND_FULL_DISK, remaining_ms=500)
    refused_put(node, "bob")
    node.put_in_time("bob", "b")
    assert node.heal() == []


def test_a_node_with_a_full_disk_can_be_stopped_and_loses_nothing(node: FaultyProcess) -> None:
    node.put("alice", "a")
    node.inject(pb.FAULT_KIND_FULL_DISK)
    refused_put(node, "bob")
    assert node.stop() == 0
    node.start()
    assert node.get("alice") == "a"


def test_a_node_dies_at_the_crash_point_it_was_told(node: FaultyProcess) -> None:
    with pytest.raises(KeyplaneError, match=r"there are: .*storage\.split\.persisted"):
        node.inject(pb.FAULT_KIND_CRASH_POINT, point="storage.nowhere")
    node.inject(pb.FAULT_KIND_CRASH_POINT, point="storage.split.persisted")
    assert node.heal() == ["f"]


def test_a_process_that_was_not_told_to_take_faults_takes_none(tmp_path: Path) -> None:
    node = FaultyProcess(tmp_path)
    try:
        node.start()
        with pytest.raises(KeyplaneError, match="--enable-faults") as caught:
            node.inject(pb.FAULT_KIND_FULL_DISK)
        assert caught.value.reason is Reason.FAULTS_DISABLED
    finally:
        node.clean_up()
