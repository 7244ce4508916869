"""Bugs of tenants: who is let in, and to what."""

from __future__ import annotations

from cache.callers import Caller, Callers, Tenant
from cache.tenant_keeper import TenantKeeper
from metadata.access import Access, qualified, sees
from metadata.handlers.dispatch import Dispatcher
from router.context import RouterContext
from router.core import RouterCore
from router.tenant_limits import over_limit
from sim.mutants.mutant import Mutant
from sim.mutants.patch import Edit

TENANTS: tuple[Mutant, ...] = (
    Mutant(
        "signature-not-checked",
        "A server looks at who is said to have signed a call, and not at the signature.",
        ("I13",),
        (Edit(Callers.authenticate, "if not compare_digest(mac, signature.mac):", "if False:"),),
    ),
    Mutant(
        "replay-window-not-kept",
        "A server takes a call that it has seen before.",
        ("I13",),
        (
            Edit(
                Callers.authenticate,
                "if not window.admit(signature.sequence, signed_at_ms):",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "windows-lost-with-a-shard",
        "What has been seen of a key's calls is forgotten when anything changes about tenants.",
        ("I13",),
        (Edit(Callers._put, "if held is None or held.secret != key.secret:", "if True:"),),
    ),
    Mutant(
        "expired-taken",
        "A server does not mind when a call was signed.",
        ("I13",),
        (
            Edit(
                Callers.authenticate,
                "if age_ms > self._skew_ms or age_ms < -self._skew_ms:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "signed-ahead-taken",
        "A call may be signed for any time to come.",
        ("I13",),
        (Edit(Callers.authenticate, " or age_ms < -self._skew_ms:", ":"),),
    ),
    Mutant(
        "suspended-served",
        "Whoever has a key is served, suspended or not.",
        ("I13",),
        (Edit(Callers.authenticate, "if not caller.tenant.active:", "if False:"),),
    ),
    Mutant(
        "suspension-taken-for-no-change",
        "Of a tenant whose limits are the same nothing else is taken over.",
        ("I13",),
        (
            Edit(
                Tenant.update,
                "    self.active = tenant.state != pb.TENANT_STATE_SUSPENDED\n"
                "    if self.limits == tenant.limits:\n"
                "        return\n",
                "    if self.limits == tenant.limits:\n"
                "        return\n"
                "    self.active = tenant.state != pb.TENANT_STATE_SUSPENDED\n",
            ),
        ),
    ),
    Mutant(
        "table-not-qualified",
        "A router looks a table up by the name that its caller gives it.",
        ("I13",),
        (
            Edit(
                RouterContext.known,
                "self.tables.find(prefix + name if prefix else name)",
                "self.tables.find(name) or self.tables.find(prefix + name)",
            ),
            Edit(RouterContext.known, " or known.prefix != prefix", ""),
        ),
    ),
    Mutant(
        "searched-without-its-tenant",
        "A table that a router does not know yet is searched for by the name its caller gives it.",
        ("I5",),
        (
            Edit(
                RouterContext._find_table,
                "name = exchange.caller.tenant.prefix + name",
                "pass",
            ),
        ),
    ),
    Mutant(
        "older-shard-accepted",
        "A router takes over what it reads of tenants, newer or older.",
        ("I13",),
        (
            Edit(
                TenantKeeper.offer,
                "if shard.version <= self._versions[number]:",
                "if shard.version == self._versions[number]:",
            ),
        ),
    ),
    Mutant(
        "tenants-not-adopted",
        "A router that starts does not take tenants over from its snapshot.",
        ("I13",),
        (Edit(RouterCore.start, "self._tenants.adopt(snapshot.tenants)", "pass"),),
    ),
    Mutant(
        "shards-read-in-part",
        "Once a router knows all shards it only looks at the first ones again.",
        ("liveness", "I13"),
        (Edit(TenantKeeper.due, "(self._next + 1) % SHARDS", "(self._next + 1) % 2"),),
    ),
    Mutant(
        "role-not-checked",
        "A user may do whatever its role.",
        ("I13",),
        (Edit(Caller.require, "if self.role < role:", "if False:"),),
    ),
    Mutant(
        "request-limit-not-kept",
        "A router looks at what is left of a tenant's requests, and takes nothing for one.",
        ("I13",),
        (Edit(over_limit, "bucket.take(1.0)", "pass"),),
    ),
    Mutant(
        "revoked-key-kept",
        "A key that is no more in what a router reads is left as it was.",
        ("I13",),
        (
            Edit(
                Callers.install,
                "for key_id in set(before_keys) - set(keys):",
                "for key_id in set[bytes]():",
            ),
        ),
    ),
    Mutant(
        "store-asks-for-no-signature",
        "The Metadata Store takes whoever calls it for the operator.",
        ("I13",),
        (Edit(Access.caller, "if not self._required:", "if True:"),),
    ),
    Mutant(
        "store-does-not-look-at-roles",
        "The Metadata Store does what any user asks of it.",
        ("I13",),
        (
            Edit(
                Dispatcher.register,
                'caller.require(handling.role, method.rpartition("/")[2])',
                "pass",
            ),
        ),
    ),
    Mutant(
        "lists-what-is-others",
        "The Metadata Store shows everybody all tables.",
        ("I13",),
        (
            Edit(
                sees,
                "caller.role == Role.OPERATOR or tenant_of(table) == caller.tenant.tenant_id",
                "True",
            ),
        ),
    ),
    Mutant(
        "tables-of-others-named",
        "The Metadata Store lets anybody name a table with its tenant, as the operator may.",
        ("I13",),
        (
            Edit(
                qualified,
                "caller.role == Role.OPERATOR and SEPARATOR in table",
                "SEPARATOR in table",
            ),
        ),
    ),
    Mutant(
        "tenants-told-once",
        "The Metadata Store tells servers of tenants as they were when it started.",
        ("liveness", "I13"),
        (Edit(Access.shards, " or self._shards[0].version != version", ""),),
    ),
)
