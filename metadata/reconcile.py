"""Telling a node that was away what it missed: tables deleted, and settings changed.

A node is told everything, not just what is new, since nobody knows when it stopped listening; every
call is idempotent. What it missed about its partitions needs no telling: an operation on one of
them does not end without the node.
"""

from __future__ import annotations

from collections.abc import Iterator

from keyplane.model.errors import KeyplaneError
from metadata.kinds.dropping import drop_question, drops_table
from metadata.kinds.script import World
from metadata.kinds.update_table import TOLERATED, update_question
from metadata.peers import Question


class Reconciler:
    def __init__(self, world: World) -> None:
        self._world = world
        # Nodes being told, and whether they must be told again afterwards.
        self._telling: dict[str, bool] = {}

    def tell(self, node_id: str) -> None:
        """One round per node at once; a return during a round is followed by another round."""
        if node_id in self._telling:
            self._telling[node_id] = True
            return
        self._telling[node_id] = False
        self._round(node_id)

    def _round(self, node_id: str) -> None:
        def told(error: KeyplaneError | None) -> None:
            again = self._telling[node_id]
            self._telling[node_id] = False
            if error is None and not again:
                del self._telling[node_id]
            elif self._world.registry.is_suspect(node_id):
                # It will be told when it is back.
                del self._telling[node_id]
            else:
                delay_s = self._world.config.retry_max_s if error else 0.0
                self._world.clock.call_later(delay_s, lambda: self._round(node_id))

        self._world.peers.ask_all(list(self._news(node_id)), told, TOLERATED)

    def _news(self, node_id: str) -> Iterator[Question]:
        catalog = self._world.catalog
        doomed = {
            operation.table_id for operation in catalog.active.values() if drops_table(operation)
        }
        for table in catalog.tables.values():
            if table.deleted or table.table_id in doomed:
                yield drop_question(node_id, table)
            elif table.active:
                yield update_question(node_id, table)
