"""What the operator does about tenants: makes them, gives out keys, rotates these, suspends.

Each tenant has two users, `app` (writes), whose key its clients sign with, and `reader`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.credentials import Credentials
from sim.held import HeldTenants
from sim.topology import TenantSpec
from sim.world import World

if TYPE_CHECKING:
    from sim.operator import Operator

TENANT_SERVICE = "/keyplane.metadata.v1.TenantService/"

APP, READER = "app", "reader"
_ROLES = {APP: catalog.ROLE_WRITE, READER: catalog.ROLE_READ}

# A tenant is suspended for one second and up to so many more.
_SUSPENDED_S = 3.0

# Rotations past this share take the keys before away.
_REVOKED = 0.7


class Tenancy:
    """keys: every key that a user of a tenant was ever given, the newest last.

    on_key: told of a tenant's user and its key when it is time to use it.
    """

    def __init__(self, world: World, operator: Operator) -> None:
        self._world = world
        self._operator = operator
        self._names = [spec.name for spec in world.topology.tenants]
        # What has been begun and has not come to an end.
        self._pending = 0
        # The place among a user's keys of the one in use.
        self._in_use: dict[tuple[str, str], int] = {}
        self._held = HeldTenants(world) if self._names else None
        self.keys: dict[tuple[str, str], list[Credentials]] = {}
        self.on_key: list[Callable[[str, str, Credentials], None]] = []

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and everybody uses the newest key."""
        return not self._pending

    def begin(self) -> None:
        """Makes all tenants and users."""
        for spec in self._world.topology.tenants:
            self._create(spec)

    def settle(self) -> None:
        """Once faults have ended: whoever is suspended is resumed, and has a key that is good."""
        for name in self._names:
            self._ask("ResumeTenant", pb.ResumeTenantRequest(tenant_id=name))
        self.rotate_all()

    def rotate_all(self) -> None:
        """Every user's key, so that nobody who uses the newest notices."""
        for name in self._names:
            for user in _ROLES:
                self._rotate(name, user, revoke_others=False)

    def rotate(self, first: float, second: float) -> None:
        """Of one of the tenants' users, by numbers of [0, 1). Some of the time what it had
        before is revoked at once.
        """
        user = READER if int(first * 1_000_000) % 3 == 0 else APP
        self._rotate(self._choose(first), user, revoke_others=second > _REVOKED)

    def suspend(self, first: float, second: float) -> None:
        """One of the tenants, for a while."""
        name = self._choose(first)

        def resume() -> None:
            self._pending -= 1
            self._ask("ResumeTenant", pb.ResumeTenantRequest(tenant_id=name))

        def suspended(_: bytes) -> None:
            self._pending += 1
            self._world.scheduler.after(1.0 + _SUSPENDED_S * second, resume)

        self._ask("SuspendTenant", pb.SuspendTenantRequest(tenant_id=name), suspended)

    def known_to_routers(self) -> bool:
        """Whether every router knows every tenant and key, and none that is no more."""
        if self._held is None:
            return True
        truth = self._held.true_keys()
        return all(
            self._world.has_booted(name) and self._held.keys(self._held.values(name)) == truth
            for name in self._world.routers
        )

    def _choose(self, number: float) -> str:
        return self._names[int(number * len(self._names))]

    def _create(self, spec: TenantSpec) -> None:
        limits = catalog.TenantLimits(requests_per_second=spec.requests or None)

        def created(_: bytes) -> None:
            for user, role in _ROLES.items():
                request = pb.CreateUserRequest(tenant_id=spec.name, name=user, role=role)
                self._ask_key(spec.name, user, "CreateUser", request, 0.0)

        request = pb.CreateTenantRequest(tenant_id=spec.name, limits=limits)
        self._ask("CreateTenant", request, created)

    def _rotate(self, tenant: str, user: str, revoke_others: bool) -> None:
        request = pb.RotateKeyRequest(tenant_id=tenant, name=user, revoke_others=revoke_others)
        wait_s = 0.0 if revoke_others else self._world.topology.tenants_heard_s
        self._ask_key(tenant, user, "RotateKey", request, wait_s)

    def _ask_key(
        self, tenant: str, user: str, method: str, request: Message, wait_s: float
    ) -> None:
        """wait_s: from when the key is there until it is used: while the one before is good still,
        routers hear of it.
        """

        def taken(answer: bytes) -> None:
            # The responses of both have one shape.
            new = pb.RotateKeyResponse.FromString(answer).key
            credentials = Credentials(new.key_id, new.secret)
            keys = self.keys.setdefault((tenant, user), [])
            keys.append(credentials)
            number = len(keys)
            self._pending += 1

            def use() -> None:
                self._pending -= 1
                if number > self._in_use.get((tenant, user), 0):
                    self._in_use[tenant, user] = number
                    for tell in self.on_key:
                        tell(tenant, user, credentials)

            self._world.scheduler.after(wait_s, use)

        self._ask(method, request, taken)

    def _ask(
        self, method: str, request: Message, on_taken: Callable[[bytes], None] = lambda _: None
    ) -> None:
        self._pending += 1

        def ended(answer: bytes | None) -> None:
            self._pending -= 1
            if answer is not None:
                on_taken(answer)

        self._operator.ask(
            method, request, ended, service=TENANT_SERVICE, on_refused=lambda: ended(None)
        )
