"""A client of the seeded world: the real SDK core, over the simulated network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyplane.client.call import Call, Wait
from keyplane.client.config import ClientConfig
from keyplane.client.core import CLIENT_ID_BYTES, ClientCore
from keyplane.model.credentials import Credentials
from keyplane.model.errors import KeyplaneError
from keyplane.model.signature import HEADER, Signer
from sim.health import HEALTH, says_serving
from sim.process import address_of
from sim.world import World
from wire.ports import Reply


class SimClient:
    """One client object in a process of its own, which no fault kills.

    core: makes the calls that `run` carries out. tenant: whose it is, where calls are signed.
    """

    def __init__(self, world: World, name: str, config: ClientConfig | None = None) -> None:
        rng = world.rng_of(name)
        self.name = name
        self.process = world.new_process(name)
        self._clock = self.process.clock
        self._transport = world.transport(self.process)
        self._config = config or ClientConfig()
        routers = [address_of(router) for router in world.topology.router_names()]
        client_id = rng.randbytes(CLIENT_ID_BYTES)
        self.tenant = world.topology.tenant_of(name)
        self._entropy = rng.randbytes
        self._signer: Signer | None = None
        self.core = ClientCore(routers, self._config, rng, client_id, self.now)

    @property
    def now(self) -> float:
        """By the client's own clock, which its calls go by."""
        return self._clock.now()

    def use(self, credentials: Credentials) -> None:
        """Signs with this key from now on."""
        key_id, secret = credentials.key_id, credentials.secret_bytes
        self._signer = Signer(key_id, secret, self._clock.wall, self._entropy)

    def run(self, call: Call[Any], on_end: Callable[[Any], None]) -> None:
        """Carries a call out. on_end gets its result, or the KeyplaneError it ended with."""
        try:
            step = call.next(self.now)
        except KeyplaneError as error:
            on_end(error)
            return
        if isinstance(step, Wait):
            self._clock.call_later(step.seconds, lambda: self.run(call, on_end))
            return
        for router in step.probes:
            self._probe(router)

        def on_reply(reply: Reply) -> None:
            try:
                if reply.error is not None:
                    call.failed(self.now, reply.error)
                elif call.answered(self.now, call.method.response_type.FromString(reply.payload)):
                    on_end(call.result)
                    return
            except KeyplaneError as error:
                on_end(error)
                return
            self.run(call, on_end)

        path, payload = call.method.path, call.request.SerializeToString()
        fields = () if self._signer is None else ((HEADER, self._signer.value(path, payload)),)
        self._transport.call(
            step.router, path, payload, self.now + step.timeout_s, on_reply, fields
        )

    def _probe(self, router: str) -> None:
        def on_reply(reply: Reply) -> None:
            healthy = reply.error is None and says_serving(reply.payload)
            self.core.pool.probed(router, healthy, self.now)

        deadline = self.now + self._config.probe_timeout_s
        self._transport.call(router, HEALTH, b"", deadline, on_reply)
