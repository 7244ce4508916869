"""Second requests to nodes with queues, in closed form.

Each node is taken to be M/M/c, at the rate of the first and second requests that reach it, and the
two answers of a request to be independent. Second requests come from others that were late, so that
they are not quite Poisson: near saturation the formula is too hopeful.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.closed.queues import Queue, Survival, hedged, later, mixture, percentile
from fleet.nodes import Nodes

# Of an iteration that mostly converges in a few.
_ROUNDS = 500
_NEAR = 1e-12


@dataclass(frozen=True, slots=True)
class Hedging:
    """survival: of the time from request to the earlier answer. extra: second requests for each
    request."""

    survival: Survival
    extra: float


def hedging_of(nodes: Nodes, delay: float) -> Hedging | None:
    """Another node is asked after the delay; never, if that is infinite. None: queues grow for
    ever. Where second requests can keep themselves up, of the states that last the one with the
    fewest of them."""
    late, late_slow = 0.0, 0.0
    for _ in range(_ROUNDS):
        found = _survivals(nodes, late, late_slow)
        if found is None:
            return None
        healthy, slow = found
        before = late, late_slow
        late, late_slow = healthy(delay), slow(delay)
        if abs(late - before[0]) + abs(late_slow - before[1]) < _NEAR:
            break
    first_slow, rest = nodes.slow / nodes.nodes, nodes.nodes - 1
    after_slow = mixture(
        [((nodes.slow - 1) / rest, slow), ((rest + 1 - nodes.slow) / rest, healthy)]
    )
    after_healthy = mixture([(nodes.slow / rest, slow), ((rest - nodes.slow) / rest, healthy)])
    return Hedging(
        mixture(
            [
                (first_slow, hedged(slow, after_slow, delay)),
                (1 - first_slow, hedged(healthy, after_healthy, delay)),
            ]
        ),
        first_slow * late_slow + (1 - first_slow) * late,
    )


def delay_at(nodes: Nodes, part: float, delay_max: float) -> float:
    """The percentile of healthy nodes, as loaded as second requests after that delay make them;
    delay_max if it is more than that. part: as in 0.95, for J. Dean and L. A. Barroso, "The Tail at
    Scale" (2013)."""
    delay, late_slow = delay_max, 0.0
    for _ in range(_ROUNDS):
        found = _survivals(nodes, 1 - part, late_slow)
        if found is None:
            return delay_max
        healthy, slow = found
        before, delay = delay, min(percentile(healthy, part, nodes.service_time), delay_max)
        late_slow = slow(delay)
        if abs(delay - before) <= _NEAR * delay:
            break
    return delay


def _survivals(nodes: Nodes, late: float, late_slow: float) -> tuple[Survival, Survival] | None:
    """Of answers of healthy and of slow nodes, when these parts of their first requests are late
    and ask another node."""
    healthy_count, rest = nodes.nodes - nodes.slow, nodes.nodes - 1
    each = nodes.arrival_rate / nodes.nodes
    to_healthy = each * (1 + ((healthy_count - 1) * late + nodes.slow * late_slow) / rest)
    to_slow = each * (1 + (healthy_count * late + (nodes.slow - 1) * late_slow) / rest)
    capacity = nodes.servers / nodes.service_time
    if (healthy_count and to_healthy >= capacity) or (nodes.slow and to_slow >= capacity):
        return None

    def answers(rate: float, by: float) -> Survival:
        queue = Queue(nodes.servers, rate, nodes.service_time)
        return later(queue.response_survival(), nodes.round_trip + by)

    # A kind that there is none of gets a rate that is possible; nothing is made of it.
    return (
        answers(to_healthy if healthy_count else each, 0.0),
        answers(to_slow if nodes.slow else each, nodes.slow_by),
    )
