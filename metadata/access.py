"""Who calls the Metadata Store, what they may name, and what routers are told of tenants."""

from __future__ import annotations

from collections.abc import Sequence

from cache.callers import Caller, Callers, operator
from keyplane.catalog.v1 import catalog_pb2 as catalog_pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import validate_table_name
from keyplane.model.tenants import LOCAL, SEPARATOR, Role, tenant_of, validate_tenant_id
from keyplane.model.vault import Vault
from metadata.catalog import Catalog
from metadata.tenants import make_shards
from wire.ports import Clock, Request


class Access:
    """Follows the tenants of the catalog."""

    def __init__(self, clock: Clock, vault: Vault | None, required: bool) -> None:
        """vault: None for a store that was given no cluster secret. required: calls are signed;
        otherwise every caller is the operator. Raises KeyplaneError(NO_CLUSTER_SECRET).
        """
        if required and vault is None:
            raise no_secret("to verify signatures")
        self._vault = vault
        self._required = required
        own = operator()
        if vault is not None:
            own = operator(vault.operator_secret, vault.operator.key_id)
        self._operator = own
        self._callers = Callers(clock, own)
        self._catalog = Catalog()
        self._shards: list[catalog_pb.TenantShard] = []

    @property
    def vault(self) -> Vault:
        """Raises KeyplaneError(NO_CLUSTER_SECRET)."""
        if self._vault is None:
            raise no_secret("to keep the keys of users")
        return self._vault

    def open(self, catalog: Catalog) -> None:
        """Looks at this catalog from here on.

        Raises KeyplaneError(CORRUPT) if its keys were sealed under another cluster's secret.
        """
        self._catalog = catalog
        self._shards = []
        self.shards()

    def shards(self) -> Sequence[catalog_pb.TenantShard]:
        """What servers are told, by number; nothing without a secret to seal it with."""
        if self._vault is None:
            return ()
        version = self._catalog.counters.tenants
        if not self._shards or self._shards[0].version != version:
            self._shards = make_shards(self._catalog.tenants.values(), version, self._vault)
            for number, shard in enumerate(self._shards):
                self._callers.install(number, shard)
        return self._shards

    def caller(self, request: Request) -> Caller:
        """Whose call it is. Raises KeyplaneError as `Callers.authenticate`."""
        if not self._required:
            return self._operator
        self.shards()
        return self._callers.authenticate(request)


def qualified(caller: Caller, table: str) -> str:
    """The name inside the cluster of what a caller names.

    The operator may name a tenant's as `tenant/table`. Raises KeyplaneError(INVALID_ARGUMENT).
    """
    if caller.role == Role.OPERATOR and SEPARATOR in table:
        tenant_id, _, name = table.partition(SEPARATOR)
        validate_tenant_id(tenant_id)
        validate_table_name(name)
        return name if tenant_id == LOCAL else table
    validate_table_name(table)
    return caller.tenant.prefix + table


def sees(caller: Caller, table: str) -> bool:
    """Whether a table, by its name inside the cluster, is a caller's to look at."""
    return caller.role == Role.OPERATOR or tenant_of(table) == caller.tenant.tenant_id


def shown(caller: Caller, table: str) -> str:
    """What a caller knows a table as."""
    return table if caller.role == Role.OPERATOR else table.rpartition(SEPARATOR)[2]


def no_secret(purpose: str) -> KeyplaneError:
    return KeyplaneError(
        Reason.NO_CLUSTER_SECRET,
        f"the cluster's secret is needed {purpose}; start this server with --cluster-secret-file",
    )
