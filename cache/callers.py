"""Who may call a server, and whether a call is theirs.

A server holds every tenant and key in memory and asks nobody: what it holds is its last-known-good,
as a router's map is. Keys come in shards, each of which replaces the one before it whole.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

from cache.replays import Window
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.bucket import Bucket
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import HEADER, SigningKey, read_signature
from keyplane.model.tenants import LOCAL, Role, prefix_of
from keyplane.model.throttling import LOCAL_ACCOUNT
from wire.ports import Clock, Request

# How far a caller's clock may be off, either way: what NTP keeps to with room for a bad day, and
# the time for which a call could be sent again were it not remembered.
CLOCK_SKEW_S: Final = 30.0

# Signers that one key, and all keys of a server together, may have within that time. A client
# object is one signer.
SIGNERS_PER_KEY_MAX: Final = 1_024
SIGNERS_MAX: Final = 32_768


class Tenant:
    """One as a server knows it, over changes of its record.

    prefix: of its table names inside the cluster. in_flight: its requests being worked on.
    is_limited: whether there is a limit on its requests or connections.
    requests: what is left of its requests a second; None without a limit. peers: when each of its
    connections was last heard of, by address; kept only where there is a limit on them. refusals:
    what reads and writes past `requests` are told, once there was one. version: of what was last
    heard of it. begun, throttled: requests so far that were let in, and those that a limit refused.
    """

    __slots__ = (
        *("account", "active", "connections_max", "in_flight", "is_limited", "limits", "peers"),
        "prefix",
        *("begun", "refusals", "requests", "tenant_id", "throttled", "version"),
    )

    def __init__(self, tenant_id: str, account: str) -> None:
        self.tenant_id = tenant_id
        self.prefix = prefix_of(tenant_id)
        self.account = account
        self.active = True
        self.limits = pb.TenantLimits()
        self.is_limited = False
        self.connections_max = 0
        self.requests: Bucket | None = None
        self.in_flight = 0
        self.peers: dict[str, float] = {}
        self.refusals: tuple[KeyplaneError, KeyplaneError] | tuple[()] = ()
        self.version = 0
        self.begun = 0
        self.throttled = 0

    def update(self, tenant: pb.Tenant, now: float) -> None:
        self.refusals = ()
        self.account = tenant.account
        self.active = tenant.state != pb.TENANT_STATE_SUSPENDED
        if self.limits == tenant.limits:
            return
        self.limits = tenant.limits
        self.connections_max = tenant.limits.connections
        self.is_limited = bool(tenant.limits.connections or tenant.limits.requests_per_second)
        self.peers.clear()
        rate = float(tenant.limits.requests_per_second)
        if not rate:
            self.requests = None
        elif self.requests is None or self.requests.rate != rate:
            # One second is saved up.
            self.requests = Bucket(rate, rate, now)


class Caller:
    """One key of a user. signers: those that have used it lately. revoked: it is nobody's now."""

    __slots__ = ("_key", "key_id", "revoked", "role", "secret", "signers", "tenant", "user")

    def __init__(self, key_id: str, secret: bytes, tenant: Tenant, user: str, role: int) -> None:
        self.key_id = key_id
        self.secret = secret
        self.tenant = tenant
        self.user = user
        self.role = role
        self.signers: dict[bytes, Window] = {}
        self.revoked = False
        self._key: SigningKey | None = None

    @property
    def key(self) -> SigningKey:
        found = self._key
        if found is None:
            # Made at first use: of many thousand keys few are used at one server.
            found = self._key = SigningKey(self.secret)
        return found

    def require(self, role: int, what: str) -> None:
        """Raises KeyplaneError(ROLE_NOT_ALLOWED)."""
        if self.role < role:
            raise self._not_allowed(role, what)

    def _not_allowed(self, role: int, what: str) -> KeyplaneError:
        needed, has = Role(role).name, Role(self.role).name
        remedy = (
            "use the operator's key, which is the cluster's own"
            if role == Role.OPERATOR
            else f"have a user of {needed} do it, or create one: keyplane user create"
        )
        return KeyplaneError(
            Reason.ROLE_NOT_ALLOWED,
            f"{what} takes the role {needed}, and user {self.user!r} has {has}; {remedy}",
        )


def operator(secret: bytes = b"", key_id: str = "") -> Caller:
    """The operator of the cluster; without a secret, whoever calls a server that asks for none."""
    return Caller(key_id, secret, Tenant(LOCAL, LOCAL_ACCOUNT), "operator", int(Role.OPERATOR))


class Callers:
    """All keys that a server knows, and the check of a call against them."""

    def __init__(self, clock: Clock, operator: Caller, skew_s: float = CLOCK_SKEW_S) -> None:
        """operator: the one caller that is known from the start."""
        self._clock = clock
        self._skew_ms = int(skew_s * 1000)
        # By key id, as it is on the wire.
        self._by_key: dict[bytes, Caller] = {operator.key_id.encode(): operator}
        self._tenants: dict[str, Tenant] = {}
        # Key ids and tenants by shard: what the next value of the shard replaces.
        self._shards: dict[int, tuple[list[bytes], list[str]]] = {}
        # Whether all tenants have been heard of, so that a key that is not known is none.
        self.complete = True
        self._signers = 0
        self._swept_at_ms = 0

    def __len__(self) -> int:
        """Keys, the operator's too."""
        return len(self._by_key)

    @property
    def tenants(self) -> list[Tenant]:
        return list(self._tenants.values())

    def install(self, number: int, shard: pb.TenantShard) -> None:
        """Takes a shard over in the place of the one before it."""
        before_keys, before_tenants = self._shards.get(number, ([], []))
        now = self._clock.now()
        keys: list[bytes] = []
        tenants: list[str] = []
        for access in shard.tenants:
            tenant_id = access.tenant.tenant_id
            tenant = self._tenants.get(tenant_id)
            if tenant is None:
                tenant = self._tenants[tenant_id] = Tenant(tenant_id, access.tenant.account)
            tenant.version = shard.version
            tenant.update(access.tenant, now)
            tenants.append(tenant_id)
            for user in access.users:
                for key in user.keys:
                    self._put(key, tenant, user)
                    keys.append(key.key_id.encode())
        for key_id in set(before_keys) - set(keys):
            self._revoke(self._by_key.pop(key_id))
        for tenant_id in set(before_tenants) - set(tenants):
            del self._tenants[tenant_id]
        self._shards[number] = (keys, tenants)

    def _put(self, key: pb.SigningKey, tenant: Tenant, user: pb.TenantUser) -> None:
        key_id = key.key_id.encode()
        held = self._by_key.get(key_id)
        if held is None or held.secret != key.secret:
            if held is not None:
                self._revoke(held)
            self._by_key[key_id] = Caller(key.key_id, key.secret, tenant, user.name, int(user.role))
        else:
            # The same object, since it knows the calls it has seen.
            held.tenant, held.user, held.role = tenant, user.name, int(user.role)

    def _revoke(self, caller: Caller) -> None:
        # Connections that it has sealed still name it.
        caller.revoked = True
        self._signers -= len(caller.signers)

    def seal_key(self, key_id: bytes) -> tuple[Caller, bytes] | None:
        """See `wire.ports.SealKeys`."""
        caller = self._by_key.get(key_id)
        return None if caller is None else (caller, caller.secret)

    def authenticate(self, request: Request) -> Caller:
        """Whose call it is. A signature on it counts more than the seal of its connection.

        Raises KeyplaneError: MISSING_CREDENTIALS, UNKNOWN_KEY, BAD_SIGNATURE, SIGNATURE_EXPIRED,
        REPLAYED, TENANT_SUSPENDED; OVERLOADED past the bounds on signers; NOT_SERVING for a key
        that is not known before all are.
        """
        value = request.authorization
        if not value:
            if request.metadata:
                value = request.metadata.get(HEADER, "").encode()
            if not value:
                return _sealing(request)
        signature = read_signature(value)
        caller = self._by_key.get(signature.key_id)
        if caller is None:
            raise _unknown() if self.complete else _uninformed()
        mac = caller.key.mac(signature.head, request.method, request.payload)
        if not compare_digest(mac, signature.mac):
            raise _bad()
        now_ms = int(self._clock.wall() * 1000.0)
        signed_at_ms = signature.signed_at_ms
        age_ms = now_ms - signed_at_ms
        if age_ms > self._skew_ms or age_ms < -self._skew_ms:
            raise self._expired(age_ms)
        window = caller.signers.get(signature.signer)
        if window is None:
            window = self._new_signer(caller, signature.signer, now_ms)
        if not window.admit(signature.sequence, signed_at_ms):
            raise _replayed()
        if not caller.tenant.active:
            raise _suspended(caller)
        return caller

    def _new_signer(self, caller: Caller, signer: bytes, now_ms: int) -> Window:
        signers = caller.signers
        if len(signers) >= SIGNERS_PER_KEY_MAX or self._signers >= SIGNERS_MAX:
            self._sweep(now_ms)
            if len(signers) >= SIGNERS_PER_KEY_MAX or self._signers >= SIGNERS_MAX:
                raise _too_many()
        window = signers[signer] = Window()
        self._signers += 1
        return window

    def _sweep(self, now_ms: int) -> None:
        """Forgets signers whose calls are all too old. Once a second at most: it looks at all."""
        if -1_000 < now_ms - self._swept_at_ms < 1_000:
            return
        self._swept_at_ms = now_ms
        oldest_ms = now_ms - self._skew_ms
        count = 0
        for caller in self._by_key.values():
            signers = caller.signers
            for signer in [each for each, w in signers.items() if w.latest_ms < oldest_ms]:
                del signers[signer]
            count += len(signers)
        self._signers = count

    def _expired(self, age_ms: int) -> KeyplaneError:
        when = "ago" if age_ms > 0 else "ahead"
        return KeyplaneError(
            Reason.SIGNATURE_EXPIRED,
            f"the call was signed {abs(age_ms) / 1000:.1f} s {when} by this server's clock, and at"
            f" most {self._skew_ms / 1000:g} s are allowed; set the caller's clock (NTP), and sign"
            " each attempt anew",
            metadata={"skew_ms": str(age_ms)},
        )


def _sealing(request: Request) -> Caller:
    """Who has sealed the connection that a call without a signature came on."""
    caller = request.sealed_by
    if caller is None:
        raise _missing()
    assert isinstance(caller, Caller)
    if caller.revoked:
        raise _unknown()
    if not caller.tenant.active:
        raise _suspended(caller)
    return caller


def _missing() -> KeyplaneError:
    return KeyplaneError(
        Reason.MISSING_CREDENTIALS,
        "this server takes signed calls only; give the client credentials, or set KEYPLANE_KEY_ID"
        " and KEYPLANE_SECRET",
    )


def _unknown() -> KeyplaneError:
    return KeyplaneError(
        Reason.UNKNOWN_KEY,
        "no user has this key; it may have been rotated or deleted. Routers hear of a new key"
        " within two seconds",
    )


def _uninformed() -> KeyplaneError:
    return KeyplaneError(
        Reason.NOT_SERVING,
        "this server has not heard of all tenants yet; try another, or again in a second",
        retry_after_s=0.25,
    )


def _bad() -> KeyplaneError:
    return KeyplaneError(
        Reason.BAD_SIGNATURE,
        "the signature is not that of this call under this key; check the secret, and that nothing"
        " between caller and server changes calls",
    )


def _replayed() -> KeyplaneError:
    return KeyplaneError(
        Reason.REPLAYED,
        "a call with this signature has been seen before, or thousands of later calls of its client"
        " were faster; sign each attempt anew",
    )


def _suspended(caller: Caller) -> KeyplaneError:
    return KeyplaneError(
        Reason.TENANT_SUSPENDED,
        f"tenant {caller.tenant.tenant_id!r} is suspended; the operator can resume it",
    )


def _too_many() -> KeyplaneError:
    return KeyplaneError(
        Reason.OVERLOADED,
        f"more than {SIGNERS_PER_KEY_MAX:,} clients use this key within a minute; keep a client and"
        " use it again, or give them several keys",
        retry_after_s=1.0,
    )
