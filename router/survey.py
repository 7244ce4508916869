"""Asking the storage nodes themselves: what each serves, and what it knows to have moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.route.v1 import route_pb2 as route
from keyplane.storage.v1 import storage_pb2 as storage
from router.config import RouterConfig
from router.nodes import StorageNodes
from router.tables import Tables, read_partitions
from wire.metrics import Metrics
from wire.ports import Clock, Reply, Rng, Transport

DESCRIBE = "/keyplane.storage.v1.StorageService/DescribePartitions"


@dataclass(slots=True)
class Tally:
    """How one survey went. Nodes that answered, nodes that did not, and tables named as deleted.

    of_all: every storage node there is was asked, so that silence apart nothing can be missing.
    """

    of_all: bool = False
    answered: int = 0
    silent: int = 0
    outstanding: int = 0
    deleted: set[str] = field(default_factory=set)


class Surveyor:
    """Asks storage nodes and takes over what they say."""

    def __init__(
        self,
        config: RouterConfig,
        clock: Clock,
        transport: Transport,
        rng: Rng,
        tables: Tables,
        nodes: StorageNodes,
        metrics: Metrics,
        on_change: Callable[[], None],
    ) -> None:
        """on_change: called when an answer held anything new."""
        self._config = config
        self._clock = clock
        self._transport = transport
        self._rng = rng
        self._tables = tables
        self._nodes = nodes
        self._on_change = on_change
        self._answers = metrics.counter(
            "router_survey_answers", "Answers of storage nodes asked for routes.", "reason"
        )

    def ask(
        self, table: str, on_answer: Callable[[], None], on_end: Callable[[Tally], None]
    ) -> None:
        """Asks the known nodes and the seeds, all at once.

        table: a name, or "" for all tables.
        on_answer: after each answer that was taken over. on_end: once all have answered or failed.
        """
        addresses = self._addresses()
        everybody = {node.address for node in self._nodes.all()}
        tally = Tally(
            of_all=self._nodes.has_directory and everybody.issubset(addresses),
            outstanding=len(addresses),
        )
        if not addresses:
            self._clock.call_soon(lambda: on_end(tally))
            return
        payload = storage.DescribePartitionsRequest(table=table).SerializeToString()
        deadline = self._clock.now() + self._config.search_timeout_s

        def on_reply(reply: Reply) -> None:
            tally.outstanding -= 1
            if self._take(reply, tally):
                tally.answered += 1
                on_answer()
            else:
                tally.silent += 1
            if not tally.outstanding:
                on_end(tally)

        for address in addresses:
            self._transport.call(address, DESCRIBE, payload, deadline, on_reply)

    def _addresses(self) -> list[str]:
        """Whom to ask: all there are, or seeds and a random choice of the others."""
        seeds = list(dict.fromkeys(self._config.seeds))
        others = [node.address for node in self._nodes.all() if node.address not in seeds]
        self._rng.shuffle(others)
        return [*seeds, *others][: self._config.search_nodes_max]

    def _take(self, reply: Reply, tally: Tally) -> bool:
        error = reply.error
        if error is None:
            try:
                answer = storage.DescribePartitionsResponse.FromString(reply.payload)
                if self._install(answer):
                    self._on_change()
                tally.deleted.update(answer.deleted_tables)
            except DecodeError:
                error = KeyplaneError(Reason.MALFORMED_REQUEST, "no DescribePartitionsResponse")
            except KeyplaneError as refused:
                error = refused
        self._answers.inc("OK" if error is None else error.reason.name)
        return error is None

    def _install(self, answer: storage.DescribePartitionsResponse) -> bool:
        """True if anything was new. Raises KeyplaneError, changing nothing, on what is no route."""
        partitions = [*read_partitions(answer.partitions), *read_partitions(answer.forwarded)]
        changed = self._nodes.hear(answer.node)
        changed = self._nodes.hear_of(answer.forwarded_nodes) or changed
        for table in answer.tables:
            mine = [each for each in partitions if each.table_id == table.table_id]
            changed = (
                self._tables.install_partitions(table, mine, route.ROUTE_SOURCE_STORAGE) or changed
            )
        return changed
