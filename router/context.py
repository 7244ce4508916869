"""What all parts of a router share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError
from keyplane.model.limits import validate_table_name
from keyplane.model.retry import RetryBudget
from keyplane.route.v1 import route_pb2 as route
from router.admission import TableLimits
from router.config import RouterConfig
from router.exchange import Exchange
from router.nodes import StorageNodes
from router.operation import token_name
from router.search import Search
from router.tables import KnownTable, Tables, read_partitions
from wire.metrics import Metrics
from wire.ports import Clock, Rng, Transport

CLIENT_ID_BYTES = 16


class RouterMetrics:
    """Counters of what happens between a request and its answer."""

    def __init__(self, metrics: Metrics) -> None:
        self.attempts = metrics.counter(
            "router_attempts", "Calls to storage nodes, by how they ended.", "reason"
        )
        self.actions = metrics.counter(
            "router_actions", "Steps taken after failed attempts.", "action"
        )
        self.ignored = metrics.counter(
            "router_hints_ignored", "Routes from storage nodes that were refused.", "reason"
        )


class Tokens:
    """Tokens for writes that came without one, so that the router can retry them safely."""

    def __init__(self, rng: Rng) -> None:
        self._client_id = rng.getrandbits(8 * CLIENT_ID_BYTES).to_bytes(CLIENT_ID_BYTES)
        self._sequence = count(1)

    def next_name(self) -> bytes:
        """As `token_name`."""
        return token_name(self._client_id, next(self._sequence))

    def next(self) -> data.WriteToken:
        return data.WriteToken(client_id=self._client_id, sequence=next(self._sequence))


class RouterContext:
    """accounts: limits of tenants as a whole, by the prefix of their tables. on_change: called
    whenever routes or nodes have changed. touch: called with the name of each table that a request
    uses, if anybody wants to know.
    """

    __slots__ = (
        *(
            "accounts",
            "budget",
            "clock",
            "config",
            "metrics",
            "nodes",
            "on_change",
            "rng",
            "search",
            "tables",
        ),
        *("tokens", "touch", "transport"),
    )

    def __init__(
        self,
        config: RouterConfig,
        clock: Clock,
        transport: Transport,
        rng: Rng,
        tables: Tables,
        nodes: StorageNodes,
        search: Search,
        budget: RetryBudget,
        tokens: Tokens,
        metrics: RouterMetrics,
        on_change: Callable[[], None],
        touch: Callable[[str], None] | None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.transport = transport
        self.rng = rng
        self.tables = tables
        self.nodes = nodes
        self.search = search
        self.budget = budget
        self.tokens = tokens
        self.metrics = metrics
        self.on_change = on_change
        self.touch = touch
        self.accounts: dict[str, TableLimits] = {}

    def with_table(self, exchange: Exchange, name: str, then: Callable[[KnownTable], None]) -> None:
        """Goes on with the table of that name once it is known.

        A KeyplaneError that `then` raises is the caller's to handle if the table is known already,
        and else becomes the answer.
        """
        known = self.known(exchange, name)
        if known is not None:
            then(known)
        else:
            self._find_table(exchange, name, then)

    def known(self, exchange: Exchange, name: str) -> KnownTable | None:
        """The table that a request's caller calls so, if it is known. A use of it, too.

        Those of other tenants cannot be named: a name with a slash is nobody's.
        """
        prefix = exchange.caller.tenant.prefix
        known = self.tables.find(prefix + name if prefix else name)
        if known is None or known.prefix != prefix:
            return None
        if self.touch is not None:
            self.touch(known.name)
        return known

    def _find_table(
        self, exchange: Exchange, name: str, then: Callable[[KnownTable], None]
    ) -> None:
        def found(known: KnownTable | KeyplaneError) -> None:
            if isinstance(known, KeyplaneError):
                exchange.fail(known)
                return
            try:
                then(known)
            except KeyplaneError as error:
                exchange.fail(error)

        validate_table_name(name)
        name = exchange.caller.tenant.prefix + name
        # It may be known to be deleted.
        self.tables.get(name)
        self.search.table(name, exchange.deadline, found)

    def with_tables(
        self,
        exchange: Exchange,
        names: Sequence[str],
        then: Callable[[dict[str, KnownTable]], None],
    ) -> None:
        """As `with_table`, once all of them are known."""
        found: dict[str, KnownTable] = {}

        def step(index: int) -> None:
            if index == len(names):
                then(found)
                return

            def go_on(known: KnownTable) -> None:
                found[names[index]] = known
                step(index + 1)

            self.with_table(exchange, names[index], go_on)

        step(0)

    def learn(self, known: KnownTable, hint: route.RouteHint) -> None:
        """Takes over what a storage node said in an error. What is no route changes nothing."""
        try:
            changed = known.routes.install_hint(
                read_partitions(hint.partitions), route.ROUTE_SOURCE_HINT
            )
        except KeyplaneError as error:
            self.metrics.ignored.inc(error.reason.name)
            return
        if self.nodes.hear_of(hint.nodes) or changed:
            self.on_change()
