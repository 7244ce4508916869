"""Carries one operation to whoever serves a key hash: attempts, redirects, back-off, until answered
or out of time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from mypy_extensions import mypyc_attr

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.model.retry import backoff_s
from keyplane.route.v1 import route_pb2 as route
from router.context import RouterContext
from router.operation import Operation
from router.policy import Action, action_for
from router.tables import KnownTable
from wire.ports import Reply

EXECUTE: Final = "/keyplane.storage.v1.StorageService/Execute"

# Takes the operation as it was carried out, and what it read or the error. After a split in the
# middle of a batch it is called once for each part.
DoneFn: TypeAlias = Callable[["PartitionCall", Any], None]


@mypyc_attr(acyclic=True)
class PartitionCall:
    """One operation on its way. Uses a route until a storage node refuses it, and then learns.

    The route that counts is looked up for every attempt, and a refusal is judged against the one
    that was used: a slow call can neither undo what others have learned since, nor wait for news
    that is there already.
    """

    __slots__ = (
        "_account",
        "_attempts",
        "_context",
        "_deadline",
        "_doubt",
        "_limits",
        "_on_done",
        "_redirects",
        "_reserved",
        "_started_at",
        "_unreachable",
        "operation",
        "partition",
        "table",
    )

    def __init__(
        self,
        context: RouterContext,
        table: KnownTable,
        operation: Operation,
        started_at: float,
        deadline: float,
        on_done: DoneFn,
    ) -> None:
        self.table = table
        self.operation = operation
        # What the latest attempt was sent to.
        self.partition: Partition | None = None
        self._context = context
        self._started_at = started_at
        self._deadline = deadline
        self._on_done = on_done
        self._attempts = 0
        self._redirects = 0
        self._unreachable = 0
        # The latest failure that leaves open whether a write was done.
        self._doubt: KeyplaneError | None = None
        # What its table, and all tables of its tenant, may use, and the capacity units taken from
        # that.
        self._limits = table.limits
        accounts = context.accounts
        self._account = accounts.get(table.prefix) if accounts else None
        self._reserved = 0.0

    def start(self) -> None:
        """Sends it, or ends it with THROTTLED."""
        self._context.budget.earn()
        limits, account = self._limits, self._account
        if limits is not None or account is not None:
            writes = self.operation.writes
            units = self.operation.least_units()
            refusal: KeyplaneError | None = None
            if account is not None:
                refusal = account.admit(writes, self._started_at, units)
            if refusal is None and limits is not None:
                refusal = limits.admit(writes, self._started_at, units)
                if refusal is not None and account is not None:
                    account.take(writes, -units)
            if refusal is not None:
                self._on_done(self, refusal)
                return
            self._reserved = units
        self._send()

    def _settle(self, units: float) -> None:
        """Units consumed beyond those taken at first; less than 0 gives back."""
        writes = self.operation.writes
        if self._limits is not None:
            self._limits.take(writes, units)
        if self._account is not None:
            self._account.take(writes, units)

    # --- attempts -------------------------------------------------------------------------------

    def _send(self) -> None:
        context = self._context
        operation = self.operation
        partition = self.table.partition_of(operation.key_hash)
        address = None if partition is None else context.nodes.address(partition.leader)
        if partition is None or address is None:
            self._ask(self._no_route(partition), partition)
            return
        self.partition = partition
        rest = operation.split_off(partition)
        if rest is not None:
            self._fork(rest)
        self._attempts += 1
        # Only writes say how old they are.
        elapsed_s = context.clock.now() - self._started_at if operation.writes else 0.0
        request = operation.encode(partition, elapsed_s)
        context.transport.call(address, EXECUTE, request, self._deadline, self._on_reply)

    def _fork(self, rest: Operation) -> None:
        """Sends what the partition no longer covers on a call of its own."""
        other = PartitionCall(
            self._context, self.table, rest, self._started_at, self._deadline, self._on_done
        )
        other._redirects = self._redirects
        other._doubt = self._doubt
        other._send()

    def _on_reply(self, reply: Reply) -> None:
        error = reply.error
        self._context.metrics.attempts.inc("OK" if error is None else error.reason.name)
        if error is None:
            self._on_answer(reply.payload)
            return
        if not reply.sent and not error.definite:
            error = KeyplaneError(Reason.DEADLINE_BEFORE_START, error.message)
        if self.operation.writes and not error.definite:
            self._doubt = error
            self.operation.doubt()
        action = action_for(error.reason)
        self._context.metrics.actions.inc(action.value)
        self._unreachable = self._unreachable + 1 if action is Action.ASK else 0
        match action:
            case Action.FAIL:
                self._fail(error)
            case Action.REDIRECT:
                self._redirect(error)
            case Action.ASK if self._unreachable >= self._context.config.unreachable_max:
                self._ask(error, self.partition)
            case _:
                self._back_off(error)

    def _on_answer(self, payload: bytes) -> None:
        try:
            result = self.operation.read(payload)
        except KeyplaneError as error:
            self._on_done(self, error)
            return
        if result is None:
            message = "the storage node's answer does not fit what it was asked; see its version"
            self._fail(KeyplaneError(Reason.INTERNAL, message))
            return
        if self._limits is not None or self._account is not None:
            self._settle(self.operation.units() - self._reserved)
        self._on_done(self, result)

    # --- after a failure ------------------------------------------------------------------------

    def _redirect(self, error: KeyplaneError) -> None:
        hint = error.detail(route.RouteHint)
        if hint is not None:
            self._context.learn(self.table, hint)
        if not self._has_news():
            self._ask(error, self.partition)
        else:
            self._follow(error)

    def _follow(self, error: KeyplaneError) -> None:
        """Goes where the newer route points, at once as long as that has not happened often."""
        self._redirects += 1
        if self._redirects <= self._context.config.redirects_max:
            self._send()
        else:
            self._back_off(error)

    def _ask(self, error: KeyplaneError, stale: Partition | None) -> None:
        """Asks storage nodes who serves the hash now, then goes there, or waits."""

        def done(refused: KeyplaneError | None) -> None:
            if self._context.clock.now() >= self._deadline:
                self._fail(error)
            elif self._has_news():
                self._follow(error)
            else:
                self._back_off(refused or error)

        self._context.search.route(self.table, self.operation.key_hash, stale, self._deadline, done)

    def _has_news(self) -> bool:
        """Whether the hash can be tried somewhere other than where it was tried last."""
        found = self.table.partition_of(self.operation.key_hash)
        if found is None or self._context.nodes.address(found.leader) is None:
            return False
        used = self.partition
        return used is None or (used.partition_id, used.epoch) != (found.partition_id, found.epoch)

    def _back_off(self, error: KeyplaneError) -> None:
        context = self._context
        now = context.clock.now()
        if not context.budget.spend(now):
            self._fail(
                KeyplaneError(
                    Reason.RETRY_BUDGET_SPENT,
                    f"not tried again, since too many requests fail at the moment: {error}",
                )
            )
            return
        wait_s = backoff_s(error, max(0, self._attempts - 1), context.rng.random())
        if now + wait_s >= self._deadline:
            self._fail(error)
        else:
            context.clock.call_later(wait_s, self._send)

    def _fail(self, error: KeyplaneError) -> None:
        """Ends the call. An earlier attempt that may have worked makes the failure indefinite.

        A failed condition settles it: storage nodes judge one only when they know that no earlier
        attempt was carried out.
        """
        settled = not error.definite or error.reason is Reason.CONDITION_FAILED
        if self._doubt is not None and not settled:
            error = self._doubt
        # What was not done costs nothing, but a condition was judged.
        if error.definite and not settled:
            self._settle(-self._reserved)
        self._on_done(self, error)

    def _no_route(self, partition: Partition | None) -> KeyplaneError:
        if partition is None:
            what = f"nobody has said where this key of {self.table.name!r} lives"
        else:
            what = f"nobody has said where node {partition.leader!r} is"
        return KeyplaneError(
            Reason.NO_ROUTE, f"{what}: neither MemDS nor any storage node; retry later"
        )
