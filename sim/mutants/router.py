"""Bugs of the router: how it retries, what it believes, and whom it asks."""

from __future__ import annotations

from cache.reader import MapReader
from router import parse
from router.context import RouterContext
from router.exchange import Desk
from router.partition_call import PartitionCall
from router.survey import Surveyor
from sim.mutants.mutant import Mutant
from sim.mutants.patch import Edit

ROUTER: tuple[Mutant, ...] = (
    Mutant(
        "retry-without-its-token",
        "The router writes under tokens of its own, so a client's retry is a new write.",
        ("I2",),
        (Edit(parse.write_token, "return request.token", "return context.tokens.next()"),),
    ),
    Mutant(
        "last-error-counts",
        "A definite error of the last attempt hides that an earlier one may have been done.",
        ("I2",),
        (Edit(PartitionCall._fail, "self._doubt is not None and not settled", "False"),),
    ),
    Mutant(
        "calls-metadata-store",
        "A router that searches a route asks the Metadata Store too.",
        ("I4",),
        (
            Edit(
                Surveyor._addresses,
                "seeds = list(dict.fromkeys(self._config.seeds))",
                'seeds = [*dict.fromkeys(self._config.seeds), "metadata:1"]',
            ),
        ),
    ),
    Mutant(
        "reads-memds-per-miss",
        "A router reads MemDS again at once for every request that a storage node refuses.",
        ("I7",),
        (
            Edit(
                RouterContext.learn,
                "if self.nodes.hear_of(hint.nodes) or changed:",
                "self.search._lookup._begin()\n    if self.nodes.hear_of(hint.nodes) or changed:",
            ),
        ),
    ),
    Mutant(
        "second-node-only-for-lookups",
        "A router that waits for no table asks one memcached node on a beat instead of two.",
        ("I7",),
        (
            Edit(
                MapReader._begin,
                "nodes[:NODES_PER_BEAT]",
                "nodes[: NODES_PER_BEAT if self._lookups else 1]",
            ),
        ),
    ),
    Mutant(
        "requests-without-bound",
        "A router takes requests in however many are in flight.",
        ("I9",),
        (
            Edit(
                Desk._refusal,
                "self.in_flight >= self._config.inflight_max",
                "False",
            ),
        ),
    ),
)
