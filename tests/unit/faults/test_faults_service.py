"""FaultService: who may tell a process to misbehave, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.message import Message

from keyplane.fault.v1 import fault_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction, Fault, FaultKind
from wire.injection import FaultTable
from wire.injection.check import NETWORK_KINDS
from wire.injection.convert import fault_from_proto, fault_to_proto
from wire.injection.service import FaultService, is_local
from wire.memory import VirtualClock
from wire.metrics import Metrics
from wire.ports import Handler, Reply, Request, SealKeys

HERE = "ipv4:127.0.0.1:40000"


class Scene:
    """A process with the service, called directly."""

    def __init__(self, enabled: bool = True) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics()
        self.table = FaultTable(self.clock, "storage-1") if enabled else None
        for kind in NETWORK_KINDS:
            if self.table is not None:
                self.table.allow(kind)
        self.methods: dict[str, Handler] = {}
        FaultService(self, self.table, self.clock, self.metrics)

    def take_seals(self, keys: SealKeys) -> None:
        pass

    def register(self, method: str, handler: Handler) -> None:
        self.methods[method] = handler

    def call(self, name: str, request: Message | bytes, peer: str = HERE) -> bytes:
        payload = request if isinstance(request, bytes) else request.SerializeToString()
        replies: list[Reply] = []
        method = f"/keyplane.fault.v1.FaultService/{name}"
        self.methods[method](Request(method, payload, 60.0, peer), replies.append)
        (reply,) = replies
        if reply.error is not None:
            raise reply.error
        return reply.payload

    def inject(self, **fields: object) -> None:
        fault = {"id": "f", "kind": pb.FAULT_KIND_LATENCY, "target": "storage-1"}
        fault |= {"parameters": {"delay_s": 0.1}} | fields
        self.call("InjectFault", pb.InjectFaultRequest(fault=pb.Fault(**fault)))

    def listed(self) -> list[pb.Fault]:
        answer = self.call("ListFaults", pb.ListFaultsRequest())
        return list(pb.ListFaultsResponse.FromString(answer).faults)

    def refused(self, reason: Reason) -> float:
        return self.metrics.counter(
            "fault_requests_refused", "Requests of FaultService refused, by reason.", "reason"
        ).value(reason.name)


def test_a_fault_is_injected_listed_with_the_time_it_has_left_and_healed() -> None:
    scene = Scene()
    scene.inject(remaining_ms=5000)
    scene.inject(id="g")
    scene.clock.run_for(2.0)
    assert [(fault.id, fault.remaining_ms) for fault in scene.listed()] == [("f", 3000), ("g", 0)]
    heal = pb.HealFaultsRequest(ids=["g", "unknown"])
    healed = pb.HealFaultsResponse.FromString(scene.call("HealFaults", heal)).healed_ids
    assert list(healed) == ["g"]
    scene.clock.run_for(3.1)
    assert scene.listed() == []


@pytest.mark.parametrize("name", ["InjectFault", "ListFaults", "HealFaults"])
def test_a_process_that_takes_no_faults_says_how_to_make_it(name: str) -> None:
    scene = Scene(enabled=False)
    with pytest.raises(KeyplaneError, match="--enable-faults") as caught:
        scene.call(name, b"")
    assert caught.value.reason is Reason.FAULTS_DISABLED
    assert scene.refused(Reason.FAULTS_DISABLED) == 1


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.7:5000", "ipv6:%5Bfe80::1%5D:5000", "", "dns:x:1"])
def test_callers_elsewhere_are_refused(peer: str) -> None:
    scene = Scene()
    with pytest.raises(KeyplaneError, match="run `keyplane fault` there") as caught:
        scene.call("HealFaults", pb.HealFaultsRequest(all=True), peer)
    assert caught.value.reason is Reason.CALLER_NOT_LOCAL
    assert scene.refused(Reason.CALLER_NOT_LOCAL) == 1


@pytest.mark.parametrize(
    "peer",
    [HERE, "ipv4:127.8.9.1:1", "ipv6:%5B::1%5D:5", "ipv6:[::1]:5", "ipv6:[::ffff:127.0.0.1]:5",
     "unix:/run/x"],
)  # fmt: skip
def test_loopback_is_this_machine(peer: str) -> None:
    assert is_local(peer)


def bad_requests() -> Iterator[tuple[str, dict[str, object], str]]:
    yield "unknown kind", {"kind": 99}, "99 is no kind of fault"
    yield "no kind", {"kind": 0}, "it knows: "
    yield "unknown direction", {"direction": 9}, "BOTH, TO_PEER or FROM_PEER"
    yield "probability", {"probability": 2.0}, "at most 1"
    yield "negative delay", {"parameters": {"delay_s": -1.0}}, "from 0 to"
    yield "another's", {"target": "storage-2"}, "this is storage-1"
    yield "not here", {"kind": pb.FAULT_KIND_SLOW_DISK}, "cannot do slow-disk"
    yield "too long", {"remaining_ms": 10**9}, "up to 3600 seconds"


@pytest.mark.parametrize(
    ("fields", "remedy"), [row[1:] for row in bad_requests()], ids=[r[0] for r in bad_requests()]
)
def test_a_bad_record_is_refused_counted_and_changes_nothing(
    fields: dict[str, object], remedy: str
) -> None:
    """I10."""
    scene = Scene()
    with pytest.raises(KeyplaneError) as caught:
        scene.inject(**fields)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert remedy in caught.value.message
    assert scene.refused(Reason.INVALID_ARGUMENT) == 1
    assert scene.listed() == []


def test_bytes_that_are_no_request_are_refused() -> None:
    with pytest.raises(KeyplaneError) as caught:
        Scene().call("InjectFault", b"\xff\xff")
    assert caught.value.reason is Reason.MALFORMED_REQUEST


def test_healing_names_ids_or_says_all() -> None:
    for request in (pb.HealFaultsRequest(), pb.HealFaultsRequest(ids=["f"], all=True)):
        with pytest.raises(KeyplaneError, match="not both"):
            Scene().call("HealFaults", request)


@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
def test_every_kind_goes_over_the_wire_and_back(kind: FaultKind) -> None:
    fault = Fault(
        id="f",
        kind=kind,
        target="storage-1",
        peer="router-1",
        direction=Direction.FROM_PEER,
        probability=0.5,
        parameters={"delay_s": 1.0},
        point="storage.split.persisted",
        until=12.0,
    )
    assert fault_from_proto(fault_to_proto(fault, now=10.0), now=10.0) == fault
