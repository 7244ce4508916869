"""Equal nodes behind routers that ask any of them, some slow: what layers compute hedging of."""

from __future__ import annotations

from dataclasses import dataclass

from keyplane.model.errors import KeyplaneError, Reason


@dataclass(frozen=True, slots=True)
class Nodes:
    """Times are in the unit of service_time, rates per that unit; arrivals are Poisson.

    servers: of each node, behind one queue; service is exponential. arrival_rate: of requests to
    all nodes together, without second ones; each asks a node at random. slow: the first so many of
    the nodes answer later by slow_by, during which none of their servers is busy. round_trip: on
    the way there and back. Raises INVALID_ARGUMENT.
    """

    nodes: int
    servers: int
    arrival_rate: float
    service_time: float
    slow: int = 0
    slow_by: float = 0.0
    round_trip: float = 0.0

    def __post_init__(self) -> None:
        positive = (self.servers, self.arrival_rate, self.service_time)
        zero_or_more = (self.slow, self.slow_by, self.round_trip)
        possible = all(each > 0 for each in positive) and all(each >= 0 for each in zero_or_more)
        if not possible or not self.slow <= self.nodes or self.nodes < 2:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"{self} cannot be; give two nodes or more, no more slow ones than nodes, and"
                " numbers above zero",
            )

    @property
    def load(self) -> float:
        """The share of time that a server is busy without second requests."""
        return self.arrival_rate * self.service_time / (self.nodes * self.servers)
