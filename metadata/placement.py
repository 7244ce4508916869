"""Where partitions go: to the nodes that are up and lead the fewest."""

from __future__ import annotations

from collections import Counter

from keyplane.model.errors import KeyplaneError, Reason
from metadata.catalog import Catalog
from metadata.nodes import NodeRegistry
from metadata.plans import Kind


def nodes_by_room(catalog: Catalog, registry: NodeRegistry) -> list[str]:
    """Nodes that are up, the emptiest first; partitions on their way to a node count too.

    Raises KeyplaneError(NO_STORAGE_NODES) if there is none.
    """
    arriving = Counter(
        operation.node_id for operation in catalog.active.values() if operation.kind is Kind.MOVE
    )
    up = [node_id for node_id in catalog.nodes if registry.is_up(node_id)]
    if not up:
        raise KeyplaneError(
            Reason.NO_STORAGE_NODES,
            "no storage node is up; start one, or wait until one has registered",
            retry_after_s=1.0,
        )
    return sorted(
        up, key=lambda node_id: (len(catalog.led_by(node_id)) + arriving[node_id], node_id)
    )


def require_up(catalog: Catalog, registry: NodeRegistry, node_id: str) -> None:
    """Raises KeyplaneError(NODE_NOT_FOUND or NODE_UNAVAILABLE) if a node cannot take partitions."""
    catalog.node(node_id)
    require_reachable(registry, node_id)
    if not registry.is_up(node_id):
        raise KeyplaneError(
            Reason.NODE_UNAVAILABLE,
            f"node {node_id!r} is being drained or has been; choose another, or restart it to "
            "bring it back",
        )


def require_reachable(registry: NodeRegistry, node_id: str) -> None:
    """Raises KeyplaneError(NODE_UNAVAILABLE) if nothing has been heard of a node lately."""
    if registry.is_suspect(node_id):
        raise KeyplaneError(
            Reason.NODE_UNAVAILABLE,
            f"nothing has been heard of node {node_id!r} for {registry.silence_s(node_id):.0f} s; "
            "try again when it is back",
            retry_after_s=1.0,
        )
