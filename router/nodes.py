"""Storage nodes as a router knows them: ids and where to reach them."""

from __future__ import annotations

from collections.abc import Iterable

from keyplane.catalog.v1 import catalog_pb2 as pb

# Nodes kept. A cluster has fewer; past it further ones are not taken over.
NODES_MAX = 10_000


class StorageNodes:
    """Ids to addresses. Nothing is ever taken out: a node that nobody names any more may come back.

    What counts, in this order: what a node says of itself, the newest directory, and what others
    say of a node nobody else has named yet.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, pb.Node] = {}
        self._addresses: dict[str, str] = {}
        self._version = 0

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def has_directory(self) -> bool:
        """Whether all nodes are known, and not just those that somebody has named."""
        return self._version > 0

    def address(self, node_id: str) -> str | None:
        return self._addresses.get(node_id)

    def get(self, node_id: str) -> pb.Node | None:
        return self._nodes.get(node_id)

    def all(self) -> list[pb.Node]:
        return sorted(self._nodes.values(), key=lambda node: node.node_id)

    def install(self, directory: pb.NodeDirectory) -> bool:
        """Takes a directory over unless it is older. True if it changed anything."""
        if directory.version <= self._version:
            return False
        self._version = directory.version
        return sum(map(self._put, directory.nodes)) > 0

    def hear(self, node: pb.Node) -> bool:
        """Takes over what a node says of itself."""
        known = self._nodes.get(node.node_id)
        if known is not None and known.address == node.address:
            return False
        return self._put(node)

    def hear_of(self, nodes: Iterable[pb.Node]) -> bool:
        """Takes over what a node says of others, as far as they are not known."""
        unknown = [node for node in nodes if node.node_id not in self._nodes]
        return sum(map(self._put, unknown)) > 0

    def directory(self) -> pb.NodeDirectory:
        return pb.NodeDirectory(version=self._version, nodes=self.all())

    def _put(self, node: pb.Node) -> bool:
        if not (node.node_id and node.address):
            return False
        known = self._nodes.get(node.node_id)
        if known == node or (known is None and len(self._nodes) >= NODES_MAX):
            return False
        self._nodes[node.node_id] = node
        self._addresses[node.node_id] = node.address
        return True
