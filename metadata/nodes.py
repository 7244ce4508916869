"""Which storage nodes are alive, and what they last said about their load.

Who has registered is in the catalog; this is what only heartbeats tell, and is never persisted.
After a start of the Metadata Store, or a pause of its own, every node gets a full interval of
grace: silence counts only while somebody was listening.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.metadata.v1.metadata_pb2 import PartitionLoad
from metadata.catalog import Catalog
from metadata.config import NODE_LOADS_MAX, MetadataConfig
from metadata.records import NodeRecord
from wire.ports import Clock, Timer

# The directory's version is the term shifted by this plus the changes seen in the term: it rises
# over restarts without a write for every node that falls silent.
_TERM_SHIFT = 32


@dataclass(slots=True)
class _Signs:
    """Of life.

    heard_at: when the node was last heard, or was first waited for (`Clock.now()`).
    present: heard since the store started, and since its last silence.
    loads: by partition id, the longest unheard first.
    """

    heard_at: float
    suspect: bool = False
    present: bool = False
    loads: dict[int, PartitionLoad] = field(default_factory=dict)


class NodeRegistry:
    """on_return: called with a node id when the node is heard for the first time since the store
    started, or since a silence: nobody knows what it has missed."""

    def __init__(
        self,
        config: MetadataConfig,
        clock: Clock,
        on_return: Callable[[str], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._on_return = on_return
        self._catalog = Catalog()
        self._signs: dict[str, _Signs] = {}
        self._changes = 0
        self._directory = pb.NodeDirectory()
        self._beat_at = clock.now()
        self._timer: Timer | None = None

    def open(self, catalog: Catalog) -> None:
        """Follows a catalog from here on. Nodes already known keep their signs of life."""
        self._changes += self._catalog.node_changes + 1
        self._catalog = catalog
        now = self._clock.now()
        self._signs = {
            node_id: self._signs.get(node_id) or _Signs(now) for node_id in catalog.nodes
        }
        if self._timer is None:
            self._beat_at = now
            self._timer = self._clock.call_later(self._config.node_beat_s, self._beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- Signs of life ---------------------------------------------------------------------------

    def heard(self, node_id: str, loads: Iterable[PartitionLoad] = ()) -> bool:
        """A heartbeat or registration. False: the node has not registered."""
        if node_id not in self._catalog.nodes:
            return False
        signs = self._signs.setdefault(node_id, _Signs(self._clock.now()))
        signs.heard_at = self._clock.now()
        for load in loads:
            signs.loads.pop(load.partition_id, None)
            signs.loads[load.partition_id] = load
        while len(signs.loads) > NODE_LOADS_MAX:
            del signs.loads[next(iter(signs.loads))]
        self._changes += signs.suspect
        returned = not signs.present
        signs.suspect, signs.present = False, True
        if returned:
            self._on_return(node_id)
        return True

    def _beat(self) -> None:
        now = self._clock.now()
        paused = now - self._beat_at > self._config.node_silence_s
        self._beat_at = now
        self._timer = self._clock.call_later(self._config.node_beat_s, self._beat)
        fallen_silent = False
        for signs in self._signs.values():
            if paused:
                signs.heard_at = max(signs.heard_at, now)
            elif not signs.suspect and now - signs.heard_at > self._config.node_silence_s:
                signs.suspect = fallen_silent = True
                signs.present = False
        self._changes += fallen_silent

    # --- Reading ---------------------------------------------------------------------------------

    def is_suspect(self, node_id: str) -> bool:
        signs = self._signs.get(node_id)
        return signs is None or signs.suspect

    def is_up(self, node_id: str) -> bool:
        """Alive, and neither being drained nor drained: may be given partitions."""
        node = self._catalog.nodes.get(node_id)
        return node is not None and node.state == pb.NODE_STATE_UP and not self.is_suspect(node_id)

    def silence_s(self, node_id: str) -> float:
        signs = self._signs.get(node_id)
        return self._clock.now() - signs.heard_at if signs else 0.0

    def load(self, node_id: str, partition_id: int) -> PartitionLoad | None:
        """As the node last reported it; None without a report."""
        signs = self._signs.get(node_id)
        return signs.loads.get(partition_id) if signs else None

    def loads(self, node_id: str) -> list[PartitionLoad]:
        """Of partitions the node still leads."""
        signs = self._signs.get(node_id)
        led = self._catalog.led_by(node_id)
        return [each for each in signs.loads.values() if each.partition_id in led] if signs else []

    def to_proto(self, node: NodeRecord) -> pb.Node:
        """A node with its state as of now, SUSPECT before anything else."""
        message = node.to_proto()
        if self.is_suspect(node.node_id):
            message.state = pb.NODE_STATE_SUSPECT
        return message

    def directory(self) -> pb.NodeDirectory:
        """Every node that has registered. The same object until something changes."""
        changes = self._changes + self._catalog.node_changes
        version = (self._catalog.term << _TERM_SHIFT) + changes
        if self._directory.version != version:
            self._directory = pb.NodeDirectory(
                version=version,
                nodes=[self.to_proto(node) for node in self._catalog.nodes.values()],
            )
        return self._directory
