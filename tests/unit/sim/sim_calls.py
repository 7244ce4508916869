"""Calls between two processes of the simulated network."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from keyplane.model.errors import KeyplaneError, Reason
from sim.network import Delay, Link, SimCall, SimNetwork, SimTransport
from sim.process import SimProcess, address_of
from sim.scheduler import Scheduler
from sim.trace import Trace
from wire.ports import Reply, ReplyFn, Request

METHOD = "/S/Echo"
LATENCY_S = 0.25


@dataclass
class Heard:
    """How one call ended: when, why, and whether it may have been sent."""

    at: float
    reply: Reply

    @property
    def reason(self) -> Reason | None:
        return self.reply.error and self.reply.error.reason


class Scene:
    """router-1 calls storage-1, which answers with what it got after `work_s`.

    links: what faults do between two, by (source, target).
    """

    def __init__(self, seed: int = 1, delay: Delay | None = None) -> None:
        self.scheduler = Scheduler()
        self.trace = Trace()
        self.network = SimNetwork(
            self.scheduler,
            random.Random(seed),
            self.trace,
            delay or Delay(LATENCY_S, 0.0, 0.0, 0.0),
        )
        self.links: dict[tuple[str, str], Link] = {}
        self.network.use_faults(lambda source, target: self.links.get((source, target)))
        self.work_s = 0.0
        self.seen: list[tuple[int, Request]] = []
        self.heard: list[Heard] = []
        self.lives = 0
        self.client = SimProcess(self.scheduler, "router-1", 1)
        self.server: SimProcess
        self.start()

    def start(self, rate: float = 1.0, started_at: float = 0.0) -> None:
        """The next life of the server."""
        self.lives += 1
        server = self.server = SimProcess(self.scheduler, "storage-1", self.lives, rate, started_at)
        self.network.listen(server)

        def echo(request: Request, reply: ReplyFn) -> None:
            self.seen.append((server.life, request))
            if request.payload == b"bad":
                raise KeyplaneError(Reason.INVALID_ARGUMENT, "no")
            server.clock.call_later(self.work_s, lambda: reply(Reply(request.payload)))

        server.register(METHOD, echo)

    def call(
        self,
        payload: bytes = b"payload",
        timeout_s: float = 5.0,
        address: str = address_of("storage-1"),
        method: str = METHOD,
    ) -> SimCall:
        return SimTransport(self.network, self.client).call(
            address,
            method,
            payload,
            self.client.clock.now() + timeout_s,
            lambda reply: self.heard.append(Heard(self.scheduler.now, reply)),
            [("trace", "1")],
        )

    def cut(self, source: str, target: str) -> None:
        self.links[source, target] = Link(cut=True)

    def at(self, when: float, act: Callable[[], object]) -> None:
        self.scheduler.after(when - self.scheduler.now, lambda: (act(), None)[1])

    def outcome(self) -> Heard:
        """Of the one call, which ends once."""
        self.scheduler.run_until(self.scheduler.now + 60.0)
        (heard,) = self.heard
        return heard
