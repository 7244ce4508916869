"""I13: routers answer those who may call, and only about what is theirs.

Every data call that a router answered was signed by a key that it held, of a tenant that it did
not hold for suspended; was neither old nor seen before in that life; had the role it takes; and
reached partitions and values of its own tenant alone. What a router holds of tenants only gets
newer, and is the newest in time where nothing is wrong. No tenant makes more requests than it may
at one router. The Metadata Store answers the operator, and users who look at what is theirs.

Signatures, times and rates are reckoned here anew; keys are known from the answers that gave them
out. A call can arrive twice: it is enough that one of the arrivals could be answered.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, urlsafe_b64decode
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from cache.snapshot import decode_snapshot
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.vault import OPERATOR_KEY_ID
from keyplane.storage.v1 import storage_pb2 as storage
from router.snapshots import FILE
from sim.held import HeldKey, HeldTenants
from sim.intruder import INTRUDER
from sim.network import SimCall
from sim.observers.base import Observer
from sim.observers.one_owner import EXECUTE
from sim.process import SimProcess
from sim.topology import METADATA
from sim.world import World
from wire.ports import Reply

_TENANT_SERVICE = "/keyplane.metadata.v1.TenantService/"
_CREATE, _ROTATE = f"{_TENANT_SERVICE}CreateUser", f"{_TENANT_SERVICE}RotateKey"
_STORE = "/keyplane.metadata.v1.MetadataService/"
_LIST = f"{_STORE}ListTables"
_LOOKS = (_LIST, f"{_STORE}DescribeTable")
_DATA = "/keyplane.data.v1.DataService/"
_WRITES = tuple(_DATA + name for name in ("PutItem", "DeleteItem", "BatchWriteItem"))
_WRITE_ROLE = 2

_HEADER = "keyplane-authorization"
_KEY_ID_CHARS = 20
_FORMAT = b"1"
_SIGNED_BYTES, _MAC_BYTES = 24, 18
_SKEW_S = 30.0

# Who wrote a value, as it begins (`sim.lane`).
_WRITER = re.compile(rb"(client-\d+)/\d+#")

# Of the request that empties a bucket, and of one moment.
_SLACK = 1.5


@dataclass(frozen=True, slots=True)
class _Key:
    secret: bytes
    tenant: str


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A call at a router. at, wall: by the router's clock. held: values of tenants."""

    server: SimProcess
    at: float
    wall: float
    held: tuple[bytes, ...]


@dataclass(slots=True)
class _Life:
    """What one life of a router has done. versions: of shards it held. seen: what it has answered:
    key id, signer and number. answered: when calls arrived that it answered, by tenant.
    """

    versions: dict[int, int] = field(default_factory=dict)
    seen: set[tuple[str, bytes]] = field(default_factory=set)
    answered: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


class Tenants(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._held = HeldTenants(world) if world.topology.tenants else None
        self._rates = {spec.name: spec.requests for spec in world.topology.tenants if spec.requests}
        self._keys: dict[str, _Key] = {}
        self._lives: dict[SimProcess, _Life] = {}
        self._arrivals: dict[SimCall, list[_Arrival]] = {}
        # The event in which a router began to work on a call, and whose call it was.
        self._working: tuple[int, SimProcess, str] | None = None
        # Tables by the partitions that they have had.
        self._tables: dict[int, str] = {}
        # Since when each router has not held what there is; kept once nothing is wrong any more.
        self._behind: dict[SimProcess, float] = {}
        self._is_calm = False
        if self._held is not None:
            world.on_birth.append(self._on_birth)

    def on_request(self, call: SimCall, server: SimProcess) -> None:
        if self._held is None or not call.method.startswith(_DATA):
            return
        if not self.world.has_booted(server.name):
            return
        held = self._held.values(server.name)
        arrival = _Arrival(server, server.clock.now(), server.clock.wall(), held)
        self._arrivals.setdefault(call, []).append(arrival)
        self._check_versions(server, held)
        key = self._keys.get(call.metadata.get(_HEADER, "")[:_KEY_ID_CHARS])
        tenant = "" if key is None else key.tenant
        self._working = self.world.scheduler.steps, server, tenant

    def on_send(self, call: SimCall) -> None:
        """Most requests are sent on in the event in which they come."""
        if self._working is None or call.method != EXECUTE:
            return
        steps, server, tenant = self._working
        if steps != self.world.scheduler.steps or call.source is not server:
            return
        partition_id = storage.ExecuteRequest.FromString(call.payload).partition_id
        table = self._table_of(partition_id)
        if table and table.partition("/")[0] != tenant:
            self.world.violate(
                "I13",
                f"{server.name} goes to partition {partition_id} of table {table!r} for a call of"
                f" tenant {tenant!r}",
                f"p{partition_id}",
                server.name,
            )

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        if self._held is None:
            return
        if call.method in (_CREATE, _ROTATE):
            if reply.error is None:
                self._learn(call, reply)
        elif call.method.startswith(_DATA) and reply.error is None:
            arrivals = [each for each in self._arrivals.get(call, ()) if each.server is server]
            if arrivals:
                self._check_answer(self._held, call, arrivals, reply)
        if server.name == METADATA and reply.error is None:
            self._check_store(call, server, reply)

    def on_reply(self, call: SimCall, reply: Reply) -> None:
        self._arrivals.pop(call, None)

    def beat(self) -> None:
        if self._held is None:
            return
        for name in self.world.routers:
            process = self.world.process(name)
            if process is None or not self.world.has_booted(name):
                continue
            values = self._held.values(name)
            self._check_versions(process, values)
            self._check_rates(process)
            if self._is_calm and self.world.has_booted(METADATA):
                self._check_newest(self._held, process, values)

    def calm(self) -> None:
        self._is_calm = True

    # --- answers --------------------------------------------------------------------------------

    def _learn(self, call: SimCall, reply: Reply) -> None:
        # Requests and responses of both methods have one shape, but for the role.
        request = pb.RotateKeyRequest.FromString(call.payload)
        new = pb.RotateKeyResponse.FromString(reply.payload).key
        secret = urlsafe_b64decode(new.secret + "=" * (-len(new.secret) % 4))
        self._keys[new.key_id] = _Key(secret, request.tenant_id)

    def _check_answer(
        self, held: HeldTenants, call: SimCall, arrivals: list[_Arrival], reply: Reply
    ) -> None:
        """Of a call that succeeded."""
        server, header = arrivals[0].server, call.metadata.get(_HEADER, "")
        key_id = header[:_KEY_ID_CHARS]
        key = self._keys.get(key_id)
        if key is None:
            self._wrong(call, server, "under no key that anybody was given")
        packed = b64decode(header[_KEY_ID_CHARS + 1 :])
        head, mac = packed[:_SIGNED_BYTES], packed[_SIGNED_BYTES:]
        signed = _FORMAT + head + call.method.encode() + b"\0" + call.payload
        if hashlib.blake2b(signed, key=key.secret, digest_size=_MAC_BYTES).digest() != mac:
            self._wrong(call, server, "under a signature that is not its own")
        signed_at = int.from_bytes(head[:8], "big") / 1000.0
        off_s = min((abs(each.wall - signed_at) for each in arrivals), default=0.0)
        if off_s > _SKEW_S + 0.01:
            self._wrong(call, server, f"signed {off_s:.1f} s before or after it came")
        life = self._lives.setdefault(server, _Life())
        if (key_id, head[8:]) in life.seen:
            self._wrong(call, server, "for a second time")
        life.seen.add((key_id, head[8:]))
        known = [
            one
            for each in arrivals
            for one in held.keys(each.held)
            if one.key_id == key_id and one.tenant == key.tenant
        ]
        self._check_standing(call, server, known)
        for client in _writers(reply):
            if self.world.topology.tenant_of(client) != key.tenant:
                self._wrong(call, server, f"with a value of {client}, which is another tenant's")
        life.answered[key.tenant].append(arrivals[0].at)

    def _check_standing(self, call: SimCall, server: SimProcess, known: list[HeldKey]) -> None:
        """known: what the router held of the key."""
        if not known:
            self._wrong(call, server, "under a key that it has heard is no more")
        if all(each.suspended for each in known):
            self._wrong(call, server, "of a tenant that it has heard is suspended")
        if call.method in _WRITES and all(each.role < _WRITE_ROLE for each in known):
            self._wrong(call, server, "of a user who may only read")

    def _check_store(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        """The Metadata Store answers the operator, who storage nodes are, too; and users of tenants
        who look at what is theirs: nobody in these worlds may do more.
        """
        if not call.method.startswith((_STORE, _TENANT_SERVICE)):
            return
        key_id = call.metadata.get(_HEADER, "")[:_KEY_ID_CHARS]
        if key_id == OPERATOR_KEY_ID and call.source.name != INTRUDER:
            return
        key = self._keys.get(key_id)
        if key is None:
            self._wrong(call, server, "under no key that anybody was given")
        if call.method not in _LOOKS:
            self._wrong(call, server, "of a user who may only look")
        if call.method == _LIST:
            maps = self.world.metadata.core.catalog.maps
            for table in pb.ListTablesResponse.FromString(reply.payload).tables:
                if maps[table.table_id].table.name != f"{key.tenant}/{table.name}":
                    self._wrong(call, server, f"with a table that is not of tenant {key.tenant!r}")
        for tenant in self.world.topology.tenants:
            # Nobody says whose a table is.
            if tenant.name.encode() in call.payload + reply.payload:
                self._wrong(call, server, f"and the names of tenant {tenant.name!r}")

    def _wrong(self, call: SimCall, server: SimProcess, how: str) -> NoReturn:
        method = call.method.rpartition("/")[2]
        self.world.violate(
            "I13",
            f"{server.name} has answered {method} of {call.source.name}, {how}",
            server.name,
            call.source.name,
        )

    def _table_of(self, partition_id: int) -> str:
        if partition_id not in self._tables:
            for map in self.world.metadata.core.catalog.maps.values():
                for partition in map.partitions():
                    self._tables[partition.partition_id] = map.table.name
        return self._tables.get(partition_id, "")

    # --- what routers hold ----------------------------------------------------------------------

    def _on_birth(self, process: SimProcess) -> None:
        """A router starts with the tenants of its snapshot, whoever is there to tell it of any."""
        router = self.world.routers.get(process.name)
        content = None if router is None else router.disk.files.get(FILE)
        if content is None:
            return
        held = self._held.values(process.name) if self._held is not None else ()
        saved = decode_snapshot(content).tenants
        missing = [number for number, value in enumerate(saved) if value and not held[number]]
        if missing:
            self.world.violate(
                "I13",
                f"{process.name} starts without shards {missing} of tenants, which it has kept",
                process.name,
            )

    def _check_versions(self, server: SimProcess, values: tuple[bytes, ...]) -> None:
        assert self._held is not None
        versions = self._lives.setdefault(server, _Life()).versions
        for number, version in self._held.versions(values):
            if version < versions.get(number, 0):
                self.world.violate(
                    "I13",
                    f"{server.name} goes back from version {versions[number]} of the tenants in"
                    f" shard {number} to {version}",
                    server.name,
                )
            versions[number] = version

    def _check_newest(
        self, held: HeldTenants, process: SimProcess, values: tuple[bytes, ...]
    ) -> None:
        if held.keys(values) == held.true_keys():
            self._behind.pop(process, None)
            return
        since = self._behind.setdefault(process, self.world.now)
        most_s = self.world.topology.tenants_heard_s
        if self.world.now - since > most_s:
            self.world.violate(
                "I13",
                f"{process.name} has not heard within {most_s:.1f} s of a change of tenants, though"
                " nothing is wrong",
                process.name,
            )

    def _check_rates(self, process: SimProcess) -> None:
        """What was refused took nothing, nor did what failed later: so no more is let in than from
        a bucket, full at the start, from which only what was answered is taken.
        """
        life = self._lives[process]
        for tenant, rate in self._rates.items():
            left, last = float(rate), 0.0
            for at in sorted(life.answered[tenant]):
                left = min(rate, left + (at - last) * rate) - 1.0
                last = at
                if left < -_SLACK:
                    self.world.violate(
                        "I13",
                        f"{process.name} has let in more than the {rate} requests a second of"
                        f" tenant {tenant!r}",
                        process.name,
                    )


def _writers(reply: Reply) -> Iterator[str]:
    """Clients whose values are in an answer."""
    for found in set(_WRITER.findall(reply.payload)):
        yield found.decode()
