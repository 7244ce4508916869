"""Somebody who wishes tenants ill: overhears calls to routers and sends them again, alters and
forges some, and has keys of a reader of each tenant, and every key that was ever taken from a user.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from keyplane.data.v1 import data_pb2 as data
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.credentials import Credentials
from keyplane.model.signature import HEADER, KEY_ID_CHARS, SECRET_BYTES, Signer
from keyplane.model.vault import OPERATOR_KEY_ID
from sim.network import SimCall, Tap
from sim.process import SimProcess, address_of
from sim.tenancy import READER, TENANT_SERVICE, Tenancy
from sim.topology import METADATA
from sim.world import World
from wire.ports import Reply

INTRUDER = "intruder"

# Mean virtual seconds between two attempts.
_PAUSE_S = 0.2
_TIMEOUT_S = 2.0

# Calls that are remembered.
_OVERHEARD_MAX = 64

_DATA = "/keyplane.data.v1.DataService/"
_GET = _DATA + "GetItem"
_PUT = _DATA + "PutItem"
_STORE = "/keyplane.metadata.v1.MetadataService/"
_READS = (_GET, _DATA + "BatchGetItem", _DATA + "Query", _DATA + "Scan")

# Seconds by which clocks that sign for another time are off: more than a server may take.
_OFF_S = (45.0, 70.0, 600.0)


@dataclass(frozen=True, slots=True)
class _Overheard:
    """A call that a router answered, in the life that it was in."""

    server: SimProcess
    method: str
    payload: bytes
    header: str


class Intruder(Tap):
    """Tries something at moments and in ways of its own chance. Only in a world with tenants."""

    def __init__(self, world: World, tenancy: Tenancy) -> None:
        self._world = world
        self._tenancy = tenancy
        self._tenants = [spec.name for spec in world.topology.tenants]
        if not self._tenants:
            return
        self._rng = world.rng_of(INTRUDER)
        self._process = world.new_process(INTRUDER)
        self._transport = world.transport(self._process)
        self._overheard: deque[_Overheard] = deque(maxlen=_OVERHEARD_MAX)
        self._signers: dict[tuple[Credentials, float], Signer] = {}
        self._tries: tuple[Callable[[], None], ...] = (
            *(self._replay, self._alter, self._forge, self._mistime),
            *(self._use_old_key, self._name_others_table, self._write_as_reader),
            self._ask_the_store,
        )
        world.network.tap(self)

    def start(self) -> None:
        """Goes on to the end of the world."""
        if self._tenants:
            self._world.scheduler.after(self._rng.expovariate(1.0 / _PAUSE_S), self._try)

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        """What was refused is not worth anything: a server may take it later, for the first time,
        and nobody can tell that from a message that was long on its way.
        """
        header = call.metadata.get(HEADER)
        if header is None or reply.error is not None or call.source is self._process:
            return
        if call.method.startswith(_DATA):
            self._overheard.append(_Overheard(server, call.method, call.payload, header))

    def _try(self) -> None:
        self._rng.choice(self._tries)()
        self.start()

    # --- what it tries --------------------------------------------------------------------------

    def _replay(self) -> None:
        """A call that was answered, once more: at the same router in the same life, which has to
        know it; a read somewhere else, too, where it is taken once.
        """
        if not self._overheard:
            return
        chosen = self._rng.choice(self._overheard)
        router = chosen.server.name
        if not chosen.server.alive:
            if chosen.method not in _READS:
                return
            router = self._router()
        self._send(router, chosen.method, chosen.payload, chosen.header)

    def _alter(self) -> None:
        """Another message, or another number, under the signature of a read."""
        reads = [each for each in self._overheard if each.method == _GET]
        if not reads:
            return
        chosen = self._rng.choice(reads)
        request = data.GetItemRequest.FromString(chosen.payload)
        request.consistent_read = not request.consistent_read
        packed = bytearray(b64decode(chosen.header[KEY_ID_CHARS + 1 :]))
        # Its number, so that it has not been seen.
        packed[16:24] = self._rng.randrange(1 << 20, 1 << 21).to_bytes(8, "big")
        header = chosen.header[: KEY_ID_CHARS + 1] + b64encode(packed).decode()
        self._send(chosen.server.name, _GET, request.SerializeToString(), header)

    def _forge(self) -> None:
        """A read without a signature, or with the operator's key id and a secret of its own."""
        rng, tenant = self._rng, self._tenant()
        payload = self._get(rng.choice((f"{tenant}/orders", "orders")), tenant)
        header = None
        if rng.random() < 0.5:
            secret, wall = rng.randbytes(SECRET_BYTES), self._process.clock.wall
            header = Signer(OPERATOR_KEY_ID, secret, wall, rng.randbytes).value(_GET, payload)
        self._send(self._router(), _GET, payload, header)

    def _mistime(self) -> None:
        """A read signed for a time long ago, or to come."""
        off_s = self._rng.choice(_OFF_S) * self._rng.choice((-1.0, 1.0))
        tenant = self._tenant()
        credentials = self._reader(tenant)
        if credentials is not None:
            self._sign_and_send(credentials, _GET, self._get("orders", tenant), off_s)

    def _use_old_key(self) -> None:
        """A read with one of a user's keys, most of which are gone."""
        tenant, user = self._rng.choice(sorted(self._tenancy.keys))
        credentials = self._rng.choice(self._tenancy.keys[tenant, user])
        self._sign_and_send(credentials, _GET, self._get("orders", tenant))

    def _name_others_table(self) -> None:
        """A read of another tenant's table, by whatever name it might have."""
        own, other = self._rng.sample(self._tenants, 2)
        table = self._rng.choice((f"{other}/orders", f"{own}/orders", "/orders", "orders"))
        credentials = self._reader(own)
        if credentials is not None:
            self._sign_and_send(credentials, _GET, self._get(table, own))

    def _write_as_reader(self) -> None:
        credentials = self._reader(self._tenant())
        if credentials is not None:
            request = data.PutItemRequest(table="orders")
            request.item.attributes["id"].s = "intruder"
            request.item.attributes["at"].n = "0"
            self._sign_and_send(credentials, _PUT, request.SerializeToString())

    def _ask_the_store(self) -> None:
        """The Metadata Store for what only the operator may have, unsigned or as a reader; or for
        all tables that there are.
        """
        rng = self._rng
        own, other = rng.sample(self._tenants, 2)
        method, request = rng.choice(
            (
                (_STORE + "ListTables", metadata.ListTablesRequest()),
                (_STORE + "DescribeTable", metadata.DescribeTableRequest(table=f"{other}/orders")),
                (_STORE + "SplitPartition", metadata.SplitPartitionRequest(table=f"{own}/orders")),
                (TENANT_SERVICE + "ListUsers", metadata.ListUsersRequest(tenant_id=other)),
                (TENANT_SERVICE + "ListTenants", metadata.ListTenantsRequest()),
            )
        )
        payload, credentials = request.SerializeToString(), None
        if rng.random() < 0.8:
            credentials = self._reader(own)
        header = None
        if credentials is not None:
            header = self._signer(credentials, 0.0).value(method, payload)
        self._send(METADATA, method, payload, header)

    # --- helpers --------------------------------------------------------------------------------

    def _tenant(self) -> str:
        return self._rng.choice(self._tenants)

    def _router(self) -> str:
        return self._rng.choice(self._world.topology.router_names())

    def _reader(self, tenant: str) -> Credentials | None:
        """A key that a reader of the tenant was given, often its newest."""
        keys = self._tenancy.keys.get((tenant, READER), [])
        if not keys:
            return None
        return keys[-1] if self._rng.random() < 0.7 else self._rng.choice(keys)

    def _get(self, table: str, tenant: str) -> bytes:
        """Of a table that one of the tenant's users names so. It knows how keys look."""
        inside = table if "/" in table else f"{tenant}/{table}"
        request = data.GetItemRequest(table=table, consistent_read=True)
        request.key.attributes["id"].s = f"k{self._rng.randrange(4)}"
        if any(spec.sorted for spec in self._world.topology.tables if spec.name == inside):
            request.key.attributes["at"].n = str(self._rng.randrange(4))
        return request.SerializeToString()

    def _sign_and_send(
        self, credentials: Credentials, method: str, payload: bytes, off_s: float = 0.0
    ) -> None:
        header = self._signer(credentials, off_s).value(method, payload)
        self._send(self._router(), method, payload, header)

    def _signer(self, credentials: Credentials, off_s: float) -> Signer:
        signer = self._signers.get((credentials, off_s))
        if signer is None:
            clock = self._process.clock
            signer = self._signers[credentials, off_s] = Signer(
                credentials.key_id,
                credentials.secret_bytes,
                lambda: clock.wall() + off_s,
                self._rng.randbytes,
            )
        return signer

    def _send(self, server: str, method: str, payload: bytes, header: str | None) -> None:
        self._transport.call(
            address_of(server),
            method,
            payload,
            self._process.clock.now() + _TIMEOUT_S,
            lambda _: None,
            () if header is None else ((HEADER, header),),
        )
