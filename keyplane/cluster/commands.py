"""The command line and environment of each kind of process."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import keyplane
from keyplane.cluster import process
from keyplane.cluster.state import Kind, Member, Paths, State
from keyplane.model.errors import KeyplaneError, Reason

# `python -m router` looks into its working directory first; the folder that holds the packages has
# no other `router` in it, which nobody can say of the user's own.
PACKAGES = Path(keyplane.__file__).resolve().parents[1]

# Megabytes a memcached node may use. A map of a million partitions takes about 40.
_MEMCACHED_MEGABYTES = 128

# Connections a memcached node accepts: a few per router, and room for tools.
_MEMCACHED_CONNECTIONS = 512

# Set for the command line, not for servers. Least of all may a router inherit the address of the
# Metadata Store.
_NOT_INHERITED = (
    *("KEYPLANE_METADATA", "KEYPLANE_ROUTERS", "KEYPLANE_HOME", "KEYPLANE_CLUSTER"),
    *("KEYPLANE_LISTEN", "KEYPLANE_ADVERTISE", "KEYPLANE_METRICS_LISTEN", "KEYPLANE_RUN_FILE"),
    # Whether a cluster takes faults is in its own record.
    "KEYPLANE_ENABLE_FAULTS",
    # As is what carries its calls.
    "KEYPLANE_TRANSPORT",
    # And whether calls are signed, and with what secret. Users' keys are no server's business.
    *("KEYPLANE_AUTH", "KEYPLANE_CLUSTER_SECRET_FILE", "KEYPLANE_KEY_ID", "KEYPLANE_SECRET"),
)


def command(member: Member, state: State, paths: Paths) -> list[str]:
    """What to run for a member. Raises KeyplaneError(MEMCACHED_MISSING)."""
    if member.kind is Kind.MEMDS:
        return _memcached(member)
    common = [
        *(sys.executable, "-m", member.kind.value),
        *("--listen", member.address),
        *("--metrics-listen", member.metrics_address),
        *("--run-file", str(paths.run_file(member.name))),
        *(["--enable-faults"] if state.enable_faults else []),
    ]
    if member.kind is Kind.GRANTER:
        return common
    common += ["--cluster", state.name, "--memds", ",".join(state.addresses(Kind.MEMDS))]
    common += ["--cluster-secret-file", str(paths.secret)]
    data = paths.data(member.name)
    match member.kind:
        case Kind.METADATA:
            url = state.database_url or f"sqlite:///{data / 'metadata.db'}"
            return [*common, "--auth", state.auth, "--database-url", url]
        case Kind.STORAGE:
            metadata = state.addresses(Kind.METADATA)[0]
            identity = ["--node-id", member.name, "--zone", _zone(member)]
            identity += ["--transport", state.transport]
            return [*common, *identity, "--data-dir", str(data), "--metadata", metadata]
        case Kind.ROUTER:
            # No address of the Metadata Store: a router is never told.
            seeds = ",".join(state.addresses(Kind.STORAGE))
            identity = ["--router-id", member.name, "--transport", state.transport]
            identity += ["--auth", state.auth]
            # Clusters that were made before there were granters have none.
            for granter in state.addresses(Kind.GRANTER):
                identity += ["--granter", granter]
            return [*common, *identity, "--seeds", seeds, "--snapshot-dir", str(data)]


def environment(
    member: Member, paths: Paths, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    env |= {process.CLUSTER_ID: paths.cluster_id, process.MEMBER: member.name}
    return env | dict(extra or {})


def _zone(member: Member) -> str:
    """Three zones, dealt round: storage-1 is in zone-a."""
    number = int(member.name.rpartition("-")[2])
    return f"zone-{'abc'[(number - 1) % 3]}"


def _memcached(member: Member) -> list[str]:
    binary = shutil.which("memcached")
    if binary is None:
        raise KeyplaneError(
            Reason.MEMCACHED_MISSING,
            "there is no memcached on this machine; run: sudo apt-get install -y memcached",
        )
    host, _, port = member.address.rpartition(":")
    argv = [binary, "-l", host, "-p", port, "-U", "0"]
    argv += ["-m", str(_MEMCACHED_MEGABYTES), "-c", str(_MEMCACHED_CONNECTIONS)]
    if os.geteuid() == 0:
        # It refuses to run as root unless told so. Under another user its environment could not be
        # read everywhere (containers drop the right to), and `down` finds processes by that.
        argv += ["-u", "root"]
    return argv
