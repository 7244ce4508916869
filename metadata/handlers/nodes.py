"""RegisterNode, Heartbeat, ListNodes, DrainNode."""

from __future__ import annotations

from keyplane.catalog.v1 import catalog_pb2 as catalog_pb
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.handlers.checks import (
    check_heartbeat,
    check_node,
    check_node_id,
    check_request_id,
)
from metadata.handlers.dispatch import Answer, Handling, Parts
from metadata.kinds import drain
from metadata.records import NodeRecord
from metadata.writer import Decision


def _register(parts: Parts, request: pb.RegisterNodeRequest, answer: Answer) -> None:
    """Registering again brings a drained node back: it was started anew, so it is wanted."""
    check_node(request.node)
    node = request.node

    def decide(catalog: Catalog) -> Decision[None]:
        _require_room(parts, catalog, node)
        held = catalog.nodes.get(node.node_id)
        draining = held is not None and held.state == catalog_pb.NODE_STATE_DRAINING
        state = catalog_pb.NODE_STATE_DRAINING if draining else catalog_pb.NODE_STATE_UP
        record = NodeRecord(node.node_id, node.address, node.zone, state)
        if record == held:
            return Decision(None, None)
        return Decision(Change(catalog.counters, nodes=(record,)), None)

    def registered(outcome: KeyplaneError | None) -> None:
        if outcome is not None:
            answer(outcome)
            return
        parts.registry.heard(node.node_id)
        parts.reconciler.tell(node.node_id)
        parts.driver.kick()
        answer(pb.RegisterNodeResponse())

    parts.writer.submit(decide, registered)


def _require_room(parts: Parts, catalog: Catalog, node: catalog_pb.Node) -> None:
    if node.node_id not in catalog.nodes and len(catalog.nodes) >= parts.world.config.nodes_max:
        raise KeyplaneError(
            Reason.OVERLOADED, f"{len(catalog.nodes)} storage nodes are registered, the most"
        )
    for other in catalog.nodes.values():
        same = other.address == node.address and other.node_id != node.node_id
        if same and not parts.registry.is_suspect(other.node_id):
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"address {node.address} is that of node {other.node_id!r}, which is alive; "
                "give every node its own",
            )


def _heartbeat(parts: Parts, request: pb.HeartbeatRequest, answer: Answer) -> None:
    check_heartbeat(request)
    known = parts.registry.heard(request.node_id, request.loads)
    if known:
        parts.planner.observe(request.node_id, request.loads)
    answer(pb.HeartbeatResponse(known=known))


def _list(parts: Parts, request: pb.ListNodesRequest, answer: Answer) -> None:
    statuses = [_status(parts, node) for node in parts.world.catalog.nodes.values()]
    answer(pb.ListNodesResponse(nodes=sorted(statuses, key=lambda each: each.node.node_id)))


def _status(parts: Parts, node: NodeRecord) -> pb.NodeStatus:
    loads = parts.registry.loads(node.node_id)
    return pb.NodeStatus(
        node=parts.registry.to_proto(node),
        partition_count=len(parts.world.catalog.led_by(node.node_id)),
        reads_per_second=sum(load.reads_per_second for load in loads),
        writes_per_second=sum(load.writes_per_second for load in loads),
        heartbeat_age_ms=round(parts.registry.silence_s(node.node_id) * 1000),
    )


def _drain(parts: Parts, request: pb.DrainNodeRequest, answer: Answer) -> None:
    check_node_id(request.node_id)
    check_request_id(request.request_id)
    parts.begin(
        lambda catalog: drain.begin(parts.world, catalog, request),
        answer,
        lambda operation: pb.DrainNodeResponse(operation=operation),
    )


METHODS = {
    "RegisterNode": Handling(pb.RegisterNodeRequest, _register),
    "Heartbeat": Handling(pb.HeartbeatRequest, _heartbeat),
    "ListNodes": Handling(pb.ListNodesRequest, _list),
    "DrainNode": Handling(pb.DrainNodeRequest, _drain),
}
